"""Making and unmaking databases, branches and keyspaces: servers, schemas, routes."""

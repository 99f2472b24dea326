"""Several gateways, each a process of its own: how they are told, and what one may do that cannot be told."""

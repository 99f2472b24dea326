"""Changes of engine: a database that runs is taken over by another engine, while its clients go on."""

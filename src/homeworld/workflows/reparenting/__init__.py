"""Reparents: another server becomes a shard's primary, as an operation that somebody asked for."""

"""Maintenance windows: servers are restarted one after the other, and nobody notices."""

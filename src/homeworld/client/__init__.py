"""A typed HTTP client of the API, for the command line, the demo and anyone in Python.

client = HomeworldClient("http://127.0.0.1:8080", token_id, token)
client.create_database("acme", "shop")
"""

from __future__ import annotations

from homeworld.client.client import ApiError, HomeworldClient, Resource, wait_for

__all__ = ["ApiError", "HomeworldClient", "Resource", "wait_for"]

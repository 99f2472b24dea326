"""Resizes: more or fewer replicas, other sizes of servers, other sizes of gateways."""

"""Metering: what the installation's servers used, hour by hour."""

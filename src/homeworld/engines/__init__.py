"""Servers as living things: MySQL and MariaDB processes that homeworld makes, watches and ends.

Other rooms reach them through ``model.ports.Engine`` only; main builds a LocalEngine and a Watcher.
"""

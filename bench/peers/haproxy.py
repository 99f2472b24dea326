"""HAProxy in TCP mode: the peer of the gateway. It passes bytes and reads none of them."""

from __future__ import annotations

import socket
import subprocess

from tests.support.mysqld import free_port

from bench.lab import Lab, program, wait_until

_CONFIG = """
global
  nbthread 1
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
frontend mysql
  bind 127.0.0.1:{port}
  default_backend server
backend server
  server one 127.0.0.1:{server_port}
"""


def start(lab: Lab, server_port: int) -> tuple[int, subprocess.Popen[bytes]]:
    """One HAProxy process with one thread before the server on that loopback port: (its port, itself)."""
    port = free_port()
    config = lab.folder / "haproxy.cfg"
    config.write_text(_CONFIG.format(port=port, server_port=server_port))
    child = lab.process([program("haproxy"), "-db", "-q", "-f", str(config)], lab.folder / "haproxy.log")
    wait_until(lambda: _listens(port), "HAProxy listens", 10.0)
    return port, child


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

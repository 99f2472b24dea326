"""A wrapper of a server program in which the kernel has no asynchronous I/O left to give.

A seccomp filter refuses io_uring, and native contexts of more than one request with EAGAIN, for that process
alone: what a server meets on a machine whose ``fs.aio-max-nr`` is used up.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

# Number of io_setup by machine; that of io_uring_setup is the same on all.
IO_SETUP = {"x86_64": 206, "aarch64": 0}
_TEXT = """#!{python}
import ctypes, os, struct, sys


def op(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


LOAD, EQUAL, RETURN, ERRNO, ALLOW = 0x20, 0x15, 0x06, 0x50000, 0x7FFF0000
program = (
    op(LOAD, 0, 0, 0)
    + op(EQUAL, 0, 1, 425) + op(RETURN, 0, 0, ERRNO | 38)
    + op(EQUAL, 0, 3, {io_setup})
    + op(LOAD, 0, 0, 16) + op(EQUAL, 1, 0, 1) + op(RETURN, 0, 0, ERRNO | 11)
    + op(RETURN, 0, 0, ALLOW)
)


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


kept = ctypes.create_string_buffer(program)
made = Filter(len(program) // 8, ctypes.addressof(kept))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(made), 0, 0):
    sys.exit("the filter was not taken")
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


def without_aio(real: Path, folder: Path) -> Path:
    """The wrapper of the server program ``real``, made in ``folder``."""
    wrapper = folder / real.name
    io_setup = IO_SETUP[platform.machine()]
    wrapper.write_text(_TEXT.format(python=sys.executable, io_setup=io_setup, real=str(real)))
    wrapper.chmod(0o755)
    return wrapper

"""The functions of one column: each maps one value to the keyspace id that Vitess computes for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from threading import Lock

import xxhash as _xxhash
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from homeworld.model.vindexes.base import Value, as_bytes, as_uint64
from homeworld.model.vindexes.loose import collation_key


def new_des() -> Callable[[bytes], bytes]:
    """A function that encrypts one block of 8 bytes under the null key; not to be called by two threads.

    ECB has no state between blocks, so one context serves for ever: opening one costs ten times a block.
    """
    return Cipher(TripleDES(bytes(24)), modes.ECB()).encryptor().update  # noqa: S305 a hash, not a secret


_des = new_des()
_DES_LOCK = Lock()

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def hash_(value: Value) -> bytes:
    """``hash``: 3DES with the null key over the integer."""
    block = as_uint64(value, "hash", wrap_negative=True).to_bytes(8, "big")
    with _DES_LOCK:
        return _des(block)


def xxhash(value: Value) -> bytes:
    """``xxhash``: XXH64 over the bytes."""
    return _xxhash.xxh64_intdigest(as_bytes(value)).to_bytes(8, "little")


def binary(value: Value) -> bytes:
    """``binary``: the bytes themselves."""
    return as_bytes(value)


def binary_md5(value: Value) -> bytes:
    """``binary_md5``: MD5 over the bytes."""
    return hashlib.md5(as_bytes(value), usedforsecurity=False).digest()


def unicode_loose_md5(value: Value) -> bytes:
    """``unicode_loose_md5``: MD5 over the text without case, accents and trailing spaces."""
    return hashlib.md5(collation_key(as_bytes(value)), usedforsecurity=False).digest()


def unicode_loose_xxhash(value: Value) -> bytes:
    """``unicode_loose_xxhash``: XXH64 over the text without case, accents and trailing spaces."""
    return _xxhash.xxh64_intdigest(collation_key(as_bytes(value))).to_bytes(8, "little")


def numeric(value: Value) -> bytes:
    """``numeric``: the unsigned integer, big-endian."""
    return as_uint64(value, "numeric").to_bytes(8, "big")


def reverse_bits(value: Value) -> bytes:
    """``reverse_bits``: the 64 bits of the unsigned integer from last to first."""
    return as_uint64(value, "reverse_bits").to_bytes(8, "little").translate(_REVERSED)


def null(_value: Value) -> bytes:
    """``null``: one keyspace id for everything, on the first shard."""
    return b"\0"

"""Password proofs of ``mysql_native_password`` and ``caching_sha2_password``, both sides.

The server side knows only the twice-hashed password (as in ``model.routing.Account``), which is enough to
check a proof: fast authentication always works, and no password is ever needed in plain text.
Every comparison takes constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from homeworld.wire.constants import CACHING_SHA2, NATIVE

SCRAMBLE_LENGTH = 20
FAST_OK = b"\x03"
"""AuthMoreData of caching_sha2_password: the proof was right, an OK follows."""
FULL_NEEDED = b"\x04"
"""AuthMoreData of caching_sha2_password: send the password itself (over a secure channel, or by RSA)."""
REQUEST_KEY = b"\x02"
"""What a client sends to ask for the server's public key."""


def new_scramble() -> bytes:
    """20 random bytes without NUL, which some clients would read as the end."""
    return bytes(secrets.choice(range(1, 128)) for _ in range(SCRAMBLE_LENGTH))


def sha1_twice(password: str) -> bytes:
    """What a server stores for mysql_native_password."""
    return hashlib.sha1(
        hashlib.sha1(password.encode(), usedforsecurity=False).digest(), usedforsecurity=False
    ).digest()


def sha256_twice(password: str) -> bytes:
    """What a server caches for caching_sha2_password."""
    return hashlib.sha256(hashlib.sha256(password.encode()).digest()).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def native_proof(password: str, scramble: bytes) -> bytes:
    """The client's answer to ``scramble`` (20 bytes); empty for an empty password."""
    if not password:
        return b""
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    twice = hashlib.sha1(once, usedforsecurity=False).digest()
    return _xor(once, hashlib.sha1(scramble + twice, usedforsecurity=False).digest())


def sha2_proof(password: str, scramble: bytes) -> bytes:
    """The client's answer to ``scramble`` (20 bytes); empty for an empty password."""
    if not password:
        return b""
    once = hashlib.sha256(password.encode()).digest()
    twice = hashlib.sha256(once).digest()
    return _xor(once, hashlib.sha256(twice + scramble).digest())


def proof(plugin: str, password: str, scramble: bytes) -> bytes | None:
    """The client's answer for ``plugin``; None: a plugin this client does not know."""
    if plugin == NATIVE:
        return native_proof(password, scramble)
    if plugin == CACHING_SHA2:
        return sha2_proof(password, scramble)
    return None


def check_native(answer: bytes, scramble: bytes, twice: bytes) -> bool:
    """Whether ``answer`` proves the password whose SHA1(SHA1()) is ``twice``."""
    if len(answer) != 20 or len(twice) != 20:
        return False
    once = _xor(answer, hashlib.sha1(scramble + twice, usedforsecurity=False).digest())
    return hmac.compare_digest(hashlib.sha1(once, usedforsecurity=False).digest(), twice)


def check_sha2(answer: bytes, scramble: bytes, twice: bytes) -> bool:
    """Whether ``answer`` proves the password whose SHA256(SHA256()) is ``twice``."""
    if len(answer) != 32 or len(twice) != 32:
        return False
    once = _xor(answer, hashlib.sha256(twice + scramble).digest())
    return hmac.compare_digest(hashlib.sha256(once).digest(), twice)


def check_sha2_plain(password: bytes, twice: bytes) -> bool:
    """Whether the password itself (full authentication over TLS) is the one of ``twice``."""
    return hmac.compare_digest(hashlib.sha256(hashlib.sha256(password).digest()).digest(), twice)


def rsa_password(password: str, scramble: bytes, public_key_pem: bytes) -> bytes:
    """The password for full authentication over an open channel, encrypted for the server's public key.

    :raises ValueError: the key is not an RSA public key in PEM.
    """
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(public_key_pem)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("the server's public key is not an RSA key")  # noqa: TRY004 wrong content, not type
    plain = password.encode() + b"\0"
    mask = (scramble * (len(plain) // len(scramble) + 1))[: len(plain)]
    oaep = padding.OAEP(mgf=padding.MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303 the protocol says so
    return key.encrypt(_xor(plain, mask), oaep)

"""Passwords of users and all other secrets of people, as they are kept. Pure functions, no store.

Invariant: a password is kept as argon2id's digest only; codes and tokens are random and long, so that their
SHA-256 is enough (a slow hash protects what can be guessed, and would cost every request).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_secret

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 256
ACCESS_PREFIX = "pscale_oauth_"
REFRESH_PREFIX = "pscale_refresh_"
# Without letters and digits that look alike, and without vowels, so that no code is a word.
_USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_hasher = PasswordHasher()
# Each takes 64 MiB for its time: who asks for many at once waits in line instead of filling the memory.
_at_once = threading.Semaphore(2)
# Verified where there is no such user, so that the answer takes as long.
_nobody = ""


def hash_password(password: str) -> str:
    """The digest to keep.

    :raises InvalidError: it is too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    with _at_once:
        return _hasher.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is the one kept; takes as long where none is kept."""
    global _nobody  # noqa: PLW0603 - made once, when first needed: it takes as long as a verification
    with _at_once:
        if password_hash is None:
            _nobody = _nobody or _hasher.hash(new_secret())
        try:
            right = _hasher.verify(password_hash or _nobody, password[:LONGEST_PASSWORD])
        except (VerifyMismatchError, InvalidHashError):
            return False
    return right and password_hash is not None and len(password) <= LONGEST_PASSWORD


def digest(secret: str) -> bytes:
    """What is kept of a code or token."""
    return hashlib.sha256(secret.encode()).digest()


def same(one: bytes, other: bytes) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


def new_user_code() -> str:
    """A code that a person types: eight letters, about 34 bits."""
    letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def user_code_as_made(typed: str) -> str:
    """What a person typed, as ``new_user_code`` makes it; anything else gives a code that nobody has."""
    letters = "".join(letter for letter in typed.upper() if letter.isalnum())[:9]
    return f"{letters[:4]}-{letters[4:]}"

"""TLS for the gateway: a certificate authority of its own, and a filter that owns no socket.

The filter keeps ciphertext and plaintext apart, so that the bytes which follow a client's wish for TLS in the
same chunk are never lost, and the session above works the same with and without it.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS_CA = 10
_YEARS_SERVER = 5
_READ = 65536


class TlsMode(StrEnum):
    """Who must use TLS. AUTO: clients that are not on this machine."""

    AUTO = "auto"
    REQUIRED = "required"
    OPTIONAL = "optional"

    def required_of(self, peer: str) -> bool:
        """Whether a client at that address must use it."""
        if self is not TlsMode.AUTO:
            return self is TlsMode.REQUIRED
        try:
            return not ipaddress.ip_address(peer).is_loopback
        except ValueError:
            return True


def context_for(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's TLS context from a PEM certificate chain and key.

    :raises OSError: a file cannot be read. :raises ssl.SSLError: they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def make_certificates(
    folder: Path, hosts: tuple[str, ...], now: datetime | None = None
) -> tuple[Path, Path, Path]:
    """A CA and a server certificate in ``folder``, made where they are not there yet.

    :param hosts: names and addresses the certificate is for.
    :returns: paths of the CA's certificate (for clients), the server's certificate, the server's key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    if all(path.exists() for path in paths):
        return paths
    start = (now or datetime.now(UTC)) - timedelta(minutes=5)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Homeworld gateway CA")])
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * _YEARS_CA))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(_usage(signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]))
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * _YEARS_SERVER))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(_usage(signs=False), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    # The CA's key signs this one certificate and is then forgotten.
    _write(paths[0], ca.public_bytes(pem), 0o644)
    _write(paths[1], server.public_bytes(pem) + ca.public_bytes(pem), 0o644)
    _write(
        paths[2],
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        0o600,
    )
    return paths


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable for others even for a moment."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


class TlsFilter:
    """TLS over a channel, without the channel.

    :param send: takes ciphertext for the client.
    :raises ssl.SSLError: from :meth:`feed`, when the client speaks no TLS or breaks it.
    """

    def __init__(self, context: ssl.SSLContext, send: Callable[[bytes], object]) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._send = send
        self._shaken = False
        self._broken = False

    def feed(self, data: bytes) -> bytes:
        """Take ciphertext from the client; gives the plaintext it held."""
        self._incoming.write(data)
        plain: list[bytes] = []
        self._broken = True  # unless it turns out well
        try:
            if not self._shaken:
                self._object.do_handshake()
                self._shaken = True
            while chunk := self._object.read(_READ):
                plain.append(chunk)
        except ssl.SSLWantReadError:
            self._broken = False
        except ssl.SSLZeroReturnError:
            # The client has said goodbye; the channel's end follows.
            pass
        finally:
            self._flush()
        return b"".join(plain)

    def write(self, data: bytes) -> None:
        """Send plaintext to the client; nothing any more to one who has broken the channel."""
        try:
            self._object.write(data)
        except ssl.SSLError:
            if not self._broken:
                raise
        else:
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())

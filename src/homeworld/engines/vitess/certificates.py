"""The certificate with which an installation's Vitess processes know each other: one CA, one key for all.

Whoever has it is one of us: every gRPC port and etcd take nobody else. Made anew, in a folder of another
name, long before it ends; processes are then started again, because what they are started with has changed.
The CA's own key signs this one certificate and is never written down.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = timedelta(days=5 * 365)
_RENEW_BEFORE = timedelta(days=90)
_FOLDER = re.compile(r"^until-(\d{8})$")


@dataclass(frozen=True, slots=True)
class Identity:
    """Paths of the CA's certificate, ours, and its key (all PEM)."""

    ca: Path
    certificate: Path
    key: Path


def ensure(folder: Path, now: datetime | None = None) -> Identity:
    """The certificate that is in force, made where there is none or it ends soon.

    :param folder: has a folder for each. Not to be called twice at once.
    """
    moment = now or datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The day is in the name; a folder is there whole or not at all.
    names = sorted(entry.name for entry in folder.iterdir() if _FOLDER.match(entry.name))
    if names:
        until = datetime.strptime(names[-1], "until-%Y%m%d").replace(tzinfo=UTC)
        if until - moment > _RENEW_BEFORE:
            return _identity(folder / names[-1])
    scratch = folder / f".new-{secrets.token_hex(4)}"
    scratch.mkdir(mode=0o700)
    until = moment + _LIFE
    _make(_identity(scratch), moment - timedelta(minutes=5), until)
    made = folder / f"until-{until:%Y%m%d}"
    if made.exists():  # made earlier this very day
        shutil.rmtree(scratch)
    else:
        scratch.rename(made)
    return _identity(made)


def _identity(folder: Path) -> Identity:
    return Identity(folder / "ca.pem", folder / "homeworld.pem", folder / "homeworld.key")


def _make(identity: Identity, start: datetime, end: datetime) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Homeworld Vitess CA")
    ca_identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(ca_identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    ours = (
        _builder(_name("homeworld"), ca_name, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identifier), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write(identity.ca, ca.public_bytes(pem))
    _write(identity.certificate, ours.public_bytes(pem))
    _write(
        identity.key,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


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


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

"""Certificates for mutual TLS: one authority, a server, and one for each client, whose name is its identity.

Source: RFC 5280 for the extensions; https://cryptography.io for the builder.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "ca"
SERVER = "server"
_NAME = re.compile(r"[\w.+-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Identity:
    """What a process shows, and what it holds others against.

    Attributes:
        name: whom the certificate names.
        key, certificate: its own, PEM.
        authority: of everybody, PEM.
    """

    name: str
    key: bytes
    certificate: bytes
    authority: bytes

    def __repr__(self) -> str:  # a key must not end up in a log
        return f"Identity({self.name!r})"


def make(
    folder: Path,
    clients: Sequence[str],
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: float = 365,
    start: datetime | None = None,
) -> list[Path]:
    """Write certificates and keys for a federation, adding to an authority that is already in the folder.

    ::

        DIR/ca.crt  DIR/ca.key  DIR/server.crt  DIR/server.key  DIR/NAME.crt  DIR/NAME.key

    A host needs ``ca.crt`` and its own pair only; ``ca.key`` stays where it was made.

    Args:
        folder: where to.
        clients: their names, as the experiment deals windows out.
        hosts: names and addresses under which clients reach the server.
        days: how long they hold.
        start: from when; default now.

    Raises:
        ValueError: a name cannot stand in a certificate, or is one that is taken.
        FileExistsError: a certificate is there already.
    """
    for name in clients:
        if not _NAME.fullmatch(name) or name in (AUTHORITY, SERVER):
            raise ValueError(
                f"a client cannot be called {name!r}: letters, digits and . + - _ are possible, and neither "
                f"{AUTHORITY!r} nor {SERVER!r}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [SERVER, *clients]
    if taken := [name for name in wanted if (folder / f"{name}.crt").exists()]:
        raise FileExistsError(f"{folder / taken[0]}.crt is there already; delete it to make it anew")
    begin = start or datetime.now(UTC) - timedelta(minutes=5)
    end = begin + timedelta(days=days)
    authority, key = _authority(folder, begin, end)
    written = [folder / "ca.crt"]
    for name in wanted:
        own = ec.generate_private_key(ec.SECP256R1())
        alternative: list[x509.GeneralName] = (
            [_host(h) for h in hosts] if name == SERVER else [x509.UniformResourceIdentifier(f"hcqsfl:client:{name}")]
        )
        usage = ExtendedKeyUsageOID.SERVER_AUTH if name == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(authority.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        _write(folder / f"{name}.key", _pem(own), secret=True)
        _write(folder / f"{name}.crt", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        written += [folder / f"{name}.crt", folder / f"{name}.key"]
    return written


def load(folder: Path, name: str) -> Identity:
    """Read a process's certificate and key, and check that they are usable.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: the certificate is of another name or authority, does not fit the key, or does not hold today.
    """
    pieces = {}
    for part, file in (("key", f"{name}.key"), ("certificate", f"{name}.crt"), ("authority", f"{AUTHORITY}.crt")):
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; `hcqsfl certs make` writes it")
        pieces[part] = path.read_bytes()
    own, authority = _read(folder / f"{name}.crt"), _read(folder / f"{AUTHORITY}.crt")
    if common_name(own) != name:
        raise ValueError(f"{folder / name}.crt is the certificate of {common_name(own)!r}, not of {name!r}")
    key = serialization.load_pem_private_key(pieces["key"], None)
    if _spki(key.public_key()) != _spki(own.public_key()):
        raise ValueError(f"{folder / name}.key does not belong to {folder / name}.crt")
    try:
        own.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        raise ValueError(f"{folder / name}.crt was not issued by {folder / AUTHORITY}.crt") from None
    for what, certificate in ((f"the certificate of {name!r}", own), ("the authority's certificate", authority)):
        if why := lapsed(certificate):
            raise ValueError(f"{what} {why}; make another with `hcqsfl certs make`")
    return Identity(name, **pieces)


def lapsed(certificate: x509.Certificate) -> str:
    """Return why a certificate does not hold now, or an empty string."""
    now = datetime.now(UTC)
    if certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return ""
    return (
        f"holds from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
        f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and now is {now:%Y-%m-%d %H:%M}"
    )


def common_name(certificate: x509.Certificate) -> str:
    """Return whom a certificate names."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _authority(folder: Path, begin: datetime, end: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = folder / f"{AUTHORITY}.crt", folder / f"{AUTHORITY}.key"
    if certificate_path.exists():
        if not key_path.exists():
            raise FileNotFoundError(f"{key_path} is not there, so nothing can be added to the authority in {folder}")
        found = serialization.load_pem_private_key(key_path.read_bytes(), None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_path} is not a key that this command wrote")
        return _read(certificate_path), found
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("hcqsfl authority")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    _write(key_path, _pem(key), secret=True)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} is no certificate in PEM") from None


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _spki(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(content)

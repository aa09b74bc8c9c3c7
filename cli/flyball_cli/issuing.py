"""A certificate authority for trying things out, and the certificates it gives.

Files are laid out as cert-manager lays out its secrets, one folder each, so that a try-out and a
cluster are configured alike. Refuses to serve production: keys lie unencrypted beside what they
sign, and nothing is ever revoked.
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flyball_core.errors import Rejected
from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.config import TRUST_DOMAIN
from flyball_service.tls import ROLES, controller_host

CA_FOLDER = "ca"
BROKER = "broker"
"""No role of Flyball's: the certificate of a Kafka broker, which no controller, agent or engine heeds."""
CA_DAYS = 3650
"""How long an authority lasts: whoever adds a certificate later needs the same one."""
_EARLIER = timedelta(minutes=5)
"""Certificates hold from a little before they are made: clocks of two machines differ."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_COMMON_NAME = 64
"""Most characters of a common name, which is for people: the SPIFFE id holds the whole name."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A certificate to be made. Raises `Rejected` for what no certificate can carry."""

    role: str
    name: str

    def __post_init__(self) -> None:
        if self.role not in (*ROLES, BROKER):
            raise Rejected(f"{self.role!r} is no role; a certificate is of {', '.join((*ROLES, BROKER))}")
        if not _NAME.fullmatch(self.name):
            raise Rejected(f"{self.name!r}: a certificate's name has 1 to 200 of A-Z, a-z, 0-9, dot, dash, underscore")

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.role}-{self.name}"

    def spiffe(self, trust_domain: str) -> str:
        """Its SPIFFE id."""
        return f"spiffe://{trust_domain}/{self.role}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the certificates of one call have in common. Raises `Rejected` for what no certificate can carry."""

    expires: datetime
    trust_domain: str = TRUST_DOMAIN
    hosts: tuple[str, ...] = ()
    """Host names and IP addresses they hold for, beside this machine's own."""

    def __post_init__(self) -> None:
        if not _DOMAIN.fullmatch(self.trust_domain):
            raise Rejected(f"{self.trust_domain!r} is no trust domain: it has a-z, 0-9, dot, dash, underscore")
        self.names()

    def names(self) -> list[x509.GeneralName]:
        """The hosts, as a certificate carries them."""
        return [_general_name(host) for host in dict.fromkeys((*_LOOPBACK, *self.hosts))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certificate authority with its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """What those who trust it need."""
        return self.cert.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that was made."""

    wanted: Wanted
    folder: Path
    spiffe: str
    expires: datetime


def make_authority(folder: Path, trust_domain: str, now: datetime) -> Authority:
    """A new authority in FOLDER/ca. Raises `Rejected` if the folder cannot be written."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(f"Flyball try-out {trust_domain}"[:_COMMON_NAME])
    cert = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(cert=cert, key=key)
    _write(folder / CA_FOLDER, authority.pem, key, authority.pem)
    return authority


def read_authority(folder: Path, now: datetime) -> Authority | None:
    """The authority in FOLDER/ca, None if there is none. Raises `Rejected` if it cannot be used."""
    place = folder / CA_FOLDER
    if not (place / CERT_FILE).exists():
        return None
    try:
        cert = x509.load_pem_x509_certificate((place / CERT_FILE).read_bytes())
        key = load_pem_private_key((place / KEY_FILE).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Rejected(f"the authority in {place} cannot be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        raise Rejected(f"the authority in {place} cannot be used: {KEY_FILE} is not the key of {CERT_FILE}")
    if cert.not_valid_after_utc <= now:
        raise Rejected(f"the authority in {place} expired on {cert.not_valid_after_utc:%Y-%m-%d}; take a new folder")
    return Authority(cert=cert, key=key)


def issue(authority: Authority, wanted: Wanted, folder: Path, terms: Terms, now: datetime | None = None) -> Issued:
    """Make the certificate and write it below `folder`. It never outlives its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = now or datetime.now(UTC)
    until = min(terms.expires, authority.cert.not_valid_after_utc)
    spiffe = wanted.spiffe(terms.trust_domain)
    purposes, names = [ExtendedKeyUsageOID.CLIENT_AUTH], terms.names()
    if wanted.role in ("controller", BROKER):
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if wanted.role == "controller":
        # Only controllers have doors: nobody else's certificate passes for one.
        names.append(x509.DNSName(controller_host(terms.trust_domain)))
    cert = (
        _builder(_subject(wanted.folder[:_COMMON_NAME]), authority.cert.subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe), *names]),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    place = folder / wanted.folder
    _write(place, cert.public_bytes(Encoding.PEM), key, authority.pem)
    return Issued(wanted=wanted, folder=place, spiffe=spiffe, expires=until)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


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


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise Rejected(f"{host!r} is neither an IP address nor a host's name in ASCII") from error


def _write(folder: Path, cert: bytes, key: ec.EllipticCurvePrivateKey, authority: bytes) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The key last: whoever sees a new certificate without its key keeps what it had.
        for file, data, mode in ((CA_FILE, authority, 0o644), (CERT_FILE, cert, 0o644), (KEY_FILE, pem, 0o600)):
            _replace(folder / file, data, mode)
    except OSError as error:
        raise Rejected(f"{folder}: cannot write certificates here: {error.strerror or error}") from error


def _replace(file: Path, data: bytes, mode: int) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(data)
    beside.replace(file)

"""Whether the certificate files that a service would start with are of use to it.

Looks at files only: whether the other end trusts the same authority shows when they talk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.tls import controller_host, read_spiffe


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with the configuration, at which key, and what would be right."""

    key: str
    problem: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Whose certificate it must be."""

    role: str
    name: str
    trust_domain: str


def check_certificates(folder: Path, expected: Expected, now: datetime) -> Iterator[Fault]:
    """What is wrong with the three files in `folder` for that service, at the key `tls.folder`."""
    try:
        chain = x509.load_pem_x509_certificates((folder / CERT_FILE).read_bytes())
        authorities = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
        key = load_pem_private_key((folder / KEY_FILE).read_bytes(), None)
    except OSError as error:
        yield _fault(f"{error.filename}: {error.strerror}", f"the folder holds {CERT_FILE}, {KEY_FILE} and {CA_FILE}")
        return
    except (ValueError, TypeError) as error:
        yield _fault(f"{folder} holds a file that is not PEM, or an encrypted key: {error}")
        return
    own = chain[0]
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != own.public_key().public_bytes(*spki):
        yield _fault(f"{folder / KEY_FILE} is not the key of {CERT_FILE}")
    if not any(_signed_by(chain[-1], authority) for authority in authorities):
        yield _fault(f"{folder / CERT_FILE} is not signed by {CA_FILE}", "both come from the same authority")
    yield from _check_times(folder, [*chain, *authorities], now)
    yield from _check_identity(folder, own, expected)


def _signed_by(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_times(folder: Path, certificates: list[x509.Certificate], now: datetime) -> Iterator[Fault]:
    for one in certificates:
        name = one.subject.rfc4514_string()
        if one.not_valid_after_utc <= now:
            yield _fault(f"{folder}: {name} expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "renew it")
        elif one.not_valid_before_utc > now:
            yield _fault(f"{folder}: {name} does not hold before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def _check_identity(folder: Path, own: x509.Certificate, expected: Expected) -> Iterator[Fault]:
    file, wanted = folder / CERT_FILE, f"spiffe://{expected.trust_domain}/{expected.role}/{expected.name}"
    names = _names(own)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    found = read_spiffe(uris[0], expected.trust_domain) if len(uris) == 1 else None
    if found is None:
        carried = ", ".join(uris) or "none"
        yield _fault(f"{file} must carry one SPIFFE id of {expected.trust_domain}; it carries {carried}", wanted)
    elif (found.role, found.name) != (expected.role, expected.name):
        yield _fault(f"{file} is of {found}, not of {expected.role} {expected.name}", wanted)
    # A controller has a door, the others knock at it.
    serves, host = expected.role == "controller", controller_host(expected.trust_domain)
    named = found is not None and found.role == expected.role  # else its hosts are another's
    if named and serves is not (host in names.get_values_for_type(x509.DNSName)):
        said = "does not carry the host name" if serves else "carries a controller's host name"
        yield _fault(f"{file} {said} {host}", "controllers' certificates have it, and no others")
    try:
        purposes = set(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    needed = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    if needed not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
        usage = "server auth" if serves else "client auth"
        yield _fault(f"{file} is not for {usage}", f"give it the extended key usage `{usage}`")


def _names(own: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _fault(problem: str, remedy: str = "") -> Fault:
    return Fault(key="tls.folder", problem=problem, remedy=remedy)

"""The files of a certificate, as cert-manager lays them out, and how long they hold.

An inference engine's environment has nothing that parses certificates, and Python's own library tells an expiry
only of a peer's certificate. So the one field is read here: no signature is checked, nothing else is looked at.
"""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from flyball_core.errors import Rejected

CERT_FILE, KEY_FILE, CA_FILE = "tls.crt", "tls.key", "ca.crt"

_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm and issuer stand before it."""
_LONG = 0x80
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
_SPIFFE_ID = re.compile(rb"spiffe://([a-z0-9._-]{1,255})/")
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Validity(NamedTuple):
    """From when until when, in seconds of unix time."""

    begins_s: float
    ends_s: float


def validities(pem: bytes) -> list[Validity]:
    """Of each certificate in a PEM file, in its order. Raises `Rejected` for what is no certificate."""
    try:
        return [_validity(der) for der in _ders(pem)]
    except (ValueError, IndexError, StopIteration) as error:
        raise Rejected(f"this is no certificate: {error}") from error


def trust_domain_in(pem: bytes) -> str | None:
    """The trust domain of the SPIFFE id in a PEM file's first certificate; None if it carries none.

    For one's own certificate, whose every byte is trusted. Raises `Rejected` for what is no certificate.
    """
    found = _SPIFFE_ID.search(next(iter(_ders(pem)), b""))
    return found[1].decode("ascii") if found else None


def _ders(pem: bytes) -> Iterator[bytes]:
    for block in pem.split(_BEGIN)[1:]:
        body, end, _ = block.partition(_END)
        try:
            yield ssl.PEM_cert_to_DER_cert((_BEGIN + body + end).decode("ascii"))
        except ValueError as error:
            raise Rejected(f"this is no certificate: {error}") from error


def _validity(der: bytes) -> Validity:
    _, certificate = next(_elements(der))
    _, signed = next(_elements(certificate))
    parts = [part for part in _elements(signed) if part[0] != _VERSION]  # absent in the first version
    begins, ends = list(_elements(parts[_BEFORE_VALIDITY][1]))[:2]
    return Validity(_time(*begins), _time(*ends))


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and content of each element in a row of them (X.690)."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= _LONG:
            count = length - _LONG
            length, at = int.from_bytes(der[at : at + count]), at + count
        if at + length > len(der):
            raise ValueError("it breaks off")
        yield tag, der[at : at + length]
        at += length


def _time(tag: int, text: bytes) -> float:
    if tag not in _FORMATS:
        raise ValueError("no time stands where its validity should")
    when = datetime.strptime(text.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)
    # RFC 5280: two digits stand for 1950 to 2049; Python's own break is at 1969.
    if tag == _UTC_TIME and when.year >= 2050:
        when = when.replace(year=when.year - 100)
    return when.timestamp()

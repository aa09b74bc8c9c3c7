"""Reading from a certificate when it ends and whose it is, without anything that parses certificates."""

import random
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from flyball_core.errors import Rejected
from flyball_service.certificate_files import trust_domain_in, validities
from issued_certificates import certify


@pytest.mark.parametrize("days", [1.0, 800.0, 3649.0])
def test_what_is_read_is_what_stands_there(tmp_path: Path, days: float) -> None:
    """Begin and end of each certificate of a file, as a library that parses them has it."""
    folder = certify(tmp_path, "agent", "a0", days=days)
    pem = (folder / "tls.crt").read_bytes() + (folder / "ca.crt").read_bytes()
    expected = [
        (one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp())
        for one in x509.load_pem_x509_certificates(pem)
    ]

    assert expected == [tuple(one) for one in validities(pem)]


def test_dates_beyond_2049_and_before_1970_are_read() -> None:
    """Two digits of a year stand for 1950 to 2049; from 2050 on there are four."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1951, 1, 2, tzinfo=UTC))
        .not_valid_after(datetime(2051, 3, 4, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    [found] = validities(made.public_bytes(Encoding.PEM))

    assert (datetime(1951, 1, 2, tzinfo=UTC), datetime(2051, 3, 4, tzinfo=UTC)) == (
        datetime.fromtimestamp(found.begins_s, UTC),
        datetime.fromtimestamp(found.ends_s, UTC),
    )


def test_what_is_damaged_is_rejected_and_nothing_else(tmp_path: Path) -> None:
    """A certificate cut off anywhere, or with bytes changed at random, is read or `Rejected`."""
    der = ssl.PEM_cert_to_DER_cert((certify(tmp_path, "agent", "a0") / "tls.crt").read_text())
    draw = random.Random(29)
    rejected = 0
    for number in range(2_000):
        damaged = bytearray(der[: draw.randrange(len(der))] if number % 2 else der)
        for _ in range(draw.randrange(4)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        pem = ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode()
        try:
            validities(pem)
        except Rejected:
            rejected += 1

    assert 1_000 <= rejected < 2_000
    with pytest.raises(Rejected):
        validities(b"-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n")


def test_the_trust_domain_is_that_of_the_first_certificate(tmp_path: Path) -> None:
    """Where it carries an id; else, and of no certificate at all, there is none."""
    folder = certify(tmp_path, "agent", "a0", trust_domain="acme.example")

    assert "acme.example" == trust_domain_in((folder / "tls.crt").read_bytes())
    assert trust_domain_in((folder / "ca.crt").read_bytes()) is None
    assert trust_domain_in(b"") is None

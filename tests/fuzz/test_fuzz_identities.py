"""SPIFFE ids, addresses, certificate files."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_core.errors import Fatal, Rejected
from flyball_log.kafka.clients import connection
from flyball_log.kafka.settings import KafkaSettings
from flyball_log.opening import parse_kafka
from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.config import TlsConfig
from flyball_service.tls import Tls
from fuzz_identities import ENCRYPTED, certificates, certificates_template, identities
from fuzz_strategies import mutated


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("identities"))
def test_identities_with_any_bytes(data: bytes) -> None:
    """An id is one of our roles or nobody; an address is host and port, or `Rejected`."""
    identities(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("certificates"))
def test_certificates_with_any_bytes(data: bytes) -> None:
    """Files of no use are refused without asking a terminal for a password."""
    certificates(data)


def test_an_encrypted_key_is_refused_without_asking_for_its_password(tmp_path: Path) -> None:
    """Nobody sits at a service's terminal: it would wait there for ever. The test's own would wait as well."""
    files = certificates_template()
    for name in (CERT_FILE, CA_FILE):
        (tmp_path / name).write_bytes(files[name])
    (tmp_path / KEY_FILE).write_bytes(files[ENCRYPTED])
    with pytest.raises(Fatal):
        Tls(TlsConfig(folder=tmp_path))
    ca, cert, key = (str(tmp_path / name) for name in (CA_FILE, CERT_FILE, KEY_FILE))
    settings = KafkaSettings(
        bootstrap=("127.0.0.1:9092",), security_protocol="SSL", ca_file=ca, cert_file=cert, key_file=key
    )
    with pytest.raises(Fatal):
        connection(settings)


@pytest.mark.parametrize("port", ["1" * 5000, "\u0661", "65536", "-1", ""])
def test_a_brokers_port_is_one(port: str) -> None:
    """More digits than Python makes a number of are no port, nor are another script's."""
    with pytest.raises(Rejected):
        parse_kafka(f"kafka://127.0.0.1:{port}/x")

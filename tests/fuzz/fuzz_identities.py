"""Targets: who somebody is and where: SPIFFE ids, addresses, names of logs, certificate files.

The promises: an id is one of our roles with a name, or nobody; an address is host and port, or `Rejected`;
certificate files that are of no use are refused with `Fatal` and a sentence, without asking a terminal anything.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from flyball_cli.certificate_checks import Expected, check_certificates
from flyball_core.addresses import is_loopback, split_address
from flyball_core.errors import Fatal, Rejected
from flyball_log.kafka.settings import settings_for
from flyball_log.opening import is_kafka, parse_kafka
from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.config import TlsConfig
from flyball_service.tls import NOBODY, ROLES, Tls, peer_identity, read_spiffe
from fuzz_bytes import Draw, edited, says
from fuzz_files import Files, found_in, scratch
from issued_certificates import certify

ENCRYPTED = "encrypted.key"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class _Call:
    """A call over a connection that a handshake said this of."""

    def __init__(self, uris: list[bytes]) -> None:
        self._uris = uris

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the handshake found."""
        return {"transport_security_type": [b"ssl"], "peer_uri": self._uris}


def identities(data: bytes) -> None:
    """An id in a certificate, and addresses as files and commands name them."""
    uris = data.split(b"\x00", 2)
    who = peer_identity(_Call(uris))
    assert who is not None
    if who is not NOBODY:
        assert len(uris) == 1
        assert who.role in ROLES
        assert read_spiffe(f"spiffe://flyball/{who.role}/{who.name}") == who
    text = data.decode(errors="surrogateescape")
    try:
        host, port = split_address(text)
        again = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert (host, port) == split_address(again)
        assert is_loopback(text) == is_loopback(again)
    except Rejected as error:
        says(error)
    try:
        brokers, _ = parse_kafka(text)
        assert brokers
        settings = settings_for(text)
        assert is_kafka(settings.where)
        assert all(is_loopback(broker) for broker in settings.bootstrap)
    except Rejected as error:
        says(error)


@cache
def certificates_template() -> Files:
    """The files of a sound folder, and its key behind a password."""
    with scratch() as folder:
        files = found_in(certify(folder, "agent", "a0"))
    key = load_pem_private_key(files[KEY_FILE], None)
    files[ENCRYPTED] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    return files


def certificates(data: bytes) -> None:
    """The three files of a certificate folder."""
    draw = Draw(data)
    files = dict(certificates_template())
    encrypted = files.pop(ENCRYPTED)
    for name in sorted(files):
        how = draw.byte() % 5
        if how == 1:
            files[name] = edited(files[name], Draw(draw.piece()))
        elif how == 2:
            files[name] = draw.piece()
        elif how == 3:
            files[name] = draw.pick((encrypted, files[CERT_FILE], files[KEY_FILE], files[CA_FILE]))
    with scratch() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            tls = Tls(TlsConfig(folder=folder), role="agent", name="a0")
            tls.channel_credentials()
        except Fatal as error:
            says(error)
        for fault in check_certificates(folder, Expected(role="agent", name="a0", trust_domain="flyball"), NOW):
            assert fault.problem

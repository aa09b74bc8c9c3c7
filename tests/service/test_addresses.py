"""HOST:PORT, and what of it stays on this machine."""

import pytest

from flyball_core.addresses import is_loopback, split_address
from flyball_core.errors import Rejected


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7460", ("127.0.0.1", 7460)),
        ("[::1]:0", ("::1", 0)),
        ("controller.flyball.svc:7460", ("controller.flyball.svc", 7460)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    """Names and numbers of both families are taken apart."""
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        "7460",
        ":7460",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:٣",
        "::1:7460",
        "[::1]",
        "[]:1",
        "http://host:80",
        "a b:80",
        "a@b:80",
        "host:80/",
        "a,b:80",
        "a\x00b:80",
        "x" * 300 + ":80",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Anything else is `Rejected`, with an example."""
    with pytest.raises(Rejected, match="is not"):
        split_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_loopback_is_known(address: str) -> None:
    """All of 127/8, ::1 and localhost are this machine."""
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1", "localhost.example:1", "127.0.0.1.nip.io:1", "0x7f.1:1"]
)
def test_everything_else_is_beyond_loopback(address: str) -> None:
    """Every other address may be somebody else, names included: nothing is resolved."""
    assert not is_loopback(address)

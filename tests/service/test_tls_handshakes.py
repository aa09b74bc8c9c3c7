"""Mutual TLS over real gRPC connections: who gets in, and as whom."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from echoing import Conversation, add_echo, ask_who
from flyball_core.errors import Fatal, Rejected
from flyball_service.channels import channel, grpc_server
from flyball_service.config import TlsConfig
from flyball_service.tls import NOBODY, Identity, Tls, check_address, peer_identity, read_spiffe
from issued_certificates import certify, tls_of


@asynccontextmanager
async def serving(tls: Tls | None) -> AsyncIterator[str]:
    """A server that says who calls; its address."""
    server, port = await grpc_server("127.0.0.1:0", tls, add_echo)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("role", ["agent", "engine", "gateway", "controller", "viewer", "operator"])
async def test_a_server_sees_role_and_name(tmp_path: Path, role: str) -> None:
    """Every role arrives as its certificate names it."""
    async with serving(tls_of(tmp_path, "controller", "controller-0")) as address:
        seen = await ask_who(address, tls_of(tmp_path, role, "some.name-0"))

    assert seen == repr(Identity(role, "some.name-0"))


async def test_plaintext_on_loopback_is_nobody_in_particular() -> None:
    """Without TLS there is no identity, which is None and not an identity that is allowed nothing."""
    async with serving(None) as address:
        seen = await ask_who(address, None)

    assert seen == "None"


async def refused(address: str, tls: Tls | None) -> None:
    """Assert that no call gets through."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask_who(address, tls)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_another_authority_is_refused(tmp_path: Path) -> None:
    """A certificate of another authority opens nothing, whatever it says."""
    async with serving(tls_of(tmp_path / "ours", "controller", "c")) as address:
        stranger = tls_of(tmp_path / "theirs", "operator", "mallory")
        # Even one that trusts our server: then it is the server that refuses.
        shutil.copy(tmp_path / "ours" / "ca" / "tls.crt", stranger.folder / "ca.crt")

        await refused(address, stranger)


async def test_plaintext_is_refused_by_a_server_with_tls(tmp_path: Path) -> None:
    """A client without certificates does not get through to a server that has them."""
    async with serving(tls_of(tmp_path, "controller", "c")) as address:
        await refused(address, None)


async def test_a_client_refuses_a_server_that_is_no_controller(tmp_path: Path) -> None:
    """An agent's certificate does not serve: whoever stole one cannot play the controller."""
    async with serving(tls_of(tmp_path, "agent", "agent-0")) as address:
        await refused(address, tls_of(tmp_path, "engine", "engine-0"))


async def test_a_client_refuses_a_server_of_another_authority(tmp_path: Path) -> None:
    """A client talks to controllers of its own authority only."""
    async with serving(tls_of(tmp_path / "theirs", "controller", "c")) as address:
        await refused(address, tls_of(tmp_path / "ours", "engine", "engine-0"))


async def test_a_server_takes_renewed_certificates(tmp_path: Path) -> None:
    """Certificates that change on disk hold for the next connection, both ways, without a restart."""
    server_tls = tls_of(tmp_path / "old", "controller", "c")
    agent = tls_of(tmp_path / "old", "agent", "agent-0")
    renewed = tls_of(tmp_path / "new", "agent", "agent-0")
    async with serving(server_tls) as address:
        assert await ask_who(address, agent) == repr(Identity("agent", "agent-0"))
        shutil.copytree(certify(tmp_path / "new", "controller", "c"), server_tls.folder, dirs_exist_ok=True)

        assert await ask_who(address, renewed) == repr(Identity("agent", "agent-0"))
        await refused(address, agent)
        shutil.copytree(renewed.folder, agent.folder, dirs_exist_ok=True)
        assert await ask_who(address, agent) == repr(Identity("agent", "agent-0"))


async def test_a_broken_renewal_changes_nothing(tmp_path: Path) -> None:
    """Half-written certificates are not taken: the last good ones go on."""
    server_tls = tls_of(tmp_path, "controller", "c")
    async with serving(server_tls) as address:
        (server_tls.folder / "tls.crt").write_text("-----BEGIN CERTIF")
        agent = tls_of(tmp_path, "agent", "agent-0")

        assert await ask_who(address, agent) == repr(Identity("agent", "agent-0"))


async def test_connections_that_stand_outlive_a_renewal(tmp_path: Path) -> None:
    """A stream does not break because the certificates under it are renewed."""
    server_tls = tls_of(tmp_path / "old", "controller", "c")
    async with serving(server_tls) as address:
        connection = channel(address, tls_of(tmp_path / "old", "agent", "agent-0"))
        stream = Conversation(connection)
        stream.say(b"before")
        assert await stream.hear() == b"before"
        shutil.copytree(certify(tmp_path / "new", "controller", "c"), server_tls.folder, dirs_exist_ok=True)
        await ask_who(address, tls_of(tmp_path / "new", "agent", "agent-1"))

        stream.say(b"after")

        assert await stream.hear() == b"after"
        stream.end()
        await connection.close(None)


class _Peer:
    """A call of a peer of which gRPC says this."""

    def __init__(self, **said: Iterable[bytes]) -> None:
        self._said = said

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._said


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [b"spiffe://elsewhere/agent/a"],
        [b"spiffe://flyball/king/a"],
        [b"spiffe://flyball/agent/"],
        [b"spiffe://flyball/agent/a/b"],
        [b"spiffe://flyball/agent"],
        [b"https://flyball/agent/a"],
        [b"spiffe://flyball/agent/a", b"spiffe://flyball/operator/a"],
        [b"\xff"],
    ],
)
def test_a_certificate_without_one_id_of_ours_is_nobody(uris: list[bytes]) -> None:
    """Other trust domains, unknown roles and several ids are nobody, who is allowed nothing; never None."""
    call = _Peer(transport_security_type=[b"ssl"], peer_uri=uris)

    assert peer_identity(call) == NOBODY


def test_a_host_name_is_no_id() -> None:
    """Only URIs count: a DNS name that reads like an id is none."""
    name = [b"spiffe://flyball/operator/mallory"]
    call = _Peer(transport_security_type=[b"ssl"], x509_subject_alternative_name=name, peer_dns=name)

    assert peer_identity(call) == NOBODY


def test_another_trust_domain_can_be_ours() -> None:
    """The trust domain is the configured one, and then no other."""
    assert read_spiffe("spiffe://acme/agent/a", "acme") == Identity("agent", "a")
    assert read_spiffe("spiffe://flyball/agent/a", "acme") is None


@pytest.mark.parametrize("address", ["0.0.0.0:7460", "[::]:7460", "10.0.0.1:7460", "controller:7460", "127.0.0.1.x:1"])
async def test_plaintext_beyond_loopback_is_refused(address: str) -> None:
    """Neither a channel nor a server is made without TLS where others could listen in."""
    with pytest.raises(Rejected, match="plaintext is refused"):
        check_address(address, None)
    with pytest.raises(Rejected, match="plaintext is refused"):
        channel(address, None)
    with pytest.raises(Rejected, match="plaintext is refused"):
        await grpc_server(address, None, add_echo)


def _lose(folder: Path) -> None:
    (folder / "tls.key").unlink()


def _mix(folder: Path) -> None:
    shutil.copy(folder.parent / "ca" / "tls.key", folder / "tls.key")


def _garble(folder: Path) -> None:
    (folder / "ca.crt").write_text("no certificate")


@pytest.mark.parametrize(
    ("spoil", "said"), [(_lose, "there is no tls.key"), (_mix, "belong together"), (_garble, "must be PEM")]
)
def test_files_that_cannot_be_used_are_said_at_the_start(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """A missing file, a wrong key and what is no PEM are each a `Fatal` that names the folder."""
    folder = certify(tmp_path, "agent", "a")
    spoil(folder)

    with pytest.raises(Fatal, match=said) as caught:
        Tls(TlsConfig(folder=folder))

    assert str(folder) in str(caught.value)


def test_the_folder_that_was_looked_for_is_named(tmp_path: Path) -> None:
    """Where a service has no certificate, the folder of its own that it might have is said as well."""
    with pytest.raises(Fatal) as caught:
        Tls(TlsConfig(folder=tmp_path), role="engine", name="e0")

    assert (
        f"certificates in {tmp_path} cannot be used: there is no tls.crt, tls.key, ca.crt,"
        " and no folder engine-e0 with a tls.crt"
    ) == str(caught.value)


def test_each_service_of_a_shared_folder_has_its_own(tmp_path: Path) -> None:
    """FOLDER/ROLE-NAME goes before FOLDER, which serves where there is no such folder."""
    own = certify(tmp_path, "agent", "a")
    shutil.copytree(certify(tmp_path, "gateway", "g"), tmp_path, dirs_exist_ok=True)
    config = TlsConfig(folder=tmp_path)

    assert Tls(config, role="agent", name="a").folder == own
    assert Tls(config, role="agent", name="b").folder == tmp_path
    assert Tls(config).folder == tmp_path


def test_a_mounted_secret_is_read_as_one(tmp_path: Path) -> None:
    """Of a secret that Kubernetes mounted, all files come from the same version of it."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    first, second = certify(tmp_path / "1", "agent", "a"), certify(tmp_path / "2", "agent", "a")
    (mounted / "..data").symlink_to(first)
    # The links of a half-done exchange: the key is still the old one's.
    (mounted / "tls.crt").symlink_to(second / "tls.crt")
    (mounted / "tls.key").symlink_to("..data/tls.key")
    (mounted / "ca.crt").symlink_to("..data/ca.crt")

    assert Tls(TlsConfig(folder=mounted)).folder == mounted

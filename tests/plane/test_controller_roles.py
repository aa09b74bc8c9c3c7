"""Who may do what through which door, by certificate."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyball_controller.serving import doorkeeper
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.config import TlsConfig
from flyball_service.tls import Tls
from issued_certificates import certify
from plane_clients import Receiver, Running, append, attached, config_for, engine, frame, pin, running, status, stub

PEOPLE = (
    ("controller", "c1"),
    ("engine", "e1"),
    ("engine", "e2"),
    ("gateway", "e1"),
    ("agent", "a0"),
    ("agent", "a1"),
    ("viewer", "vic"),
    ("operator", "grace"),
)
Credentials = Callable[[str, str], Tls]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of everybody, of one authority."""
    made = tmp_path_factory.mktemp("certificates")
    for role, name in PEOPLE:
        certify(made, role, name)
    return made


@pytest.fixture
def credentials(folder: Path) -> Credentials:
    """The credentials of somebody."""
    return lambda role, name: Tls(TlsConfig(folder=folder), role=role, name=name)


@pytest.fixture
async def guarded(tmp_path: Path, folder: Path) -> AsyncIterator[Running]:
    """A controller that asks for certificates."""
    async with running(config_for(tmp_path, tls=TlsConfig(folder=folder))) as one:
        yield one


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), str(error.value.details())


async def test_an_engine_attaches_as_itself(guarded: Running, credentials: Credentials) -> None:
    """With its own certificate and name it is attached and hears heartbeats."""
    async with attached(guarded.addresses.grpc, engine("e1"), credentials("engine", "e1")) as receiver:
        assert receiver.heartbeats()


@pytest.mark.parametrize(
    ("role", "name", "reason", "words"),
    [
        ("engine", "e2", "name", "the certificate is of engine 'e2', and this attaches as 'e1'"),
        ("gateway", "e1", "role", "the certificate is of a gateway, and this attaches as engine"),
    ],
)
async def test_nobody_attaches_as_another(
    guarded: Running, credentials: Credentials, role: str, name: str, reason: str, words: str
) -> None:
    """A lying name and a lying kind are refused and counted, and the engine that it claims to be stays unknown."""
    liar = Receiver(engine("e1"))
    await liar.attach(guarded.addresses.grpc, credentials(role, name))
    error = await liar.end()

    assert (grpc.StatusCode.PERMISSION_DENIED, words) == (error.code(), error.details())
    assert 1 == await guarded.metric("flyball_controller_attaches_refused_total", reason=reason)
    assert 1 == await guarded.metric("flyball_controller_callers_refused_total", reason=reason)
    [pool] = (await status(guarded.addresses.grpc, tls=credentials("viewer", "vic"))).pools
    assert [] == list(pool.targets)


async def test_an_agent_appends_its_own_frames_only(guarded: Running, credentials: Credentials) -> None:
    """Frames under its own name are taken, those under another's refused, and a viewer appends nothing."""
    address = guarded.addresses.grpc

    assert 1 == len(await append(address, [frame(1, agent="a0")], credentials("agent", "a0")))
    assert (
        grpc.StatusCode.PERMISSION_DENIED
        is (await code_of(append(address, [frame(2, agent="a0")], credentials("agent", "a1"))))[0]
    )
    assert (
        grpc.StatusCode.PERMISSION_DENIED
        is (await code_of(append(address, [frame(2, agent="vic")], credentials("viewer", "vic"))))[0]
    )


async def test_an_order_s_author_is_the_certificate_s_name(guarded: Running, credentials: Credentials) -> None:
    """Whatever the request says, the order stands under the authenticated name."""
    async with attached(guarded.addresses.grpc, engine("e1"), credentials("engine", "e1")):
        answer = await pin(guarded.addresses.grpc, 60, author="somebody else", tls=credentials("operator", "grace"))

    assert "grace" == answer.author
    assert "grace pins" in answer.summary


async def test_viewers_look_and_do_not_touch(guarded: Running, credentials: Credentials) -> None:
    """A viewer's order is refused; an agent may not even look."""
    address = guarded.addresses.grpc

    assert grpc.StatusCode.PERMISSION_DENIED is (await code_of(pin(address, 60, tls=credentials("viewer", "vic"))))[0]
    assert "c1" == (await status(address, tls=credentials("operator", "grace"))).controller
    assert grpc.StatusCode.PERMISSION_DENIED is (await code_of(status(address, tls=credentials("agent", "a0"))))[0]
    async with stub(rpc.OperatorReadServiceStub, address, credentials("agent", "a0")) as reader:
        assert (
            grpc.StatusCode.PERMISSION_DENIED
            is (await code_of(reader.Decisions(pb.DecisionsRequest(pool="chat")).read()))[0]
        )


async def test_an_rpc_without_a_row_is_refused_to_everybody(
    guarded: Running, credentials: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that somebody adds and forgets to say whose it is cannot be called, on plaintext no more than over TLS."""
    rows = {path: roles for path, roles in doorkeeper.ROLES.items() if not path.endswith("/Status")}
    monkeypatch.setattr(doorkeeper, "ROLES", rows)
    refused = (await code_of(status(guarded.addresses.grpc, tls=credentials("operator", "grace"))))[0]
    (tmp_path / "plain").mkdir()
    async with running(config_for(tmp_path / "plain")) as plain:
        refused_plainly = (await code_of(status(plain.addresses.grpc)))[0]

    assert grpc.StatusCode.PERMISSION_DENIED is refused is refused_plainly


async def test_plaintext_does_not_get_in(guarded: Running) -> None:
    """Without a certificate there is no connection."""
    assert grpc.StatusCode.UNAVAILABLE is (await code_of(status(guarded.addresses.grpc)))[0]

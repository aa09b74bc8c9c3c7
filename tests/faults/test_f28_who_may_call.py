"""Fault 28: unauthenticated, wrong-authority, expired and wrong-role callers at a real controller's sockets.

All of them are refused before any handler, by every RPC of every service, and each is on record. Who passes for a
controller towards receivers, agents and operators is in `test_f28_who_may_push`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from flyball_controller.serving.doorkeeper import ROLES
from flyball_controller.serving.doorway import Doorway
from flyball_service.channels import channel
from flyball_service.config import TlsConfig
from flyball_service.tls import ROLES as ALL_ROLES, Tls, controller_host
from harness.living_controller import Running, append, config_for, eventually, frame, running
from issued_certificates import certify, tls_of
from laboratory.callers import Rpc, every_rpc

Connect = Callable[[str], grpc.aio.Channel]

READERS, WRITERS = {"viewer", "operator"}, {"operator"}
ALLOWED = {
    "/flyball.v1.AppendService/Append": {"agent"},
    "/flyball.v1.AttachService/Attach": {"engine", "gateway"},
    "/flyball.v1.OperatorReadService/Status": READERS,
    "/flyball.v1.OperatorReadService/GetPolicy": READERS,
    "/flyball.v1.OperatorReadService/Decisions": READERS,
    "/flyball.v1.OperatorWriteService/SetOverride": WRITERS,
    "/flyball.v1.OperatorWriteService/ClearOverride": WRITERS,
    "/flyball.v1.OperatorWriteService/ApplyPolicy": WRITERS,
    "/flyball.v1.OperatorWriteService/GiveOrder": WRITERS,
    "/flyball.v1.OperatorWriteService/GiveRebase": WRITERS,
}
"""Who may call what. A new RPC needs a row here and one in the product: without, every call of it is refused."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of each role, of one authority."""
    made = tmp_path_factory.mktemp("certificates")
    for role in ALL_ROLES:
        certify(made, role, "c1" if role == "controller" else "x1")
    return made


@asynccontextmanager
async def guarded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Running, list[str]]]:
    """A controller that asks for certificates, and the callers that reached one of its handlers."""
    reached: list[str] = []
    real = Doorway.refusing

    def noted(self: Doorway, context: Any, *rest: Any) -> AbstractAsyncContextManager[None]:
        reached.append(context.peer())
        return real(self, context, *rest)

    monkeypatch.setattr(Doorway, "refusing", noted)
    async with running(config_for(tmp_path, tls=TlsConfig(folder=folder))) as controller:
        yield controller, reached


def with_files(credentials: Tls) -> Connect:
    """Connects as the production client does."""
    return lambda address: channel(address, credentials)


def strangers(tmp_path: Path, folder: Path) -> dict[str, Connect]:
    """Those whom no handshake, or no role, lets in."""
    authority = (folder / "ca" / "tls.crt").read_bytes()
    named = (("grpc.ssl_target_name_override", controller_host()),)
    theirs = tls_of(tmp_path / "theirs", "operator", "mallory")
    (theirs.folder / "ca.crt").write_bytes(authority)  # it trusts us: so it is we who refuse
    shown: dict[str, Connect] = {
        "plaintext": lambda address: channel(address, None),
        "no certificate": lambda address: grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(authority), options=named
        ),
        "another authority": with_files(theirs),
    }
    dates = {"expired": (-2.0, 1.0), "not valid before tomorrow": (1.0, 2.0)}
    for what, (made, days) in dates.items():
        certify(folder, "operator", what.replace(" ", "-"), made=made, days=days)
        shown[what] = with_files(Tls(TlsConfig(folder=folder), role="operator", name=what.replace(" ", "-")))
    certify(folder, "operator", "elsewhere", trust_domain="elsewhere")
    shown["another trust domain"] = with_files(Tls(TlsConfig(folder=folder), role="operator", name="elsewhere"))
    return shown


async def outcome(rpc: Rpc, connect: Connect, address: str) -> grpc.StatusCode:
    """What a call on a connection of its own comes to."""
    own = connect(address)
    try:
        return (await rpc.call(own))[0]
    finally:
        await own.close(None)


def test_f28_each_rpc_of_the_generated_descriptors_has_a_row() -> None:
    """An RPC that is added to the contract is refused to everybody until somebody says whose it is; in both tables."""
    paths = {rpc.path for rpc in every_rpc()}

    assert paths == set(ALLOWED)
    assert {path: set(roles) for path, roles in ROLES.items()} == ALLOWED


async def test_f28_unauthenticated_wrong_ca_expired_and_foreign_callers_100_percent_refused_before_any_handler(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six kinds of strangers, each RPC: 0 calls reach a handler; without a sound certificate there is no connection."""
    async with guarded(tmp_path, folder, monkeypatch) as (controller, reached):
        found = {
            (what, rpc.path): await outcome(rpc, connect, controller.addresses.grpc)
            for what, connect in strangers(tmp_path, folder).items()
            for rpc in every_rpc()
        }
        began = await controller.metric("flyball_controller_handshakes_total")
        came = await controller.metric("flyball_controller_connections_total")

    told = {what for what, _ in found}
    assert 6 == len(told)
    for (what, path), code in found.items():
        wanted = grpc.StatusCode.PERMISSION_DENIED if what == "another trust domain" else grpc.StatusCode.UNAVAILABLE
        assert (what, path, wanted) == (what, path, code)
    assert [] == reached
    assert began - came >= 5 * len(ALLOWED)  # each handshake that failed is counted, if not by whom


async def test_f28_wrong_role_100_percent_of_roles_by_rpcs_refused_before_any_handler_and_audited(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 6 roles calls each RPC: those of the table reach its handler, 0 others do, and those have a line each."""
    async with guarded(tmp_path, folder, monkeypatch) as (controller, reached):
        refused, entered = set(), set()
        with structlog.testing.capture_logs() as lines:
            for role in ALL_ROLES:
                shown = Tls(TlsConfig(folder=folder), role=role, name="c1" if role == "controller" else "x1")
                for rpc in every_rpc():
                    before = len(reached)
                    code = await outcome(rpc, with_files(shown), controller.addresses.grpc)
                    if code is grpc.StatusCode.PERMISSION_DENIED and len(reached) == before:
                        refused.add((role, rpc.path))
                    if len(reached) == before + 1:
                        entered.add((role, rpc.path))
        counted = await controller.metric("flyball_controller_callers_refused_total", reason="role")

    wrong = {(role, path) for role in ALL_ROLES for path, roles in ALLOWED.items() if role not in roles}
    assert wrong == refused
    assert {(role, path) for path, roles in ALLOWED.items() for role in roles} == entered
    told = [line for line in lines if line["event"] == "caller_refused"]
    assert len(wrong) == len(told) == counted
    assert {(line["certificate"].split("/")[3], line["method"]) for line in told} == wrong
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") and "this takes role" in line["why"] for line in told)


async def test_f28_every_one_of_1000_refusals_is_counted_and_the_log_is_not_flooded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,000 calls in a row each counts; beyond 100 at once ten a second have a line, which counts the others."""
    async with guarded(tmp_path, folder, monkeypatch) as (controller, reached):
        stranger = channel(controller.addresses.grpc, Tls(TlsConfig(folder=folder), role="engine", name="x1"))
        status = next(rpc for rpc in every_rpc() if rpc.path.endswith("/Status"))
        with structlog.testing.capture_logs() as lines:
            codes = [
                code for _ in range(20) for code, _ in await asyncio.gather(*(status.call(stranger) for _ in range(50)))
            ]
            await asyncio.sleep(0.2)
            codes.append((await status.call(stranger))[0])
        counted = await controller.metric("flyball_controller_callers_refused_total", reason="role")
        await stranger.close(None)

    told = [line for line in lines if line["event"] == "caller_refused"]
    assert {grpc.StatusCode.PERMISSION_DENIED} == set(codes)
    assert 1001 == counted == len(told) + sum(line.get("refused_meanwhile", 0) for line in told)
    assert 100 <= len(told) < 400
    assert [] == reached


async def test_f28_names_that_lie_are_audited_as_roles_are(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame in another agent's name reaches its handler, which refuses it: with a line, a count, and no record."""
    agent = Tls(TlsConfig(folder=folder), role="agent", name="x1")
    async with guarded(tmp_path, folder, monkeypatch) as (controller, _):
        with structlog.testing.capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as refused:
            await append(controller.addresses.grpc, [frame(1, agent="somebody")], agent)
        await eventually(
            lambda: controller.metric("flyball_controller_callers_refused_total", reason="another_agents"),
            lambda number: number == 1,
        )
        appended = await controller.metric("flyball_controller_appended_records_total")

    [line] = [line for line in lines if line["event"] == "caller_refused"]
    assert grpc.StatusCode.PERMISSION_DENIED is refused.value.code()
    assert ("spiffe://flyball/agent/x1", "another_agents") == (line["certificate"], line["reason"])
    assert "of agent 'somebody', and the certificate is of 'x1'" in line["why"]
    assert 0 == appended

"""Fault 29: certificates and their authority are renewed under open streams; the authority is down; expiry nears.

A real controller, and the production clients of an engine, a gateway, an agent and an operator, at real sockets.
Kafka's clients are in `tests/log/test_kafka_tls.py`.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import structlog

from flyball_agents.attaching import Attacher, AttachLimits, AttachState
from flyball_agents.node.appending import GrpcAppender
from flyball_agents.shipper import Shipment
from flyball_cli.operating.connection import Connection
from flyball_cli.operating.fleet import Fleet
from flyball_core.ids import BootId
from flyball_core.inputs import TargetKind
from flyball_proto.codec import encode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_service.config import TlsConfig
from flyball_service.expiry import Expiry
from flyball_service.tls import Tls
from harness.living_controller import Running, config_for, eventually, frame, running
from harness.scripted_engine import POOL
from issued_certificates import certify, tls_of
from laboratory.callers import at_the_door, receiver_of
from laboratory.scale import report, scaled

DAY_S = 86_400.0
PEOPLE = (("controller", "c1"), ("engine", "e1"), ("gateway", "g1"), ("agent", "a0"), ("operator", "o1"))
LIMITS = AttachLimits(poll_s=0.1, renew_within_s=0.3)


def folder_of(certificates: Path, role: str, name: str) -> Path:
    """Where somebody's certificate is."""
    return certificates / f"{role}-{name}"


class Authority:
    """Two authorities, and the steps from one to the other as an operator takes them."""

    def __init__(self, certificates: Path, beside: Path) -> None:
        self._certificates, self._beside = certificates, beside
        for role, name in PEOPLE:
            certify(certificates, role, name)
            certify(beside, role, name)
        self._old, self._new = ((made / "ca" / "tls.crt").read_bytes() for made in (certificates, beside))

    def trust_both(self) -> None:
        """Everybody trusts the old and the new one."""
        self._trust(self._old + self._new)

    def renew(self) -> None:
        """Everybody has a certificate of the new one; two files are exchanged, one after the other."""
        for role, name in PEOPLE:
            for file in ("tls.crt", "tls.key"):
                fresh = self._beside / f"{role}-{name}" / file
                _exchange(folder_of(self._certificates, role, name) / file, fresh.read_bytes())

    def trust_new(self) -> None:
        """Nobody trusts the old one any more."""
        self._trust(self._new)

    def _trust(self, authorities: bytes) -> None:
        for role, name in PEOPLE:
            _exchange(folder_of(self._certificates, role, name) / "ca.crt", authorities)


def _exchange(file: Path, data: bytes) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.write_bytes(data)
    beside.replace(file)


@dataclass(slots=True)
class Traffic:
    """What goes on meanwhile, and what of it failed."""

    attachers: list[Attacher]
    fleet: Fleet
    appended: int = 0
    pages: int = 0
    failures: list[Exception] = field(default_factory=list)

    async def append(self, address: str, tls: Tls) -> None:
        """An agent's frames, one every 20 ms, until cancelled."""
        appender = GrpcAppender([address], tls)
        try:
            for seq in range(1_000_000):
                record = encode_input(frame(seq))
                try:
                    await appender.append([Shipment(BootId("b0"), frame(seq).pool, seq, record, backlog=False)])
                    self.appended += 1
                except Exception as error:  # noqa: BLE001 - each is to be shown
                    self.failures.append(error)
                await asyncio.sleep(0.02)
        finally:
            await appender.close()

    async def follow(self, address: str) -> None:
        """An operator's view of the audit, one stream from beginning to end."""
        try:
            async for _ in self.fleet.decisions(address, pb.DecisionsRequest(pool=POOL, follow=True, from_end=True)):
                self.pages += 1
        except Exception as error:  # noqa: BLE001 - each is to be shown
            self.failures.append(error)
        self.failures.append(EOFError("the audit's stream ended"))

    async def exchanged(self, times: int) -> None:
        """Return once each receiver has exchanged its stream so often."""
        await eventually(
            lambda: [one.status.renewals for one in self.attachers], lambda found: bool(min(found) >= times)
        )

    async def goes_on(self) -> None:
        """Return once everybody has heard or said something more."""
        beats = [one.conversation.counts.heartbeats for one in self.attachers]
        appended, pages = self.appended, self.pages
        await eventually(
            lambda: [one.conversation.counts.heartbeats for one in self.attachers],
            lambda found: all(now > before for now, before in zip(found, beats, strict=True)),
        )
        await eventually(lambda: (self.appended > appended, self.pages > pages), all)
        await self.fleet.status()


@asynccontextmanager
async def a_fleet(tmp_path: Path, certificates: Path) -> AsyncIterator[tuple[Running, Traffic]]:
    """A controller with an engine, a gateway, an agent and an operator, all at work."""
    async with AsyncExitStack() as stack:
        config = config_for(tmp_path, tls=TlsConfig(folder=certificates))
        controller = await stack.enter_async_context(running(config))
        address = controller.addresses.grpc
        attachers = []
        for kind, name in ((TargetKind.ENGINE, "e1"), (TargetKind.GATEWAY, "g1")):
            tls = Tls(TlsConfig(folder=certificates), role=kind.value, name=name)
            receiver = receiver_of(tmp_path / name, name, kind)
            attachers.append(await stack.enter_async_context(at_the_door(receiver, [address], tls, LIMITS)))
        operator = Connection(addresses=(address,), tls=TlsConfig(folder=folder_of(certificates, "operator", "o1")))
        traffic = Traffic(attachers, await stack.enter_async_context(Fleet(operator)))
        agent = Tls(TlsConfig(folder=certificates), role="agent", name="a0")
        tasks = [asyncio.create_task(traffic.append(address, agent)), asyncio.create_task(traffic.follow(address))]
        try:
            yield controller, traffic
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def test_f29_certificates_and_their_authority_are_exchanged_live_with_0_dropped_streams(tmp_path: Path) -> None:
    """In three steps, each taken by everybody: 0 streams end, 0 appends fail; then the old ones are nobody's."""
    certificates = tmp_path / "certificates"
    authority = Authority(certificates, tmp_path / "new")
    shutil.copytree(certificates, tmp_path / "as-they-were")
    began_s = time.monotonic()
    with structlog.testing.capture_logs() as lines:
        async with a_fleet(tmp_path, certificates) as (controller, traffic):
            await traffic.goes_on()
            for number, step in enumerate((authority.trust_both, authority.renew, authority.trust_new), 1):
                step()
                await traffic.exchanged(number)
                await traffic.goes_on()
            old = Connection(
                addresses=(controller.addresses.grpc,), tls=TlsConfig(folder=tmp_path / "as-they-were" / "operator-o1")
            )
            async with Fleet(old) as stranger:
                with pytest.raises(Exception, match="no controller answered"):
                    await stranger.status()
            seen = list(lines)

    assert [] == traffic.failures
    for one in traffic.attachers:
        assert (AttachState.ATTACHED, 0, 0, 0) == (
            one.status.state,
            one.status.failures,
            one.status.silences,
            one.status.refusals,
        )
        assert one.status.streams == 1 + one.status.renewals
    # No engine was gone for a moment: a stream that another one takes the place of says no farewell.
    assert [] == [line for line in seen if line["event"] == "detached"]
    report("f29", rotation_s=time.monotonic() - began_s, appended=traffic.appended, audit_pages=traffic.pages)


@pytest.mark.timeout(4000)
async def test_f29_the_authority_is_down_1_h_and_certificates_expire_with_0_dropped_streams(tmp_path: Path) -> None:
    """What is open outlives its certificate; new connections wait until there is one, and then need no restart."""
    certificates, down_s = tmp_path / "certificates", scaled(3.0, 3600.0)
    for role, name in PEOPLE:
        certify(certificates, role, name, days=6.0 / DAY_S)
    expired_s = time.time() + 6.0
    async with a_fleet(tmp_path, certificates) as (controller, traffic):
        await traffic.goes_on()
        before = traffic.appended
        while time.time() < expired_s + down_s:
            await asyncio.sleep(0.5)
            assert [] == traffic.failures
        await eventually(lambda: traffic.appended, lambda count: count > before + int(down_s))
        late = Connection(
            addresses=(controller.addresses.grpc,), tls=TlsConfig(folder=folder_of(certificates, "operator", "o1"))
        )
        async with Fleet(late) as newcomer:
            with pytest.raises(Exception, match="no controller answered"):
                await newcomer.status()
            for role, name in PEOPLE:
                certify(certificates, role, name)
            assert 1 == len((await newcomer.status()).pools)
        await traffic.exchanged(1)
        await traffic.goes_on()

    assert [] == traffic.failures
    assert [(0, 0)] * 2 == [(one.status.failures, one.status.silences) for one in traffic.attachers]


async def test_f29_the_next_call_shows_the_renewed_certificate_beside_streams_that_go_on(tmp_path: Path) -> None:
    """An agent and an operator make one new connection after a renewal, and none without; the audit's stream stays."""
    certificates = tmp_path / "certificates"
    for role, name in PEOPLE:
        certify(certificates, role, name)
    async with running(config_for(tmp_path, tls=TlsConfig(folder=certificates))) as controller:
        address, seq = controller.addresses.grpc, iter(range(100))
        agent = GrpcAppender([address], Tls(TlsConfig(folder=certificates), role="agent", name="a0"))
        operator = Connection(addresses=(address,), tls=TlsConfig(folder=folder_of(certificates, "operator", "o1")))

        async def append() -> None:
            one = next(seq)
            await agent.append([Shipment(BootId("b0"), frame(one).pool, one, encode_input(frame(one)), backlog=False)])

        async def connections() -> float:
            return await controller.metric("flyball_controller_connections_total")

        async with Fleet(operator) as fleet:
            for call, role, name in ((append, "agent", "a0"), (fleet.status, "operator", "o1")):
                counts = []
                for renewed in (False, False, True, False):
                    if renewed:
                        certify(certificates, role, name)
                    await call()
                    counts.append(await connections())
                assert [0, 1, 1] == [later - counts[0] for later in counts[1:]]
        await agent.close()


def test_f29_expiry_is_told_7_days_ahead_and_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Silent at 7.1 days, a warning at 6.9, then one a day, none after the renewal; by a clock of the test's."""
    folder = certify(tmp_path, "controller", "c1", days=30.0)
    began_s, now_s = time.time(), [0.0]
    expiry = Expiry(folder, clock=lambda: now_s[0])
    warned = []
    for tenth in range(300):
        now_s[0] = began_s + tenth * DAY_S / 10.0
        caplog.clear()
        assert expiry.now().own_s == pytest.approx(began_s + 30.0 * DAY_S, abs=60.0)
        warned += [tenth / 10.0 for record in caplog.records if "tls.crt" in record.getMessage()]
    certify(tmp_path, "controller", "c1", days=60.0)
    caplog.clear()
    renewed = expiry.now()

    assert 7 == len(warned)
    assert 23.0 <= warned[0] <= 23.1
    assert all(0.99 <= later - earlier <= 1.11 for earlier, later in pairwise(warned))
    assert renewed.own_s == pytest.approx(began_s + 60.0 * DAY_S, abs=60.0)
    assert [] == caplog.records


async def test_f29_expiry_is_a_number_on_metrics_of_the_controller(tmp_path: Path) -> None:
    """Unix time of its own certificate's end and of the authority's, by the files as they are when it is asked."""
    tls_of(tmp_path / "certificates", "controller", "c1")
    name = "flyball_controller_certificate_expires_seconds"
    async with running(config_for(tmp_path, tls=TlsConfig(folder=tmp_path / "certificates"))) as controller:
        own_s = await controller.metric(name, used_for="grpc", certificate="own")
        authority_s = await controller.metric(name, used_for="grpc", certificate="authority")
        certify(tmp_path / "certificates", "controller", "c1", days=90.0)
        renewed_s = await controller.metric(name, used_for="grpc", certificate="own")

    assert DAY_S == pytest.approx(own_s - time.time(), abs=60.0)
    assert 3650 * DAY_S == pytest.approx(authority_s - time.time(), abs=60.0)
    assert 90.0 * DAY_S == pytest.approx(renewed_s - time.time(), abs=60.0)


def test_f29_the_first_certificate_and_the_last_authority_count(tmp_path: Path) -> None:
    """Of a chain the one that ends first, of authorities the one that ends last; what is no certificate is none."""
    folder = certify(tmp_path / "a", "agent", "a0", days=5.0)
    longer = certify(tmp_path / "b", "agent", "a0", days=50.0)
    (folder / "tls.crt").write_bytes((longer / "tls.crt").read_bytes() + (folder / "tls.crt").read_bytes())
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    found = Expiry(folder).now()
    (folder / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n")

    assert 45.0 * DAY_S == pytest.approx((found.authority_s or 0.0) - (found.own_s or 0.0), abs=60.0)
    assert Expiry(folder).now().own_s is None

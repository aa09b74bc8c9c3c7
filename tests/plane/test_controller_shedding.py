"""Telemetry is what is kept out when there is too much: never an attach, an ack or an order."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from flyball_cli.bench_fleet import ScriptedPool
from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owner
from flyball_controller.serving import append_door
from flyball_controller.serving.measures import Measures, Now
from flyball_controller.serving.shedding import MAX_FRAMES_AT_ONCE, Level
from flyball_controller.serving.tenure import Office, Tenure
from flyball_core.ids import OwnerId
from flyball_core.knobs import BATCH_CAP
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_proto.codec import encode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_service.health import Health
from harness.scripted_pool import PRINT
from plane_clients import Running, append, attached, eventually, frame, pin

FLOOD_PER_S = 2_000
"""Frames of eight engines: ten times those of 1,600 engines."""
FLOOD_S = 3.0


def at_level(monkeypatch: pytest.MonkeyPatch, level: Level) -> None:
    """Have the door believe that so much is to be kept out."""
    monkeypatch.setattr(append_door, "level_of", lambda *_: level)


async def refused(address: str, *seqs: int, backlog: bool = False) -> tuple[grpc.StatusCode, str]:
    """How an append of these frames is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await append(address, [frame(seq)._replace(backlog=backlog) for seq in seqs])
    return error.value.code(), str(error.value.details())


async def test_while_all_telemetry_is_kept_out_engines_attach_and_answer_and_operators_order(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them comes through that door: the pin is taken, its directive applied, its ack on record."""
    at_level(monkeypatch, Level.EVERYTHING)
    address = controller.addresses.grpc

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is (await refused(address, 1, 2, 3))[0]
    async with attached(address) as receiver:
        answer = await pin(address, 60)
        await eventually(lambda: receiver.engine.setting[BATCH_CAP], lambda value: value == 60)
        acks = await eventually(
            lambda: controller.metric("flyball_controller_acks_total", pool="chat"), lambda number: number > 0
        )

    assert (pb.WRITE_OUTCOME_TAKEN, True) == (answer.outcome, acks > 0)
    assert grpc.StatusCode.RESOURCE_EXHAUSTED is (await refused(address, 4))[0]
    assert 4 == await controller.metric("flyball_controller_frames_shed_total", reason="behind")
    assert 0 == await controller.metric("flyball_controller_appended_records_total")


async def test_backlog_is_kept_out_before_anything_live(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backlog frame keeps its whole append out, for an append is taken whole; live ones alone are taken."""
    at_level(monkeypatch, Level.ITS_BACKLOG)
    address = controller.addresses.grpc

    assert "not read yet" in (await refused(address, 1, 2, backlog=True))[1]
    assert 1 == len(await append(address, [frame(3)]))
    assert 2 == await controller.metric("flyball_controller_frames_shed_total", reason="backlog")


async def test_one_agent_at_its_rates_end_leaves_others_theirs(controller: Running) -> None:
    """On plaintext the name in the frames is what a rate is kept by; what is refused can be sent again later."""
    address = controller.addresses.grpc
    await append(address, [frame(seq) for seq in range(MAX_FRAMES_AT_ONCE)])

    assert "too fast" in (await refused(address, *range(2_000, 2_000 + MAX_FRAMES_AT_ONCE)))[1]
    assert 1 == len(await append(address, [frame(1, agent="another")]))
    assert MAX_FRAMES_AT_ONCE == await controller.metric("flyball_controller_frames_shed_total", reason="rate")


async def test_what_was_kept_out_once_is_taken_when_its_owner_has_read(controller: Running) -> None:
    """Counted from the append to its reading: when everything is read nothing waits."""
    address = controller.addresses.grpc
    await append(address, [frame(seq) for seq in range(100)])

    assert 0 == await eventually(
        lambda: controller.metric("flyball_controller_samples_waiting", partition="0"), lambda waiting: waiting == 0
    )


@dataclass(slots=True)
class Flood:
    """Frames that are appended straight to the log, as agents do with Kafka: no door sees them."""

    log: EmbeddedLog
    pool: ScriptedPool = field(default_factory=lambda: ScriptedPool(nodes=10, per_node=8))
    appended: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        batch = FLOOD_PER_S // 20
        made = [encode_input(self.pool.frame(number % 10, number // 10)) for number in range(batch)]
        while True:
            await self.log.append(Topic.INPUTS, 0, [Entry(b"bench", one) for one in made])
            self.appended += batch
            await asyncio.sleep(0.05)


async def test_a_flood_that_passes_no_door_leaves_the_owner_its_ticks(tmp_path: Path) -> None:
    """2,000 frames a second appended straight to the log: it ticks on time, and has read them all at the end."""
    log, registry = EmbeddedLog.create(tmp_path / "log", 1), CollectorRegistry()
    nothing = Now(
        tick_age_s={},
        inputs_behind={},
        pools_by_mode={},
        stale_pools=0,
        streams_by_kind={},
        heartbeat_age_s={},
        ignored_records=0,
    )
    owner = Owner(log, OwnerId("c1"), standard_seams, PRINT)
    measures = Measures(registry, lambda: nothing)
    office = Office(log=log, owner=owner, health=Health(), measures=measures, tick_s=0.25, policies={})
    tenure, flood = Tenure(0, office, lambda: True), Flood(log)
    running = asyncio.create_task(tenure.run())
    await eventually(lambda: tenure.ticked, bool)
    flooding = asyncio.create_task(flood.run())
    await asyncio.sleep(FLOOD_S)
    flooding.cancel()
    await asyncio.wait([flooding])
    state = owner.owned[0].state
    counts = await eventually(lambda: Counter(state.pools["bench"].counts), lambda now: _read(now) == flood.appended)
    tenure.end()
    await running
    await log.close()
    ticks = registry.get_sample_value("flyball_controller_tick_seconds_count") or 0.0
    quick = registry.get_sample_value("flyball_controller_tick_seconds_bucket", {"le": "1.0"})

    assert flood.appended >= 0.4 * FLOOD_S * FLOOD_PER_S
    assert ticks >= 0.5 * FLOOD_S / 0.25
    assert ticks == quick
    assert counts["duplicate"] > 0


def _read(counts: Counter[str]) -> int:
    return counts["delivered"] + counts["duplicate"] + counts["rejected"]

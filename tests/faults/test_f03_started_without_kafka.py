"""Fault 3: an agent and a controller are started while Kafka is down."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest

from flyball_log.kafka import create_topics, settings_for
from harness.controller_calls import page
from kafka_broker import KafkaBroker, own_broker as own_broker
from laboratory.arriving import agent_file, arriving
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.lab_agent import MODULE
from laboratory.processes import Actors, until
from laboratory.record import read_record
from laboratory.scale import full, report, scaled

DOWN_S = scaled(8.0, 120.0)
"""After both have said that they wait."""
FLOWS_S = 15.0
START_S = 60.0
"""Longest start of a process on a machine that is busy; no promise."""


async def says(http: str, path: str) -> int:
    """The status of one of its pages; 0 while nobody answers."""
    try:
        return (await page(http, path))[0]
    except OSError:
        return 0


async def waits(*doors: str) -> bool:
    """Whether all of them are alive and not ready."""
    found = [(await says(http, "/live"), await says(http, "/ready")) for http in doors]
    return found == [(200, 503)] * len(doors)


async def ready(*doors: str) -> bool:
    """Whether all of them are."""
    return [await says(http, "/ready") for http in doors] == [200] * len(doors)


async def filed(fleet: Fleet) -> bool:
    """Whether the controller has taken a frame into its pool."""
    pool = await fleet.pool()
    return pool is not None and pool.counts["delivered"] > 0


@pytest.mark.timeout(600 if full() else 180)
async def test_f03_agent_and_controller_started_while_kafka_is_down_wait_and_a_sample_flows_15_s_after_its_return(
    tmp_path: Path, own_broker: KafkaBroker
) -> None:
    """Neither exits; both are alive and not ready; the first sample is in the log, and with the owner, in time."""
    where = f"kafka://{await asyncio.to_thread(own_broker.start)}/f03-{uuid.uuid4().hex[:12]}"
    await create_topics(settings_for(where), partitions=1, replication=1, dev=True)
    await asyncio.to_thread(own_broker.stop)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, log=where)
        controller = fleet.controller("c1")
        door = f"127.0.0.1:{lasting_port()}"
        file = agent_file(tmp_path, "n1", log=where, http=door)
        agent = actors.add("n1", "--config", str(file), "--record", str(fleet.record), "--pools", POOL, module=MODULE)
        for part in (controller, agent):
            part.start()
        doors = (fleet.doors["c1"][1], door)
        await until("two that are alive and not ready", lambda: waits(*doors), START_S)
        await asyncio.sleep(DOWN_S)

        assert await waits(*doors)
        assert "log" in (await fleet.waits_for("c1") or {})
        await asyncio.to_thread(own_broker.start)
        back_s = time.time()
        async with arriving(where) as arrived:
            await until("the first sample", lambda: arrived.copies, back_s + FLOWS_S - time.time(), every_s=0.05)
            first_s = min(copies[0].at_s for copies in arrived.copies.values()) - back_s
            await until("a sample with its owner", lambda: filed(fleet), back_s + FLOWS_S - time.time(), every_s=0.05)
            filed_s = time.time() - back_s
            await until("two that are ready", lambda: ready(*doors), FLOWS_S)
            made = [line for line in read_record(fleet.record).sampled if line.what == "made"]
            await until("all of the outage", lambda: not {m.identity for m in made} - arrived.copies.keys(), FLOWS_S)

        assert (controller.running, agent.running, controller.starts, agent.starts) == (True, True, 1, 1)
        assert {0} == {min(line.seq for line in made)}
    report("3", down_s=DOWN_S, first_sample_s=round(first_s, 2), with_its_owner_s=round(filed_s, 2))

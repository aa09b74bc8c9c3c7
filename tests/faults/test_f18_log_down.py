"""Fault 18: the log is gone for ten minutes, under two controllers, their engines and an agent."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from flyball_log import open_log
from kafka_broker import KafkaBroker, own_broker as own_broker
from laboratory.fleet import POLICY, Fleet, new_topics
from laboratory.processes import Actors, until
from laboratory.record import read_record
from laboratory.scale import full, report, scaled

DOWN_S = scaled(20.0, 600.0)
UP_S = 60.0
CURRENT_S = 30.0
POOLS = {"chat": ("a0-chat-0", "a0-chat-1"), "agents": ("a0-agents-0", "a0-agents-1")}


async def test_f18(tmp_path: Path, own_broker: KafkaBroker) -> None:
    where = await new_topics(own_broker.bootstrap, partitions=2)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, where, policies=dict.fromkeys(POOLS, POLICY))
        for name in ("c1", "c2"):
            fleet.controller(name).start()
        for pool, engines in POOLS.items():
            fleet.engines(pool, engines, pool=pool).start()
        fleet.agent("a0", 2, *POOLS).start()
        for pool, engines in POOLS.items():
            await until("every engine", lambda: fleet.attached(engines, pool), UP_S)
        await until("rest", lambda: fleet.ready("c1"), UP_S)
        await until("rest", lambda: fleet.ready("c2"), UP_S)
        for pool, engines in POOLS.items():
            for engine in engines:
                print(await fleet.order("c1", engine, 50, pool=pool))
            await fleet.settles(engines, UP_S, pool=pool)
        before = await fleet.claims()
        print(before)
        print({pool: await fleet.owner(pool) for pool in POOLS})
        os.kill(own_broker.pid, signal.SIGKILL)
        down_s = time.time()
        while time.time() < down_s + DOWN_S:
            await asyncio.sleep(4)
            print(round(time.time() - down_s, 1), await fleet.waits_for("c1"), [s and s.waiting_for for s in [await fleet.says("c2")]])
        applied = read_record(fleet.record).applied
        print("applied meanwhile", [a for a in applied if a.at_s > down_s])
        print("lines", [ (l.at_s-down_s, l) for l in read_record(fleet.record).leases if l.at_s > down_s])
        own_broker.start()
        back_s = time.time()
        print("down for", back_s - down_s)
        await until("ready", lambda: fleet.ready("c1"), UP_S)
        print("c1 ready", time.time() - back_s)
        await until("ready", lambda: fleet.ready("c2"), UP_S)
        print("c2 ready", time.time() - back_s)
        for pool, engines in POOLS.items():
            await fleet.settles(engines, UP_S, pool=pool)
        print("current", time.time() - back_s)
        await asyncio.sleep(10)
        print(await fleet.claims())
        for actor in actors.all.values():
            print(actor.stop())
        print(len([a for a in read_record(fleet.record).applied if a.at_s > down_s]))
        print([ (a.target, a.version.epoch, a.version.revision, a.at_s - back_s) for a in read_record(fleet.record).applied if a.at_s > down_s])
        print(await fleet.judged())

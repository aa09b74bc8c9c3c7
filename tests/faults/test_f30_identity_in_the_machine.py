"""Fault 30, in `step` itself: one client claims 100,000 engines, pools, boots, gateways, and another agent's engines.

What comes from a client's own words is bounded by who the client is; others' engines are told what they would have
been told without it. The same at real sockets is in `test_f30_identity_at_the_door`.
"""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import islice

import pytest

from flyball_controller.machine import step
from flyball_controller.machine.admission import MAX_POOLS_OF_ONE
from flyball_controller.machine.filing import (
    KEPT_TICKS,
    MAX_BOOTS,
    MAX_ENDED_BOOTS,
    MAX_ENGINES_OF_ONE,
    MAX_QUEUES_OF_ONE,
)
from flyball_controller.serving.refusals import Refusal
from flyball_controller.serving.streams import Streams, check_attach
from flyball_core.frames import EngineSample, Frame, GatewaySample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach, Body, Input, TargetKind
from flyball_core.knobs import BATCH_CAP, Value
from flyball_service.tls import Identity
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

CLAIMS = 100_000
PER_FRAME = 2_000
BOUND_BYTES = 32 * 2**20
"""What all claims of one client together may cost in memory."""
LIAR = "liar"
Course = list[tuple[float, str, Value | None]]


def lie(seq: int, *samples: EngineSample, agent: str = LIAR, pool: str = POOL, boot: str = "b0") -> Frame:
    """A frame of the liar's at some second."""
    return Frame(
        agent=AgentId(agent),
        boot=BootId(boot),
        pool=PoolId(pool),
        seq=seq,
        wall_s=WALL_S + seq,
        monotonic_s=float(seq),
        backlog=False,
        gpus=(),
        engines=samples,
    )


def invented(number: int) -> EngineSample:
    """A sample of an engine that is not there."""
    return EngineSample(EngineId(f"ghost-{number}"), Incarnation("i"), 0, (), "graphs")


def engines() -> Iterator[Frame]:
    """100,000 engine ids in one pool."""
    for seq in range(CLAIMS // PER_FRAME):
        yield lie(seq, *(invented(seq * PER_FRAME + i) for i in range(PER_FRAME)))


def pools() -> Iterator[Frame]:
    """100,000 pools."""
    for number in range(CLAIMS):
        yield lie(0, invented(0), agent="liar-p", pool=f"ghosts-{number}")


def boots() -> Iterator[Frame]:
    """100,000 lives of one agent."""
    for number in range(CLAIMS):
        yield lie(0, agent="liar-b", boot=f"b{number}")


def gateways() -> Iterator[Frame]:
    """100,000 gateways, of one lane each."""
    for seq in range(CLAIMS // PER_FRAME):
        ghosts = range(seq * PER_FRAME, (seq + 1) * PER_FRAME)
        samples = tuple(GatewaySample(GatewayId(f"gw-{i}"), Incarnation("i"), "l") for i in ghosts)
        yield lie(seq, agent="liar-g")._replace(gateways=samples)


def course_of(pool: ScriptedPool) -> Course:
    """What its engines were told, and when."""
    applied = [one for one in pool.log.applied if one.target in pool.engines]
    return [(one.time_s, one.target, one.values.get(BATCH_CAP)) for one in applied]


def say(pool: ScriptedPool, body: Body) -> None:
    """Step through an input that the test's own log need not keep."""
    step(pool.state, Input(len(pool.log.inputs), 0, body), pool.seams)


def a_second(pool: ScriptedPool, second: int) -> None:
    """One second of a pool in which another engine is slow every 20 s."""
    for name, engine in pool.engines.items():
        engine.slowness = 2.3 if int(name[1]) == second // 20 % 2 else 1.0
    pool.second()


def course(*claims: Iterator[Frame], at_once: int = 2_000) -> tuple[ScriptedPool, Course]:
    """A pool under change beside what liars claim, some frames of each a second; and its engines' course."""
    pool = scripted_pool()
    pool.run(30)
    for second in range(60):
        for lies in claims:
            for one in islice(lies, at_once):
                say(pool, one)
        a_second(pool, second)
    return pool, course_of(pool)


def size_of(part: object) -> int:
    """Bytes that a part of the state takes in memory, each thing in it counted as its own."""
    size = sys.getsizeof(part)
    if is_dataclass(part):
        return size + sum(size_of(getattr(part, one.name)) for one in fields(part))
    if isinstance(part, dict):
        return size + sum(size_of(key) + size_of(value) for key, value in part.items())
    return size + sum(map(size_of, part)) if isinstance(part, (list, tuple)) else size


def test_f30_100000_engine_ids_pools_boots_and_gateways_of_one_agent_cost_under_32_mib_and_move_others_by_0() -> None:
    """100,000 of each: capped per client, counted, and every other engine is told what it would have been told."""
    quiet, undisturbed = course()
    pool, told = course(engines(), gateways(), pools(), boots())
    chat, counts = pool.state.pools[POOL], pool.state.pools[POOL].counts

    assert len(undisturbed) >= 5
    assert undisturbed == told
    assert size_of(pool.state) - size_of(quiet.state) < BOUND_BYTES
    assert sum(name.startswith("ghost") for name in chat.engines) == MAX_ENGINES_OF_ONE
    assert sum(queue.agent == "liar-g" for queue in chat.queues.values()) == MAX_QUEUES_OF_ONE
    assert (MAX_BOOTS, MAX_ENDED_BOOTS) == (len(chat.agents["liar-b"].boots), len(chat.agents["liar-b"].ended))
    assert (1 + MAX_POOLS_OF_ONE, CLAIMS - MAX_POOLS_OF_ONE) == (
        len(pool.state.pools),
        pool.state.counts["inputs_without_pool"],
    )
    assert counts["samples_rejected_too_many_engines"] == CLAIMS - MAX_ENGINES_OF_ONE
    assert counts["samples_rejected_too_many_queues"] == CLAIMS - MAX_QUEUES_OF_ONE


def test_f30_one_receiver_s_certificate_begins_no_more_pools_than_32_of_100000() -> None:
    """An engine that attaches to pool after pool, and answers in pools that there are not, begins few, and counts."""
    pool = scripted_pool()
    for number in range(CLAIMS):
        ghost = PoolId(f"ghosts-{number}")
        attach = Attach(pool=ghost, kind=TargetKind.ENGINE, target="e-liar", incarnation=Incarnation("i"))
        say(pool, attach)
    ack = Ack(
        pool=PoolId("nowhere"),
        kind=TargetKind.ENGINE,
        target="e-liar",
        incarnation=Incarnation("i"),
        version=pool.state.version(1),
        status=AckStatus.APPLIED,
    )
    pool.put(ack)

    assert len(pool.state.pools) == 1 + MAX_POOLS_OF_ONE
    assert pool.state.counts["inputs_without_pool"] == CLAIMS - MAX_POOLS_OF_ONE + 1


def test_f30_no_agent_feeds_another_agents_engine() -> None:
    """Beside its own agent's, a stranger's samples of an engine are rejected and counted: the course is the same."""
    courses = []
    for lying in (False, True):
        pool = scripted_pool()
        pool.run(30)
        for second in range(120):
            if lying:
                sample = pool.engines["e0-0"].sample(pool.load(pool.now_s))
                wild = sample._replace(requests_running=500.0, kv_used_ratio=1.0, itl_s_sum=1e6 * (second + 1))
                say(pool, lie(second, wild, wild._replace(engine=EngineId("e1-1")))._replace(monotonic_s=pool.now_s))
            a_second(pool, second)
        courses.append(course_of(pool))
    counts = pool.state.pools[POOL].counts

    assert courses[0] == courses[1]
    assert len(courses[0]) > 5
    assert counts["samples_rejected_anothers_engine"] >= 2 * 115


def test_f30_an_engine_whose_agent_is_gone_is_another_agents_after_10_ticks() -> None:
    """An engine that moves to another node is read again once its agent has been silent; no rate spans the two."""
    pool = scripted_pool(agents=1, per_agent=1)
    pool.run(10)
    engine = pool.engines["e0-0"]
    taken: list[int] = []
    for second in range(20):
        engine.live(4.0, pool.load(pool.now_s))
        sample = engine.sample(pool.load(pool.now_s))
        pool.put(lie(second, sample)._replace(agent=AgentId("a9"), monotonic_s=50.0 + second))
        pool.tick()
        if pool.state.pools[POOL].engines["e0-0"].agent == "a9":
            taken.append(second)

    assert KEPT_TICKS <= taken[0] <= KEPT_TICKS + 3
    assert list(range(taken[0], 20)) == taken


def test_f30_100000_claims_by_one_certificate_at_the_door_leave_no_trace() -> None:
    """Each attach under another name than the certificate's is refused; of its own there is one stream."""
    streams, who = Streams(), Identity("engine", "e1")
    for number in range(CLAIMS):
        attach = Attach(
            pool=PoolId("chat"), kind=TargetKind.ENGINE, target=f"ghost-{number}", incarnation=Incarnation("i")
        )
        streams.enter(who)
        with pytest.raises(Refusal, match="the certificate is of engine 'e1'"):
            check_attach(attach, who)
        streams.leave(who)

    assert [] == list(streams)
    assert not streams.by_kind()

"""Fault 30, in `step` itself: one client claims 100,000 engines, pools, boots, gateways, and another agent's engines.

What comes from a client's own words is bounded by who the client is; others' engines are told what they would have
been told without it. The same at real sockets is in `test_f30_identity_at_the_door`.
"""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

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
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.knobs import BATCH_CAP, Value
from flyball_service.tls import Identity
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

CLAIMS = 100_000
PER_FRAME = 2_000
BOUND_BYTES = 32 * 2**20
"""What all claims of one client together may cost in memory."""
LIAR = AgentId("liar")
Course = list[tuple[float, str, Value | None]]


def lie(seq: int, *samples: EngineSample, pool: str = POOL, boot: str = "b0") -> Frame:
    """A frame of the liar's at some second."""
    return Frame(
        agent=LIAR,
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
        yield lie(0, invented(0), pool=f"ghosts-{number}")


def boots() -> Iterator[Frame]:
    """100,000 lives of one agent."""
    for number in range(CLAIMS):
        yield lie(0, invented(0), boot=f"b{number}")


def gateways() -> Iterator[Frame]:
    """100,000 gateways, of one lane each."""
    for seq in range(CLAIMS // PER_FRAME):
        ghosts = range(seq * PER_FRAME, (seq + 1) * PER_FRAME)
        samples = tuple(GatewaySample(GatewayId(f"gw-{i}"), Incarnation("i"), "l") for i in ghosts)
        yield lie(seq)._replace(gateways=samples)


def course_of(pool: ScriptedPool) -> Course:
    """What its engines were told, and when."""
    applied = [one for one in pool.log.applied if one.target in pool.engines]
    return [(one.time_s, one.target, one.values.get(BATCH_CAP)) for one in applied]


def forgotten(pool: ScriptedPool) -> None:
    """Keep nothing of the last input in the test's own log but its place."""
    pool.log.inputs[-1] = pool.log.inputs[0]
    pool.log.raw[-1] = b""


def course(claims: Callable[[], Iterator[Frame]] | None, *, a_second: int) -> tuple[ScriptedPool, Course, int]:
    """A pool under change, beside what a liar claims; its engines' course, and what the claims cost in bytes."""
    pool = scripted_pool()
    pool.run(30)
    pool.engines["e0-1"].slowness = 2.3
    lies = claims() if claims is not None else iter(())
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(60):
            for _, one in zip(range(a_second), lies, strict=False):
                pool.put(one)
                forgotten(pool)
            pool.second()
            pool.log.outputs.clear()
        gc.collect()
        return pool, course_of(pool), tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("claims", "a_second"),
    [(engines, 1), (pools, 2_000), (boots, 2_000), (gateways, 1)],
    ids=["engines", "pools", "boots", "gateways"],
)
def test_f30_100000_claims_of_one_agent_cost_under_32_mib_and_move_others_by_0(
    claims: Callable[[], Iterator[Frame]], a_second: int
) -> None:
    """Engine ids, pools, boots, gateways: capped per client and counted; every other engine's course is the same."""
    _, undisturbed, usual_bytes = course(None, a_second=0)
    pool, told, cost_bytes = course(claims, a_second=a_second)
    chat = pool.state.pools[POOL]
    ghosts = [one for one in chat.engines if one.startswith("ghost")]

    assert len(undisturbed) > 2
    assert undisturbed == told
    assert cost_bytes - usual_bytes < BOUND_BYTES
    assert len(ghosts) <= MAX_ENGINES_OF_ONE
    assert sum(queue.agent == LIAR for queue in chat.queues.values()) <= MAX_QUEUES_OF_ONE
    assert len(pool.state.pools) <= 1 + MAX_POOLS_OF_ONE
    if LIAR in chat.agents:
        assert len(chat.agents[LIAR].boots) <= MAX_BOOTS
        assert len(chat.agents[LIAR].ended) <= MAX_ENDED_BOOTS
    refused = chat.counts.get("samples_rejected", 0) + pool.state.counts.get("inputs_without_pool", 0)
    if claims is engines:
        assert refused == CLAIMS - MAX_ENGINES_OF_ONE
    elif claims is pools:
        assert refused == CLAIMS - MAX_POOLS_OF_ONE
    elif claims is gateways:
        assert refused == CLAIMS - MAX_QUEUES_OF_ONE


def test_f30_one_receiver_s_certificate_begins_no_more_pools_than_32_of_100000() -> None:
    """An engine that attaches to pool after pool, and answers in pools that there are not, begins few, and counts."""
    pool = scripted_pool()
    for number in range(CLAIMS):
        ghost = PoolId(f"ghosts-{number}")
        attach = Attach(pool=ghost, kind=TargetKind.ENGINE, target="e-liar", incarnation=Incarnation("i"))
        pool.put(attach)
        forgotten(pool)
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
        pool.engines["e0-1"].slowness = 2.3
        pool.run(30)
        for second in range(120):
            if lying:
                sample = pool.engines["e0-0"].sample(pool.load(pool.now_s))
                wild = sample._replace(requests_running=500.0, kv_used_ratio=1.0, itl_s_sum=1e6 * (second + 1))
                pool.put(lie(second, wild, wild._replace(engine=EngineId("e1-1")))._replace(monotonic_s=pool.now_s))
            pool.second()
        courses.append(course_of(pool))
    counts = pool.state.pools[POOL].counts

    assert courses[0] == courses[1]
    assert len(courses[0]) > 5
    assert counts["samples_rejected_anothers_engine"] == counts["samples_rejected"] >= 2 * 115


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
    gc.collect()
    tracemalloc.start()
    for number in range(CLAIMS):
        attach = Attach(
            pool=PoolId("chat"), kind=TargetKind.ENGINE, target=f"ghost-{number}", incarnation=Incarnation("i")
        )
        streams.enter(who)
        with pytest.raises(Refusal, match="the certificate is of engine 'e1'"):
            check_attach(attach, who)
        streams.leave(who)
    gc.collect()
    cost_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert [] == list(streams)
    assert cost_bytes < 2**20

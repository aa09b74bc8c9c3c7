"""Fault 10: NaN, infinities, negative and absurd numbers, empty frames, fields of the future.

100,000 seeded cases and 2,000 of Hypothesis: no exception, a finite state, counters that
match, and a poisoned engine moves no other engine's knobs.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, given, settings

from flyball_controller.machine import standard_seams, step
from flyball_controller.machine.filing import ABSURD
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation
from flyball_core.inputs import Input, Malformed, Tick
from flyball_core.knobs import BATCH_CAP
from flyball_proto.codec import decode_input, encode_input
from flyball_proto.v1 import inputs_pb2
from harness.any_body import FRAMES
from harness.finite import infinities
from harness.invariants import check_events
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

CASES = 100_000

POISON = (math.nan, math.inf, -math.inf, -1.0, -1e308, 1e308, ABSURD * 1.001)
ODD_BUT_TRUE = (0.0, 5e-324, 1.0, 1e17, 1e9)

SOUND = EngineSample(
    EngineId("e0-0"),
    Incarnation("i0"),
    0,
    (0,),
    "graphs",
    requests_running=4.0,
    kv_used_ratio=0.4,
    kv_capacity_tokens=1e5,
    itl_s_sum=1.0,
    itl_count=10.0,
)
GPU = GpuSample(0, "u", BandwidthSource.GPM, 0, hbm_bandwidth_ratio=0.5)
NUMBERS = EngineSample._fields[5:]


def frame_of(agent: AgentId, seq: int) -> Frame:
    """A sound frame of one engine, which is this agent's own, and one GPU."""
    return Frame(
        agent=agent,
        boot=BootId("b0"),
        pool=POOL,
        seq=seq,
        wall_s=WALL_S + seq,
        monotonic_s=100.0 + seq,
        backlog=False,
        gpus=(GPU,),
        engines=(SOUND._replace(engine=EngineId(f"e{agent[1:]}-0" if agent.startswith("a") else f"{agent}-0")),),
    )


def with_number(sample: EngineSample, name: str, number: float) -> EngineSample:
    """The sample with one of its numbers changed."""
    changed: dict[str, Any] = {name: number}
    return sample._replace(**changed)


class Cases:
    """Seeded frames, each with what must become of it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.seq = Counter[str]()
        self.expected = Counter[str]()

    def next(self) -> Frame:
        """One frame: sound, odd, poisoned somewhere, or empty."""
        draw = self.draw
        agent = draw.choice(("a0", "a1", "p0", "p1"))
        seq = self.seq[agent]
        frame = frame_of(AgentId(agent), seq)
        case = draw.randrange(10)
        if case < 4:
            self.seq[agent] += 1
            return self._poisoned_sample(frame, case)
        if case == 4:
            self.expected["rejected"] += 1
            self.expected["rejected_header"] += 1
            return self._poisoned_header(frame)
        self.expected["delivered"] += 1
        if case == 5:
            self.seq[agent] += 1
            return frame._replace(gpus=(), engines=())
        if case == 6 and seq:
            self.expected["delivered"] -= 1
            self.expected["duplicate"] += 1
            return frame._replace(seq=draw.randrange(seq))
        self.seq[agent] += 1
        return self._with(frame, draw.choice(ODD_BUT_TRUE)) if case == 7 else frame

    def _with(self, frame: Frame, number: float) -> Frame:
        name = self.draw.choice([name for name in NUMBERS if name != "kv_used_ratio"])
        return frame._replace(engines=(with_number(frame.engines[0], name, number),))

    def _poisoned_sample(self, frame: Frame, case: int) -> Frame:
        self.expected["samples_rejected"] += 1
        if case == 0:  # a poisoned GPU beside a sound engine
            self.expected["delivered"] += 1
            gpu = GPU._replace(power_w=self.draw.choice(POISON))
            return frame._replace(gpus=(gpu,))
        number = self.draw.choice(POISON)
        poisoned = with_number(frame.engines[0], self.draw.choice(NUMBERS), number)
        if case == 1:  # nothing else in the frame: nothing of it is left
            self.expected["rejected"] += 1
            self.expected["rejected_samples_all"] += 1
            return frame._replace(gpus=(), engines=(poisoned,))
        self.expected["delivered"] += 1
        return frame._replace(engines=(*frame.engines, poisoned._replace(engine=EngineId("e9-0"))))

    def _poisoned_header(self, frame: Frame) -> Frame:
        which = self.draw.randrange(4)
        if which == 0:
            return frame._replace(monotonic_s=self.draw.choice(POISON))
        if which == 1:
            return frame._replace(wall_s=self.draw.choice(POISON[:3]))
        return frame._replace(boot=BootId("")) if which == 2 else frame._replace(seq=-1)


def test_f10_100000_seeded_cases_raise_0_exceptions_and_every_one_is_counted() -> None:
    """Counters match what each case must become; the state stays finite, checked every 2,000 cases."""
    pool, cases = scripted_pool(agents=1), Cases(10)
    state, seams = pool.state, standard_seams()
    offset = len(pool.log.inputs)
    for number in range(CASES):
        step(state, Input(offset + number, 0, cases.next()), seams)
        if number % 100 == 99:
            step(state, Input(offset + number, 0, Tick(epoch=state.epoch, interval_s=1.0, wall_s=WALL_S)), seams)
        if number % 2000 == 1999:
            assert [] == infinities(state)
    counts = state.pools["chat"].counts

    assert dict(cases.expected) == {name: counts[name] for name in cases.expected}
    assert CASES == counts["delivered"] + counts["duplicate"] + counts["rejected"]
    assert min(cases.expected.values()) > 5000
    reasons = sum(counts[name] for name in counts if name.startswith("samples_rejected_"))
    assert counts["samples_rejected"] == reasons


SHARED = scripted_pool(agents=1)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(frame=FRAMES)
def test_f10_2000_hypothesis_frames_raise_0_exceptions(frame: Frame) -> None:
    """Any frame of the contract: taken or counted, the state finite, the motion bounded. One machine takes them all."""
    state, seams = SHARED.state, SHARED.seams
    raw = encode_input(frame)
    before = Counter[str](state.pools[frame.pool].counts if frame.pool in state.pools else {})
    item = decode_input(len(SHARED.log.inputs), raw)
    step(state, item, seams)
    step(state, Input(item.offset, 0, Tick(epoch=state.epoch, interval_s=1.0, wall_s=WALL_S)), seams)
    after = Counter[str](state.pools[frame.pool].counts if frame.pool in state.pools else {})
    fates = sum((after - before)[fate] for fate in ("delivered", "duplicate", "rejected"))

    assert (1 if frame.pool in state.pools else 0) == fates
    if state.ticks % 50 == 0:
        assert [] == infinities(state)


def test_f10_after_all_those_frames_the_state_is_finite() -> None:
    """The machine that took them all holds no infinity, and still answers a tick."""
    assert [] == infinities(SHARED.state)
    assert SHARED.tick()


def test_f10_fields_of_the_future_are_read_over() -> None:
    """A frame with a field that nobody here knows is delivered; an input of a kind that nobody here knows counts."""
    pool = scripted_pool(agents=1)
    sent = encode_input(frame_of(AgentId("a7"), 0))
    record = inputs_pb2.InputRecord.FromString(sent)
    frame = record.frame.SerializeToString() + b"\xfa\x7f\x03new"
    pool.put_raw(b"\x0a" + bytes([len(frame) & 0x7F | 0x80, len(frame) >> 7]) + frame)
    pool.put_raw(b"\xfa\x7f\x03new")

    assert isinstance(pool.log.inputs[-2].body, Frame)
    assert isinstance(pool.log.inputs[-1].body, Malformed)
    assert 1 == pool.state.pools["chat"].counts["delivered"]
    assert 1 == pool.state.counts["malformed"]


def poisoned(pool: ScriptedPool, seed: int, *, leave_out: bool = False) -> None:
    """From now on one engine's samples are damaged, or (to compare) not there at all."""
    draw = random.Random(seed)

    def poison(frame: Frame) -> Iterable[Frame]:
        engines = []
        for sample in frame.engines:
            if sample.engine == "e0-0":
                if leave_out:
                    continue
                engines.append(with_number(sample, draw.choice(NUMBERS), draw.choice(POISON)))
            else:
                engines.append(sample)
        return (frame._replace(engines=tuple(engines)),)

    pool.on_frame = poison


def test_f10_a_poisoned_engine_moves_another_engines_knobs_by_0() -> None:
    """A settled pool stays as it is for 300 s while one engine's samples are nonsense: 0 directives to any other."""
    pool = scripted_pool()
    pool.run(60)
    settings_before = {name: dict(engine.setting) for name, engine in pool.engines.items()}
    weights_before = dict(pool.gateways["gw0"].table)
    told = len(pool.log.told())
    poisoned(pool, 1)
    pool.run(300)

    assert settings_before == {name: dict(engine.setting) for name, engine in pool.engines.items()}
    assert weights_before == pool.gateways["gw0"].table
    assert told == len(pool.log.told())
    assert 300 == pool.state.pools["chat"].counts["samples_rejected"]
    assert [] == check_events(pool.log).all


def test_f10_a_poisoned_engine_is_the_same_to_others_as_a_missing_one() -> None:
    """In a pool under change every other engine's course is the same as if the poisoned one had not been sampled."""
    courses = []
    for leave_out in (False, True):
        pool = scripted_pool()
        pool.engines["e0-1"].slowness = 2.3
        pool.run(30)
        poisoned(pool, 2, leave_out=leave_out)
        pool.run(200)
        courses.append([(e.time_s, e.target, e.values.get(BATCH_CAP)) for e in pool.log.applied if e.target != "e0-0"])

    assert courses[0] == courses[1]
    assert len(courses[0]) > 10

"""Filing of frames: every frame is counted as one thing, read once, and in the order of its numbers."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from flyball_controller.machine.filing import LATENESS_S, MAX_BOOTS, MAX_PENDING, file_frame, release_frames
from flyball_controller.machine.state import PoolState
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId

PLAIN = EngineSample(
    EngineId("e0"),
    Incarnation("i0"),
    0,
    (0,),
    "graphs",
    requests_running=5.0,
    requests_waiting=0.0,
    kv_used_ratio=0.5,
    kv_capacity_tokens=1e5,
    generation_tokens_total=10.0,
)


def frame(seq: int, **changes: Any) -> Frame:
    """A frame sampled at its own number of seconds, with one engine whose counter tells the number."""
    made = Frame(
        agent=AgentId("a0"),
        boot=BootId("b0"),
        pool=PoolId("chat"),
        seq=seq,
        wall_s=1.7e9 + seq,
        monotonic_s=5000.0 + seq,
        backlog=False,
        gpus=(GpuSample(0, "u", BandwidthSource.GPM, 0, hbm_bandwidth_ratio=0.5),),
        engines=(PLAIN._replace(generation_tokens_total=float(seq)),),
    )
    return made._replace(**changes)


def live(arrivals: dict[int, list[Frame]], ticks: int) -> PoolState:
    """File what arrives before each tick and release at the tick, as the machine does."""
    pool = PoolState(pool="chat")
    for now in range(ticks):
        for arrived in arrivals.get(now, []):
            file_frame(pool, arrived, float(max(now - 1, 0)))
        release_frames(pool, float(now), 1.0)
        pool.tick += 1
    return pool


def without_counts(pool: PoolState) -> str:
    """The whole state of a pool but for its counters."""
    return json.dumps({**asdict(pool), "counts": {}}, default=str, sort_keys=True)


def straight(count: int) -> dict[int, list[Frame]]:
    """One frame a second, each before the tick of its second."""
    return {i: [frame(i)] for i in range(count)}


def read(pool: PoolState) -> float | None:
    """The counter of the frame that was read last."""
    row = pool.engines["e0"].row
    return None if row is None else row[5]


def test_a_frame_waits_out_the_lateness_window() -> None:
    """A frame is read no earlier than its lateness window after it was sampled, and then at once."""
    pool = live(straight(10), 10)
    boot = pool.agents["a0"].boots["b0"]

    assert LATENESS_S == frame(9).monotonic_s - frame(boot.cursor).monotonic_s + 1.0
    assert [9] == list(boot.pending)
    assert {"delivered": 10} == pool.counts


@pytest.mark.parametrize("lag", [1])
def test_frames_late_by_a_tick_change_nothing(lag: int) -> None:
    """Every second frame one tick late, and so overtaken: state bit-equal but for counters."""
    late: dict[int, list[Frame]] = {}
    for i in range(60):
        late.setdefault(i + (lag if i % 2 == 0 and i < 50 else 0), []).append(frame(i))

    assert without_counts(live(straight(60), 62)) == without_counts(live(late, 62))


def test_a_first_frame_that_is_overtaken_changes_nothing() -> None:
    """How an agent's clock stands is learnt from its quickest frames, in whatever order the first ones come."""
    swapped = straight(130)
    swapped[1] = [frame(1), frame(0)]
    swapped[0] = []

    assert without_counts(live(straight(130), 130)) == without_counts(live(swapped, 130))


def test_copies_change_nothing_and_are_counted() -> None:
    """Every frame three times: state bit-equal, each copy a duplicate."""
    thrice = {i: [frame(i)] * 3 for i in range(30)}
    plain, copied = live(straight(30), 30), live(thrice, 30)

    assert without_counts(plain) == without_counts(copied)
    assert {"delivered": 30, "duplicate": 60} == copied.counts


def test_a_frame_after_its_place_was_read_is_late() -> None:
    """A frame older than what was read is delivered, counted late, and not read."""
    arrivals = straight(30)
    arrivals[20] += arrivals.pop(5)
    pool = live(arrivals, 30)

    assert 1 == pool.counts["late"]
    assert 30 == pool.counts["delivered"]
    assert 0 == pool.agents["a0"].boots["b0"].seen.missing


def test_backlog_is_filed_and_never_read() -> None:
    """What a spool sends beside live frames is delivered and late, and moves no measurement."""
    arrivals = straight(30)
    for i in range(10, 20):
        arrivals[i] = []
        arrivals[i + 10].append(frame(i, backlog=True, engines=(PLAIN._replace(generation_tokens_total=1e9),)))
    pool = live(arrivals, 30)

    assert 10 == pool.counts["late"]
    assert 30 == pool.counts["delivered"]
    assert read(pool) is not None
    assert 30.0 > (read(pool) or 0.0)


def test_a_new_boot_takes_over_and_the_old_one_is_late() -> None:
    """After an agent's restart only the new boot is read; what the old one still had on the way is late."""
    arrivals = straight(10)
    for i in range(10, 30):
        arrivals[i] = [frame(i - 10, boot=BootId("b1"), monotonic_s=float(i))]
    arrivals[12].append(frame(10))
    pool = live(arrivals, 30)

    assert "b1" == pool.agents["a0"].boot
    assert 31 == pool.counts["delivered"]
    assert not pool.agents["a0"].boots["b0"].pending
    assert "b1" in pool.engines["e0"].source


def test_boots_long_ended_are_never_taken_for_new() -> None:
    """After many restarts a full replay of all boots is duplicates and refusals, and reads nothing."""
    frames = [frame(0, boot=BootId(f"b{boot}")) for boot in range(3 * MAX_BOOTS)]
    pool = live({i: [made] for i, made in enumerate(frames)}, 30)
    before = without_counts(pool)
    for made in frames:
        file_frame(pool, made, 30.0)
    release_frames(pool, 30.0, 1.0)

    assert before == without_counts(pool)
    assert MAX_BOOTS == pool.counts["duplicate"]
    assert 2 * MAX_BOOTS == pool.counts["rejected_boot"] == pool.counts["rejected"]


@pytest.mark.parametrize("wall", [-1e9, 0.0, 1e12])
def test_the_wall_clock_is_for_display_only(wall: float) -> None:
    """Frames whose wall time is an hour off, stands still, or falls back are read as any other."""
    odd = {i: [frame(i, wall_s=wall + (0 if i % 3 else -3600.0))] for i in range(30)}
    plain, other = live(straight(30), 30), live(odd, 30)

    assert read(plain) == read(other)
    assert plain.counts == other.counts


@pytest.mark.parametrize(
    ("clock", "longest"),
    [
        (lambda i: 5000.0 + i - (3600.0 if i >= 30 else 0.0), 2),
        (lambda i: 5000.0 + i + (3600.0 if i >= 30 else 0.0), 3),
        (lambda i: 5000.0 + i + (7.0 if i >= 30 else 0.0), 3),
        (lambda i: 5000.0 + min(i, 30), 3),
        (lambda i: 5000.0 + i * 1.001, 3),
        (lambda i: 5000.0 + i * 0.999, 3),
    ],
    ids=["falls back an hour", "jumps ahead an hour", "jumps ahead 7 s", "stands still", "runs fast", "runs slow"],
)
def test_a_monotonic_clock_gone_wrong_keeps_frames_at_most_3_ticks(clock: Any, longest: int) -> None:
    """Whatever an agent's clock does, its frames are read in order, and none waits longer than three ticks."""
    pool = PoolState(pool="chat")
    for now in range(2000):
        file_frame(pool, frame(now, monotonic_s=clock(now)), float(max(now - 1, 0)))
        release_frames(pool, float(now), 1.0)
        pool.tick += 1

        assert len(pool.agents["a0"].boots["b0"].pending) <= longest
    assert 2000 == pool.counts["delivered"]
    assert "late" not in pool.counts


def test_after_a_clock_fell_back_the_lateness_window_comes_back() -> None:
    """Within two renewals of the skew, frames wait out the window again."""
    pool = PoolState(pool="chat")
    for now in range(200):
        sampled = 5000.0 + now - (3600.0 if now >= 30 else 0.0)
        file_frame(pool, frame(now, monotonic_s=sampled), float(max(now - 1, 0)))
        release_frames(pool, float(now), 1.0)
        pool.tick += 1

    assert 1 == len(pool.agents["a0"].boots["b0"].pending)


def test_frames_of_a_time_without_ticks_do_not_look_quicker_for_long() -> None:
    """Between two owners the machine's time stands still: what came meanwhile says nothing of an agent's clock."""
    pool = PoolState(pool="chat")
    for now in range(5):
        file_frame(pool, frame(now), float(max(now - 1, 0)))
        release_frames(pool, float(now), 1.0)
        pool.tick += 1
    for seq in range(5, 14):
        file_frame(pool, frame(seq), 4.0)
    release_frames(pool, 14.0, 10.0)
    file_frame(pool, frame(14), 14.0)
    release_frames(pool, 15.0, 1.0)
    boot = pool.agents["a0"].boots["b0"]

    assert 14.0 - 5014.0 == boot.skew_s
    assert 13 == boot.cursor


@pytest.mark.parametrize("period_s", [1, 5])
def test_ticks_far_apart_read_frames_too(period_s: int) -> None:
    """Ticks further apart than the lateness window read each frame that has waited it out, and none younger."""
    pool = PoolState(pool="chat")
    for now in range(5, 60, 5):
        for sampled in range(now - 4, now + 1):
            if sampled % period_s == 0:
                file_frame(pool, frame(sampled // period_s, monotonic_s=5000.0 + sampled), now - 5.0)
        release_frames(pool, float(now), 5.0)
        pool.tick += 1
    boot = pool.agents["a0"].boots["b0"]

    assert now - max(LATENESS_S, period_s) == boot.cursor * period_s
    assert "late" not in pool.counts


def test_too_many_waiting_frames_push_out_the_oldest() -> None:
    """A burst beyond the bound counts its oldest as late and keeps memory bounded."""
    pool = live({0: [frame(i, monotonic_s=5000.0) for i in range(MAX_PENDING + 44)]}, 1)

    assert MAX_PENDING == len(pool.agents["a0"].boots["b0"].pending)
    assert 44 == pool.counts["late"]


BAD_HEADERS = [
    {"monotonic_s": math.nan},
    {"monotonic_s": math.inf},
    {"monotonic_s": -1.0},
    {"monotonic_s": 1e308},
    {"wall_s": math.nan},
    {"wall_s": -math.inf},
    {"boot": ""},
]


@pytest.mark.parametrize("changes", BAD_HEADERS, ids=str)
def test_a_header_that_cannot_be_true_is_refused_each_time(changes: dict[str, Any]) -> None:
    """Such a frame is rejected with its reason, twice if it comes twice, and leaves nothing behind."""
    pool = live({0: [frame(0, **changes)] * 2}, 3)

    assert {"rejected": 2, "rejected_header": 2} == pool.counts
    assert {} == pool.agents


def test_a_frame_without_agent_is_refused() -> None:
    """No agent, no identity."""
    pool = live({0: [frame(0, agent=AgentId(""))]}, 3)

    assert {"rejected": 1, "rejected_agent": 1} == pool.counts


BAD_NUMBERS = [
    (math.nan, "nan"),
    (math.inf, "absurd"),
    (-math.inf, "negative"),
    (-1e-9, "negative"),
    (1e308, "absurd"),
    (1.1e24, "absurd"),
]


@pytest.mark.parametrize(("number", "why"), BAD_NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["requests_running", "itl_s_sum", "estimated_flops_total"])
def test_a_sample_that_cannot_be_true_is_left_out(name: str, number: float, why: str) -> None:
    """One number that cannot be: its sample is rejected with the reason, the frame's others are read."""
    wrong: dict[str, Any] = {name: number}
    bad = PLAIN._replace(engine=EngineId("e1"), **wrong)
    pool = live({0: [frame(0, engines=(PLAIN, bad))]}, 5)

    assert ["e0"] == list(pool.engines)
    assert {"delivered": 1, "samples_rejected": 1, f"samples_rejected_{why}": 1} == pool.counts


def test_a_frame_of_bad_samples_only_is_rejected_once_and_then_a_duplicate() -> None:
    """Nothing of it is left, so it is rejected; a copy of it is known."""
    bad = PLAIN._replace(kv_used_ratio=1.2)
    pool = live({0: [frame(0, engines=(bad,), gpus=())] * 2}, 5)

    assert {
        "rejected": 1,
        "rejected_samples_all": 1,
        "duplicate": 1,
        "samples_rejected": 1,
        "samples_rejected_absurd": 1,
    } == pool.counts


def test_an_empty_frame_is_delivered() -> None:
    """An agent that sees nothing says so, which is no fault."""
    assert {"delivered": 1} == live({0: [frame(0, engines=(), gpus=())]}, 5).counts


def test_samples_without_a_name_are_rejected() -> None:
    """An engine sample must name engine and incarnation."""
    nameless = PLAIN._replace(incarnation=Incarnation(""))
    pool = live({0: [frame(0, engines=(PLAIN, nameless))]}, 5)

    assert 1 == pool.counts["samples_rejected_unnamed"]

"""The engine on a running clock, with the clock in the test's hand."""

import random

import pytest

from flyball_core.errors import Rejected, Retryable
from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP, VARIANT
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import ENGINE_MODEL
from flyball_twin.serving import paced as paced_module
from serving_parts import HandClock, paced_engine, ring
from twin_parts import ask, with_blocks


def test_tokens_come_out_at_the_times_of_virtual_time() -> None:
    """Rung a little late at every step, requests still finish exactly when the engine in virtual time ends them."""
    clock = HandClock(0.0)
    paced, plain = paced_engine(clock), Engine(EngineId("e0"), ENGINE_MODEL, "graphs", stepped=True)
    asked = [(prompt, 1 + prompt % 90) for prompt in range(50, 3000, 200)]
    streams = [paced.submit(prompt, output, "length") for prompt, output in asked]
    # The first starts its step alone, as it does behind an HTTP door; the others join at the next.
    finished: list[Sequence] = []
    for number, (prompt, output) in enumerate(asked):
        plain.submit(ask(number, prompt=prompt, output=output), 0.0)
        plain.begin(0.0)
    plain.run(1e9, finished.extend)

    ring(clock, 100.0)

    assert all(stream.ended for stream in streams)
    assert sorted(stream.sequence.finished_s or 0.0 for stream in streams) == sorted(
        sequence.finished_s or 0.0 for sequence in finished
    )
    assert [output for _, output in asked] == [stream.delivered for stream in streams]


def test_a_busy_process_is_made_up_for_without_drift() -> None:
    """After two seconds in which nobody rang, all steps that ended are settled at their own times, and no later one."""
    clock = HandClock()
    paced = paced_engine(clock)
    stream = paced.submit(100, 1000, "length")
    clock.now_s += 2.0
    paced.advance()
    steps = paced.engine.counters.steps

    assert clock.now_s < clock.due_s < clock.now_s + 0.1
    assert stream.delivered == steps
    assert stream.last_token_s <= clock.now_s
    assert paced.engine.counters.step_s == pytest.approx(stream.last_token_s - 1000.0)
    assert 1.9 < paced.late.worst_s < 2.0


def test_what_arrives_late_never_starts_before_it_came() -> None:
    """A request that comes while a step is overdue joins the step after it, and has waited no negative time."""
    clock = HandClock()
    paced = paced_engine(clock)
    paced.submit(100, 1000, "length")
    clock.now_s += 0.5
    late = paced.submit(100, 5, "length")
    ring(clock, clock.now_s + 1.0)

    assert late.sequence.scheduled_s is not None
    assert late.sequence.arrived_s == 1000.5 <= late.sequence.scheduled_s


def test_an_alarm_that_rings_early_is_set_again() -> None:
    """Nothing is settled before its time, and the alarm stays set."""
    clock = HandClock()
    paced = paced_engine(clock)
    paced.submit(100, 5, "length")
    due_s, clock.due_s = clock.due_s, NEVER
    clock.now_s = due_s - 1e-9
    paced.advance()

    assert (due_s, 0) == (clock.due_s, paced.engine.counters.steps)


def test_an_abort_waits_for_the_end_of_the_step_and_frees_the_cache() -> None:
    """In the middle of a step the request is still computed; after it nothing of it is left, and it is counted."""
    clock = HandClock()
    paced = paced_engine(clock)
    stream = paced.submit(5000, 100, "length")
    ring(clock, 1000.5)
    assert paced.engine.step_end_s != NEVER
    used = paced.engine.batch.kv.used
    paced.abort(stream)
    assert used == paced.engine.batch.kv.used
    ring(clock, 1001.0)

    assert (0, 0) == (paced.engine.batch.kv.used, paced.engine.batch.running)
    assert {"stop": 0, "length": 0, "abort": 1} == paced.tallies.finished
    assert 1 == paced.engine.counters.requests_aborted
    assert NEVER == paced.engine.step_end_s


def test_requests_of_all_kinds_can_be_aborted_at_any_time() -> None:
    """Waiting, prefilling, decoding, preempted: whatever is aborted when, the blocks add up and the others finish."""
    rng = random.Random(7)
    for _ in range(20):
        clock = HandClock()
        paced = paced_engine(clock, with_blocks(400))
        paced.set(BATCH_CAP, 24)
        streams = [paced.submit(rng.randrange(20, 1500), rng.randrange(1, 200), "stop") for _ in range(40)]
        leaving = rng.sample(streams, 20)
        for stream in leaving:
            ring(clock, clock.now_s + rng.uniform(0.0, 0.2))
            paced.abort(stream)
        ring(clock, clock.now_s + 500.0)

        assert 0 == paced.engine.batch.kv.used
        assert all(stream.ended for stream in streams)
        over = paced.tallies.finished
        assert len(streams) == over["stop"] + over["abort"]
        assert all(
            stream.delivered == stream.sequence.request.output_tokens for stream in streams if not stream.failure
        )


def test_a_live_knob_holds_from_the_next_step_on_while_streams_run() -> None:
    """A lowered cap lets nobody new in until requests have drained below it, and cuts nobody off."""
    clock = HandClock()
    paced = paced_engine(clock)
    first = [paced.submit(100, 200, "length") for _ in range(4)]
    ring(clock, 1000.5)
    paced.set(BATCH_CAP, 2)
    later = [paced.submit(100, 50, "length") for _ in range(4)]
    ring(clock, 1001.0)

    assert (4, 4) == (paced.engine.batch.running, len(paced.engine.batch.waiting))
    ring(clock, 1030.0)
    assert not any(stream.failure for stream in [*first, *later])
    assert all(stream.ended for stream in [*first, *later])
    with pytest.raises(Rejected, match="takes 1 to 256"):
        paced.set(BATCH_CAP, 0)


def test_a_relaunch_cuts_streams_off_and_begins_a_new_incarnation() -> None:
    """Streams end with the reason, requests are refused while it is down, and counters start at zero afterwards."""
    clock = HandClock()
    paced = paced_engine(clock)
    before, started_wall_s = paced.incarnation, paced.started_wall_s
    done = paced.submit(100, 1, "stop")
    cut = paced.submit(100, 1000, "length")
    ring(clock, 1000.5)
    paced.restart({VARIANT: "splitkv"})

    assert (done.failure, cut.failure, paced.lost) == ("", "e0 is being relaunched", 1)
    with pytest.raises(Retryable, match="relaunched"):
        paced.submit(100, 1, "stop")
    ring(clock, 1000.5 + ENGINE_MODEL.cold_start_s + 1.0)
    assert paced.ready
    assert before != paced.incarnation
    assert paced.started_wall_s > started_wall_s
    assert {"stop": 0, "length": 0, "abort": 0} == paced.tallies.finished
    assert "splitkv" == paced.read()[VARIANT]


def test_a_restart_that_cannot_be_changes_nothing() -> None:
    """Streams go on when the variant asked for does not exist."""
    clock = HandClock()
    paced = paced_engine(clock)
    stream = paced.submit(100, 10, "length")
    with pytest.raises(Rejected, match="graphs, splitkv"):
        paced.restart({VARIANT: "eager"})
    ring(clock, 1001.0)

    assert (10, "") == (stream.delivered, stream.failure)


def test_a_full_engine_refuses_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than it holds are refused as something to be tried again, not as wrong."""
    monkeypatch.setattr(paced_module, "MOST_REQUESTS", 2)
    paced = paced_engine(HandClock())
    for _ in range(2):
        paced.submit(100, 10, "length")

    with pytest.raises(Retryable, match="holds 2 requests"):
        paced.submit(100, 10, "length")


def test_tallies_agree_with_the_engines_own_counters() -> None:
    """Every histogram has the count and the sum that the engine counted, preemptions and all."""
    clock = HandClock()
    paced = paced_engine(clock, with_blocks(120))
    for number in range(30):
        paced.submit(100 + 7 * number, 40 + number, "length")
        ring(clock, clock.now_s + 0.05)
    ring(clock, clock.now_s + 200.0)
    counters, tallies = paced.engine.counters, paced.tallies

    assert counters.preemptions > 0
    for tally, total, count in (
        (tallies.ttft, counters.ttft_s_sum, counters.ttft_count),
        (tallies.itl, counters.itl_s_sum, counters.itl_count),
        (tallies.e2e, counters.e2e_s_sum, counters.e2e_count),
        (tallies.queue, counters.queue_s_sum, counters.queue_count),
    ):
        assert count == sum(tally.counts)
        assert total == pytest.approx(tally.total)
    assert counters.requests_finished == tallies.finished["length"] == 30

"""One engine: steps take what they cost, knobs hold, counters count, a restart starts over."""

import gc
from dataclasses import replace

import pytest

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.scheduling import BatchPolicy, Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import ENGINE_MODEL, VARIANTS, EngineModel, GpuCondition, StepCost
from flyball_twin.workload import Request
from twin_parts import ask, with_blocks


def engine_of(model: EngineModel = ENGINE_MODEL, variant: str = "graphs", *, stepped: bool = True) -> Engine:
    """A fresh engine that takes every step by itself."""
    return Engine(EngineId("e0"), model, variant, stepped=stepped)


def cost_of(bandwidth: float = 1.0, variant: str = "graphs") -> StepCost:
    """What its steps cost."""
    return ENGINE_MODEL.cost(VARIANTS[variant], GpuCondition(bandwidth=bandwidth))


def drain(engine: Engine, from_s: float = 0.0) -> list[Sequence]:
    """Run it until nothing is left."""
    finished: list[Sequence] = []
    engine.begin(from_s)
    engine.run(1e9, finished.extend)

    return finished


def test_a_lone_request_takes_exactly_its_steps() -> None:
    """First token after one prefill step, each further one after a decode step over the tokens so far."""
    engine = engine_of()
    cost = cost_of()
    engine.submit(ask(0, prompt=100, output=4), 5.0)
    (done,) = drain(engine, 5.0)
    first_s = 5.0 + cost.step_s(0, 0, [(0, 100)])
    last_s = first_s
    for context in (100, 101, 102):
        last_s += cost.step_s(1, context)

    assert (first_s, last_s) == (done.first_token_s, done.finished_s)


def test_a_long_prompt_is_prefilled_in_chunks_of_the_budget() -> None:
    """20,000 tokens at a budget of 8,192 take three steps, at 1,024 twenty."""
    steps = []
    for budget in (8192, 1024):
        engine = engine_of()
        engine.set_live(TOKEN_BUDGET, budget)
        engine.submit(ask(0, prompt=20_000, output=1), 0.0)
        drain(engine)
        steps.append(engine.counters.steps)

    assert steps == [3, 20]


def test_lost_bandwidth_slows_decoding_from_the_next_step_on() -> None:
    """The step under way ends as it would have; the next is that of the weaker GPU."""
    engine = engine_of()
    engine.submit(ask(0, prompt=100, output=50), 0.0)
    engine.begin(0.0)
    first_s = engine.step_end_s
    engine.set_bandwidth_factor(0.4)
    engine.finish_step()
    engine.begin(first_s)

    assert first_s == cost_of().step_s(0, 0, [(0, 100)])
    assert first_s + cost_of(0.4).step_s(1, 100) == engine.step_end_s
    assert cost_of(0.4).step_s(1, 100) > 1.5 * cost_of().step_s(1, 100)


def test_counters_agree_with_the_requests() -> None:
    """Tokens, counts and sums over requests are those of the sequences themselves."""
    engine = engine_of()
    asked = [ask(id_, prompt=50 + 37 * id_, output=1 + 11 * id_) for id_ in range(8)]
    for request in asked:
        engine.submit(request, 0.0)
    done = drain(engine)
    counters = engine.counters

    assert sum(request.prompt_tokens for request in asked) == counters.prompt_tokens
    assert sum(request.output_tokens for request in asked) == counters.generation_tokens
    assert len(asked) == counters.requests_finished == counters.ttft_count == counters.e2e_count
    assert sum(request.output_tokens - 1 for request in asked) == counters.itl_count
    gaps = sum((item.finished_s or 0.0) - (item.first_token_s or 0.0) for item in done)
    assert gaps == pytest.approx(counters.itl_s_sum)
    assert sum(item.finished_s or 0.0 for item in done) == pytest.approx(counters.e2e_s_sum)


def test_gaps_over_preemptions_are_counted_whole() -> None:
    """A preempted request's next gap runs from its last token before to its first after."""
    engine = engine_of(with_blocks(60))
    for id_ in range(6):
        engine.submit(ask(id_, prompt=120, output=120), 0.0)
    done = drain(engine)
    gaps = sum((item.finished_s or 0.0) - (item.first_token_s or 0.0) for item in done)

    assert engine.counters.preemptions > 0
    assert sum(item.preemptions for item in done) == engine.counters.preemptions
    assert 6 * 119 == engine.counters.itl_count
    assert gaps == pytest.approx(engine.counters.itl_s_sum)
    assert engine.counters.prompt_tokens == 6 * 120


def test_gaps_over_the_prefills_of_others_are_counted_whole() -> None:
    """Where prefills go first, decodes that stand still meanwhile wait that much longer for their next token."""
    engine = Engine(EngineId("e0"), ENGINE_MODEL, "graphs", scheduling=Scheduling(policy=BatchPolicy.PREFILL_FIRST))
    finished: list[Sequence] = []
    for id_ in range(5):
        engine.submit(ask(id_, prompt=9000, output=60), 0.5 * id_)
        engine.begin(0.5 * id_)
        engine.run(0.5 * (id_ + 1), finished.extend)
    engine.run(100.0, finished.extend)
    gaps = sum((item.finished_s or 0.0) - (item.first_token_s or 0.0) for item in finished)

    assert gaps == pytest.approx(engine.counters.itl_s_sum)
    assert engine.counters.itl_count == 5 * 59


def test_read_bytes_follow_the_step_under_way() -> None:
    """Half-way through a step half of its bytes are read; at its end all, and not more."""
    engine = engine_of()
    engine.submit(ask(0, prompt=100, output=5), 0.0)
    engine.begin(0.0)
    end_s = engine.step_end_s
    step_bytes = cost_of().read_bytes(0, 0, [(0, 100)])

    assert engine.read_bytes_by(end_s / 2) == pytest.approx(step_bytes / 2)
    engine.finish_step()

    assert step_bytes == engine.read_bytes_by(end_s) == engine.counters.read_bytes


def test_bandwidth_never_exceeds_what_the_gpu_has() -> None:
    """Bytes over time stay below the efficient bandwidth, healthy or not."""
    for factor in (1.0, 0.4):
        engine = engine_of(variant="splitkv")
        engine.set_bandwidth_factor(factor)
        for id_ in range(12):
            engine.submit(ask(id_, prompt=8000, output=800), 0.0)
        end_s = max(item.finished_s or 0.0 for item in drain(engine))
        limit = ENGINE_MODEL.gpu.hbm_bytes_per_s * factor

        assert 0.3 * limit < engine.read_bytes_by(end_s) / end_s < limit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (BATCH_CAP, 0),
        (BATCH_CAP, 257),
        (BATCH_CAP, 2.5),
        (BATCH_CAP, True),
        (TOKEN_BUDGET, 255),
        (TOKEN_BUDGET, 8193),
        (TOKEN_BUDGET, float("nan")),
        (VARIANT, "splitkv"),
        ("temperature", 1),
    ],
)
def test_a_live_knob_takes_only_its_own_values(name: str, value: float | str) -> None:
    """Out of bounds, of the wrong type, restart-class or unknown: refused, and nothing changed."""
    engine = engine_of()
    before = dict(engine.settings())
    with pytest.raises(Rejected):
        engine.set_live(name, value)

    assert before == engine.settings()


def test_a_restart_aborts_then_comes_back_as_new() -> None:
    """Down for the cold start; then another incarnation and variant, empty, counters and live knobs as at start."""
    engine = engine_of()
    engine.set_live(BATCH_CAP, 2)
    engine.set_bandwidth_factor(0.4)
    requests = [ask(id_, prompt=500, output=50) for id_ in range(3)]
    for request in requests:
        engine.submit(request, 0.0)
    engine.begin(0.0)
    engine.run(0.5, lambda _: None)
    before, half_way = engine.incarnation, engine.read_bytes_by(0.5)
    aborted = engine.restart({VARIANT: "splitkv"}, 0.5)

    assert requests == list(aborted)
    assert (engine.ready, engine.incarnation) == (False, before)
    assert engine.ready_at_s == 0.5 + ENGINE_MODEL.cold_start_s
    assert engine.step_end_s == NEVER
    assert half_way == engine.read_bytes_by(20.0)
    with pytest.raises(Fatal):
        engine.submit(ask(9), 10.0)
    with pytest.raises(Rejected, match="relaunches already"):
        engine.restart({}, 10.0)
    engine.relaunch()

    assert (engine.ready, engine.incarnation) == (True, "e0-2")
    assert engine.settings() == {BATCH_CAP: 256, TOKEN_BUDGET: 8192, VARIANT: "splitkv"}
    assert (engine.counters.steps, engine.counters.generation_tokens, engine.batch.kv.used) == (0, 0, 0)
    engine.submit(ask(10, prompt=100, output=1), 60.0)
    (done,) = drain(engine, 60.0)
    # The GPU is still the degraded one.
    assert done.finished_s == 60.0 + cost_of(0.4, "splitkv").step_s(0, 0, [(0, 100)])


@pytest.mark.parametrize("values", [{VARIANT: "warp"}, {VARIANT: 3}, {BATCH_CAP: 4}, {"speed": 9}])
def test_a_restart_with_wrong_values_leaves_the_engine_running(values: dict[str, int | str]) -> None:
    """Only its restart knob and its choices; else nothing is aborted."""
    engine = engine_of()
    engine.submit(ask(0), 0.0)
    engine.begin(0.0)
    with pytest.raises(Rejected):
        engine.restart(values, 0.0)

    assert engine.ready
    assert len(drain(engine)) == 1


def test_an_unknown_variant_is_refused_with_the_choices() -> None:
    """The message names what there is."""
    with pytest.raises(Rejected, match="variant takes one of graphs, splitkv"):
        engine_of(variant="eager")


def test_a_request_that_can_never_fit_is_refused() -> None:
    """Prompt and output together beyond the model's context or the whole cache."""
    with pytest.raises(Rejected, match="131073 tokens"):
        engine_of().submit(ask(0, prompt=131_000, output=73), 0.0)
    with pytest.raises(Rejected, match="holds 160"):
        engine_of(with_blocks(10)).submit(ask(0, prompt=150, output=11), 0.0)


def test_knobs_take_their_own_safe_values() -> None:
    """Every knob's safe value is one it accepts, and reads back at start."""
    engine = engine_of(variant="splitkv")

    assert [spec.refuse(spec.safe) for spec in engine.knobs()] == [None] * 3
    assert {spec.name: spec.safe for spec in engine.knobs()} == engine.settings()


def test_a_stalled_engine_completes_nothing_until_it_is_over() -> None:
    """The step under way ends as much later as it stalls, and none begins before; then all goes on as it would have."""
    plain, stalled = engine_of(), engine_of()
    for engine in (plain, stalled):
        engine.submit(ask(0, prompt=100, output=50), 0.0)
        engine.begin(0.0)
        engine.run(0.1, lambda _: None)
    stalled.stall(0.1, 5.1)
    stalled.submit(ask(1, prompt=100, output=1), 1.0)
    stalled.begin(1.0)
    steps = stalled.counters.steps
    stalled.run(5.0, lambda _: None)

    assert steps == stalled.counters.steps
    assert plain.step_end_s + 5.0 == pytest.approx(stalled.step_end_s)
    finished: list[Sequence] = []
    stalled.run(50.0, finished.extend)

    assert [item.request.id for item in finished] == [1, 0]
    assert finished[0].arrived_s < 5.1 < (finished[0].scheduled_s or 0.0)


def test_an_idle_engine_that_stalls_begins_when_it_is_over() -> None:
    """What comes meanwhile starts at that moment, all of it in one step; and never if it is never over."""
    for until_s, expected in ((4.0, [4.0, 4.0]), (NEVER, [None, None])):
        engine = engine_of()
        engine.stall(1.0, until_s)
        sequences = [engine.submit(ask(id_), 2.0 + id_) for id_ in range(2)]
        for now_s in (2.0, 3.0):
            engine.begin(now_s)
        engine.run(60.0, lambda _: None)

        assert expected == [item.scheduled_s for item in sequences]


def test_a_stall_that_is_prolonged_counts_once() -> None:
    """Two stalls that overlap are one until the later end."""
    engine = engine_of()
    engine.submit(ask(0, prompt=100, output=50), 0.0)
    engine.begin(0.0)
    end_s = engine.step_end_s
    engine.stall(0.001, 2.001)
    engine.stall(1.0, 3.001)
    engine.stall(1.5, 2.5)

    assert end_s + 3.0 == pytest.approx(engine.step_end_s)


def test_a_dead_engine_is_gone_with_all_it_ran_until_it_is_started_cold() -> None:
    """It gives back what it had, computes and takes nothing, and a start is a relaunch of the same variant."""
    engine = engine_of(variant="splitkv")
    taken = [engine.submit(ask(id_, prompt=500, output=50), 0.0) for id_ in range(3)]
    engine.begin(0.0)
    engine.run(0.5, lambda _: None)
    busy_s, read_bytes = engine.busy_by(0.5), engine.read_bytes_by(0.5)

    assert taken == list(engine.die(0.5))
    assert (engine.ready, engine.step_end_s, engine.ready_at_s) == (False, NEVER, NEVER)
    assert (busy_s, read_bytes) == (engine.busy_by(9.0), engine.read_bytes_by(9.0))
    for refused in (lambda: engine.submit(ask(9), 1.0), lambda: engine.restart({}, 1.0)):
        with pytest.raises((Fatal, Rejected), match="is down"):
            refused()
    engine.start(10.0)

    assert engine.ready_at_s == 10.0 + ENGINE_MODEL.cold_start_s
    with pytest.raises(Rejected, match="not dead"):
        engine.start(11.0)
    engine.relaunch()

    assert (engine.ready, engine.variant, engine.incarnation) == (True, "splitkv", "e0-2")
    assert (engine.batch.running, engine.counters.steps) == (0, 0)


def test_death_during_a_relaunch_ends_the_relaunch() -> None:
    """It is not ready when it would have been."""
    engine = engine_of()
    engine.restart({}, 0.0)
    engine.die(5.0)

    assert (engine.ready, engine.ready_at_s) == (False, NEVER)


def test_a_draining_engine_finishes_what_it_has_and_takes_nothing() -> None:
    """Running and waiting ones end; a new one is refused until it takes some again."""
    engine = engine_of()
    engine.set_live(BATCH_CAP, 1)
    for id_ in range(3):
        engine.submit(ask(id_), 0.0)
    engine.drain()
    with pytest.raises(Fatal, match="drains"):
        engine.submit(ask(9), 0.0)

    assert len(drain(engine)) == 3
    engine.drain(on=False)
    engine.submit(ask(10), 5.0)

    assert (engine.draining, len(drain(engine, 5.0))) == (False, 1)


def test_an_engine_has_the_ceilings_that_it_was_started_with() -> None:
    """Knobs reach up to them and start there; and every decode of a full batch has its tokens, those of a draft too."""
    engine = engine_of(replace(ENGINE_MODEL, max_active_requests=64, max_batched_tokens=2048, draft_tokens=3))
    cap, budget, _ = engine.knobs()

    assert (engine.max_active_requests, engine.max_batched_tokens) == (64, 2048)
    assert (cap.maximum, budget.minimum, budget.maximum) == (64, 256, 2048)
    with pytest.raises(Rejected, match="need a budget of 256 tokens"):
        engine_of(replace(ENGINE_MODEL, max_active_requests=64, max_batched_tokens=255, draft_tokens=3))


def test_memory_does_not_grow_with_what_was_served() -> None:
    """Of 600 requests that were served nothing is left in memory once they are nobody else's."""
    engine = engine_of(stepped=False)

    def serve(first: int, count: int) -> int:
        for id_ in range(first, first + count):
            engine.submit(ask(id_, prompt=50, output=3), 0.1 * id_)
            engine.begin(0.1 * id_)
            engine.run(0.1 * id_ + 0.09, lambda _: None)
        gc.collect()
        return sum(isinstance(item, Request | Sequence) for item in gc.get_objects())

    few, many = serve(0, 100), serve(100, 500)

    assert engine.counters.requests_finished == 600
    assert few == many

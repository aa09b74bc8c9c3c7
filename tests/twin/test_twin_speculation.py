"""Speculation in expectation: more tokens a step, exactly as many as were asked for, and counted as vLLM counts."""

from dataclasses import replace

import pytest

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.engine.speculation import tokens_per_step
from flyball_twin.physics import ENGINE_MODEL
from twin_parts import ask


def engine_of(draft: int, acceptance: float, *, stepped: bool = False) -> Engine:
    """An engine that speculates."""
    model = replace(ENGINE_MODEL, draft_tokens=draft)
    return Engine(
        EngineId("e0"), model, "flash_attn", scheduling=Scheduling(draft_acceptance=acceptance), stepped=stepped
    )


def serve(engine: Engine, count: int = 1, output: int = 1000) -> list[Sequence]:
    """Requests that come together, to their ends."""
    finished: list[Sequence] = []
    for id_ in range(count):
        engine.submit(ask(id_, prompt=200, output=output + 7 * id_), 0.0)
    engine.begin(0.0)
    engine.run(1e6, finished.extend)
    return finished


@pytest.mark.parametrize(
    ("draft", "acceptance", "expected"),
    [(0, 0.9, 1.0), (1, 0.5, 1.5), (3, 0.8, 1 + 0.8 + 0.64 + 0.512), (4, 1.0, 5.0), (5, 0.0, 1.0)],
)
def test_a_step_puts_out_what_is_accepted_and_one_more(draft: int, acceptance: float, expected: float) -> None:
    """The sum of the chances that a proposal is reached and accepted, and the model's own token."""
    assert expected == pytest.approx(tokens_per_step(draft, acceptance))


@pytest.mark.parametrize(("draft", "acceptance"), [(-1, 0.5), (1, -0.1), (1, 1.1), (1, float("nan"))])
def test_a_draft_that_cannot_be_is_refused(draft: int, acceptance: float) -> None:
    """No negative tokens, no chance outside 0..1."""
    with pytest.raises(Rejected, match="a draft has"):
        tokens_per_step(draft, acceptance)


def test_a_request_gets_its_tokens_in_fewer_steps() -> None:
    """A thousand tokens at 2.95 a step are 339 steps after the first; all of them and no more are put out."""
    engine = engine_of(3, 0.8)
    (done,) = serve(engine)
    counters = engine.counters

    assert done.generated == counters.generation_tokens == 1000
    assert counters.steps == 1 + 339
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (339, 3 * 339, 999 - 339)
    assert counters.itl_count == 339
    assert engine.batch.kv.used == 0


def test_tokens_come_sooner_by_what_is_accepted_less_what_it_costs() -> None:
    """With a draft the mean time per token falls, though each step is longer; a draft nobody accepts only costs."""
    tpot = {}
    for draft, acceptance in ((0, 0.0), (3, 0.8), (3, 0.0)):
        (done,) = serve(engine_of(draft, acceptance))
        tpot[draft, acceptance] = ((done.finished_s or 0.0) - (done.first_token_s or 0.0)) / 999

    assert 1 / 3.0 < tpot[3, 0.8] / tpot[0, 0.0] < 0.8
    assert tpot[3, 0.0] > tpot[0, 0.0]


def test_verified_tokens_count_against_the_budget() -> None:
    """Ten decodes with three proposals each leave 24 of 64 tokens for a prompt."""
    model = replace(ENGINE_MODEL, draft_tokens=3, max_active_requests=16, max_batched_tokens=64)
    engine = Engine(EngineId("e0"), model, "flash_attn", scheduling=Scheduling(draft_acceptance=0.5))
    for id_ in range(10):
        engine.submit(ask(id_, prompt=4, output=500), 0.0)
    engine.begin(0.0)
    engine.run(1.0, lambda _: None)
    engine.submit(ask(10, prompt=400, output=2), 1.0)
    engine.run(engine.step_end_s, lambda _: None)

    assert (engine.batch.tokens, engine.batch.chunks[0][1]) == (64, 24)


@pytest.mark.parametrize(("draft", "acceptance"), [(1, 0.7), (3, 0.8), (5, 0.35)])
def test_leaps_and_steps_agree_under_speculation(draft: int, acceptance: float) -> None:
    """Contexts within a leap grow by the mean instead of by whole tokens: times agree within a thousandth."""
    ends = [
        {item.request.id: item.finished_s for item in serve(engine_of(draft, acceptance, stepped=stepped), count=12)}
        for stepped in (False, True)
    ]

    assert ends[0] == pytest.approx(ends[1], rel=1e-3)

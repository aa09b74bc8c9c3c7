"""The closed loop of a benchmark around the twin's engine: who sends when, and where the clients' time goes."""

from dataclasses import replace

import pytest

from flyball_twin.engine.scheduling import AS_VLLM, BatchPolicy, Scheduling, scheduling_of
from flyball_twin.physics import ENGINE_MODEL, FLASH_ATTN
from flyball_twin.validation.closed_loop import ClientLoad, ClosedLoop, LoopRun, Serving

HOST_S = 0.004


def seen(load: ClientLoad, scheduling: Scheduling = AS_VLLM) -> LoopRun:
    """What the clients of the usual engine see."""
    return ClosedLoop(Serving(engine=ENGINE_MODEL, scheduling=scheduling), load, HOST_S).run()


def test_one_client_waits_for_its_own_steps_alone() -> None:
    """A lone client's first token takes the host path and its prefill, and each later one a decode step."""
    run = seen(ClientLoad(clients=1, prompt_tokens=1000, output_tokens=101, rounds=3))

    cost = ENGINE_MODEL.cost(FLASH_ATTN)
    assert run.ttft_s == pytest.approx(HOST_S + cost.step_s(0, 0, [(0, 1000)]))
    steps_s = [cost.step_s(1, context) for context in range(1000, 1100)]
    assert run.tpot_s == pytest.approx(sum(steps_s) / 100, rel=0.002)


def test_every_client_has_its_rounds() -> None:
    """As many requests are answered as clients times rounds."""
    assert seen(ClientLoad(clients=7, prompt_tokens=300, output_tokens=20, rounds=5)).requests == 35


@pytest.mark.parametrize(
    "scheduling",
    [
        scheduling_of("vllm"),
        replace(AS_VLLM, one_prompt_a_step=False),
        Scheduling(),
        scheduling_of("sglang"),
        scheduling_of("trtllm"),
    ],
)
@pytest.mark.parametrize(
    "load",
    [
        ClientLoad(clients=24, prompt_tokens=2000, output_tokens=60),
        ClientLoad(clients=90, prompt_tokens=3000, output_tokens=40),
    ],
)
def test_the_steps_account_for_the_clients_time(load: ClientLoad, scheduling: Scheduling) -> None:
    """Under the constants it was played with, the closed form over a run's steps is what its clients measured."""
    run = seen(load, scheduling)

    cost = ENGINE_MODEL.cost(FLASH_ATTN)
    step_s = [cost.step_s(piece.decodes, piece.context, piece.chunks) for piece in run.pieces]
    ttft_s = sum(piece.before_first * seconds for piece, seconds in zip(run.pieces, step_s, strict=True))
    tpot_s = sum(piece.per_token * seconds for piece, seconds in zip(run.pieces, step_s, strict=True))
    assert HOST_S + ttft_s == pytest.approx(run.ttft_s, rel=0.01)
    assert tpot_s == pytest.approx(run.tpot_s, rel=0.01)


def test_prompts_enter_one_a_step() -> None:
    """Where prompts enter singly the first of many waits for its own prefill alone, the last for all."""
    engine = replace(ENGINE_MODEL, max_batched_tokens=16384)
    load = ClientLoad(clients=8, prompt_tokens=1000, output_tokens=2, rounds=1)
    many = replace(AS_VLLM, one_prompt_a_step=False)
    apart = ClosedLoop(Serving(engine=engine, scheduling=AS_VLLM), load, 0.0).run()
    together = ClosedLoop(Serving(engine=engine, scheduling=many), load, 0.0).run()

    assert [len(piece.chunks) for piece in apart.pieces if piece.chunks] == [1] * len(
        [piece for piece in apart.pieces if piece.chunks]
    )
    assert apart.ttft_s < together.ttft_s


def test_a_cache_too_small_makes_clients_wait() -> None:
    """Clients whose requests do not fit the cache together wait for others' last tokens before their first."""
    small = replace(ENGINE_MODEL, memory_share=0.45)
    fits = small.kv_blocks * 16 // 2300
    load = ClientLoad(clients=fits * 2, prompt_tokens=2000, output_tokens=300, rounds=3)
    run = ClosedLoop(Serving(engine=small, scheduling=Scheduling(policy=BatchPolicy.IN_FLIGHT)), load, HOST_S).run()

    assert run.ttft_s > 100 * run.tpot_s


def test_lengths_spread_as_asked() -> None:
    """Lengths drawn between a share and the whole make prompts shorter on average, the same at every run."""
    load = ClientLoad(clients=16, prompt_tokens=4000, output_tokens=100, shortest=0.5)

    assert seen(load) == seen(load)
    assert seen(load).ttft_s < seen(replace(load, shortest=1.0)).ttft_s

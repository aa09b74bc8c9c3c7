"""Continuous batching keeps its books exactly, whatever arrives and however little room there is."""

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Fatal
from flyball_twin.kv import PagedKv, blocks_for
from flyball_twin.scheduler import Batch
from flyball_twin.sequences import Sequence
from twin_parts import ask


def sequence(id_: int, prompt: int, output: int) -> Sequence:
    """A sequence that waits."""
    return Sequence(request=ask(id_, prompt=prompt, output=output), arrived_s=0.0, target=prompt)


def check_books(batch: Batch) -> None:
    """Between steps, blocks in use are exactly those of the running sequences' tokens."""
    running = list(batch)[: batch.running]
    held = sum(blocks_for(item.tokens_at(batch.tick)) for item in running)

    assert held == batch.kv.used
    assert 0 <= batch.kv.free <= batch.kv.capacity
    assert batch.decodes == sum(item.joined_tick >= 0 for item in running)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=14),
    blocks=st.integers(10, 40),
    cap=st.integers(1, 8),
    budget=st.integers(16, 64),
)
def test_every_request_gets_exactly_its_tokens_whatever_the_room(
    sizes: list[tuple[int, int]], blocks: int, cap: int, budget: int
) -> None:
    """Each finishes once with all its tokens; budget, cap and capacity hold at every step; nothing leaks."""
    batch = Batch(blocks)
    batch.waiting.extend(sequence(id_, prompt, output) for id_, (prompt, output) in enumerate(sizes))
    tokens: dict[int, int] = dict.fromkeys(range(len(sizes)), 0)
    done: list[int] = []
    for _ in range(20_000):
        planned = batch.plan(cap, budget)
        if not planned and not batch.waiting:
            break

        assert batch.tokens <= budget
        assert batch.running <= cap
        assert batch.kv.used <= blocks

        decoding = [item for item in list(batch)[: batch.running] if item.joined_tick >= 0]
        through, finished = batch.settle()
        for item in decoding + through:
            tokens[item.request.id] += 1
        done += [item.request.id for item in finished]
        check_books(batch)

    assert sorted(done) == list(range(len(sizes)))
    assert tokens == {id_: output for id_, (_, output) in enumerate(sizes)}
    assert batch.kv.used == 0
    assert batch.running == 0


def run_step(batch: Batch, cap: int = 256, budget: int = 8192) -> tuple[list[Sequence], list[Sequence]]:
    """Plan and settle one step."""
    assert batch.plan(cap, budget)

    return batch.settle()


def test_decodes_get_their_token_before_any_prefill() -> None:
    """A long prompt takes only what the decodes leave of the budget, in chunks."""
    batch = Batch(1000)
    batch.waiting.extend(sequence(id_, 10, 50) for id_ in range(4))
    run_step(batch, budget=64)
    batch.waiting.append(sequence(9, 200, 5))
    chunks = []
    while not any(item.request.id == 9 for item in run_step(batch, budget=64)[0]):
        chunks += [(batch.decodes, batch.tokens)]

    assert chunks == [(4, 64)] * 3


def test_a_waiting_request_is_admitted_only_if_all_of_it_fits() -> None:
    """Although a first chunk would fit, a prompt larger than the free blocks waits, and those behind it too."""
    batch = Batch(10)
    batch.waiting.extend([sequence(0, 100, 40), sequence(1, 60, 2), sequence(2, 16, 2)])
    run_step(batch, budget=64)

    assert batch.running == 1
    assert [item.request.id for item in batch.waiting] == [1, 2]


def test_the_latest_admitted_is_preempted_and_computed_again() -> None:
    """When blocks run out the younger of two loses its cache, waits at the head, and finishes with all its tokens."""
    batch = Batch(8)
    first, second = sequence(0, 48, 60), sequence(1, 48, 60)
    batch.waiting.extend([first, second, sequence(2, 16, 4)])
    done: list[int] = []
    preempted: list[tuple[int, int, int]] = []
    while batch.plan(256, 256):
        preempted += [(item.request.id, item.generated, item.target) for item in batch.preempted]
        done += [item.request.id for item in batch.settle()[1]]

    assert (1, 17, 65) in preempted
    assert 0 not in {id_ for id_, _, _ in preempted}
    assert sorted(done) == [0, 1, 2]
    assert second.preemptions >= 1
    assert second.generated == 60


def test_a_preempted_prefill_starts_over() -> None:
    """A prefill that was overtaken by an older decode's growth gives its blocks back and waits until all fits."""
    batch = Batch(6)
    old, young = sequence(0, 31, 40), sequence(1, 60, 2)
    batch.waiting.append(old)
    run_step(batch, budget=20)
    run_step(batch, budget=20)
    batch.waiting.append(young)
    for _ in range(3):
        run_step(batch, budget=17)

    assert (young.computed, batch.kv.free) == (48, 0)
    run_step(batch, budget=17)

    assert (young.preemptions, young.computed, young.target) == (1, 0, 60)
    assert list(batch.waiting) == [young]
    while batch.plan(256, 17):
        batch.settle()
        check_books(batch)

    assert (old.generated, young.generated) == (40, 2)


def test_a_lowered_cap_drains_and_evicts_nobody() -> None:
    """What runs above the new cap runs on; nothing new is admitted until there is room below it."""
    batch = Batch(1000)
    batch.waiting.extend(sequence(id_, 10, 5 + id_) for id_ in range(6))
    run_step(batch, cap=4)
    seen = []
    while batch.plan(2, 8192):
        seen.append(batch.running)
        batch.settle()

    assert seen[0] == 4
    assert sorted(seen, reverse=True)[: seen.index(2)] == seen[: seen.index(2)]
    assert max(seen[seen.index(2) :]) == 2
    assert batch.running == 0


def test_a_request_of_one_token_ends_with_its_prefill() -> None:
    """Its only token comes out of the prefill, and its blocks go back at once."""
    batch = Batch(100)
    batch.waiting.append(sequence(0, 40, 1))
    through, finished = run_step(batch)

    assert [item.request.id for item in through] == [item.request.id for item in finished] == [0]
    assert batch.kv.used == 0


@given(starts=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 40)), min_size=1, max_size=20))
def test_counted_block_boundaries_are_the_true_ones(starts: list[tuple[int, int]]) -> None:
    """Sixteen counters give the same blocks per step as counting every sequence's tokens."""
    kv = PagedKv(10_000)
    lengths: list[int] = []
    for tick in range(60):
        for tokens, at in starts:
            if at == tick:
                kv.join(tokens, tick)
                lengths.append(tokens)
        expected = sum(blocks_for(length + 1) - blocks_for(length) for length in lengths)

        assert expected == kv.needed(tick)

        lengths = [length + 1 for length in lengths]


def test_blocks_beyond_capacity_are_refused() -> None:
    """Neither more blocks than there are, nor more back than went out."""
    kv = PagedKv(4)
    kv.take(3)
    with pytest.raises(Fatal, match="2 KV blocks asked for, 1 of 4 free"):
        kv.take(2)
    kv.give(3)
    with pytest.raises(Fatal, match="returned"):
        kv.give(1)

    assert kv.used == 0

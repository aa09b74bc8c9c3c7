"""Continuous batching keeps its books exactly, whatever arrives and however little room there is."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Fatal
from flyball_twin.engine.kv import PagedKv, blocks_for
from flyball_twin.engine.prefix_cache import RUN_BLOCKS
from flyball_twin.engine.scheduler import Batch
from flyball_twin.engine.scheduling import BatchPolicy, Scheduling
from flyball_twin.engine.sequences import Sequence
from twin_parts import ask

FIRST, IN_FLIGHT = BatchPolicy.PREFILL_FIRST, BatchPolicy.IN_FLIGHT


def sequence(id_: int, prompt: int, output: int, *, priority: int = 0, prefix: tuple[int, ...] = ()) -> Sequence:
    """A sequence that waits."""
    request = replace(ask(id_, prompt=prompt, output=output), priority=priority, prefix=prefix)
    return Sequence(request=request, arrived_s=0.0, sent_s=0.0, target=prompt)


def check_books(batch: Batch) -> None:
    """Between steps, blocks in use are those of the running sequences' tokens, shared ones counted once."""
    running = list(batch)[: batch.running]
    shared = {run for item in running for run in item.runs or ()}
    held = sum(blocks_for(item.tokens_at(batch.tick)) - RUN_BLOCKS * len(item.runs or ()) for item in running)

    assert held + RUN_BLOCKS * len(shared) == batch.kv.used
    assert 0 <= batch.kv.free <= batch.kv.capacity
    assert batch.decodes == sum(item.joined_tick >= 0 for item in running)
    assert batch.decode_context == sum(item.tokens_at(batch.tick) for item in running if item.joined_tick >= 0)


KINDS = st.builds(
    Scheduling,
    policy=st.sampled_from(BatchPolicy),
    priority=st.booleans(),
    long_prefill_tokens=st.sampled_from([0, 20]),
    reserve_prompt=st.booleans(),
    watermark=st.sampled_from([0.0, 0.1]),
    draft_acceptance=st.sampled_from([0.0, 0.7, 1.0]),
)


@settings(max_examples=250, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=14),
    blocks=st.integers(10, 40),
    limits=st.tuples(st.integers(1, 8), st.integers(32, 64)),
    scheduling=KINDS,
    draft=st.sampled_from([0, 0, 1, 3]),
    leap=st.booleans(),
)
def test_every_request_gets_exactly_its_tokens_whatever_the_room(
    sizes: list[tuple[int, int, int]],
    blocks: int,
    limits: tuple[int, int],
    scheduling: Scheduling,
    draft: int,
    leap: bool,  # noqa: FBT001 - drawn
) -> None:
    """Each finishes once with all its tokens; budget, cap and capacity hold at every step; nothing leaks."""
    cap, budget = limits
    batch = Batch(blocks, scheduling, draft)
    asked = [sequence(id_, prompt, output, priority=priority) for id_, (prompt, output, priority) in enumerate(sizes)]
    batch.waiting.extend(asked)
    done: list[int] = []
    for _ in range(20_000):
        steps = batch.plan(cap, budget)
        if not steps and not batch.waiting:
            break

        assert batch.tokens <= budget
        assert batch.running <= cap
        assert batch.kv.used <= blocks

        finished = batch.settle(steps if leap else 1)[1]
        done += [item.request.id for item in finished]
        check_books(batch)

    assert sorted(done) == list(range(len(sizes)))
    assert [output for _, output, _ in sizes] == [item.generated for item in asked]
    assert batch.put_out == sum(output for _, output, _ in sizes)
    assert batch.kv.used == batch.running == batch.decodes == 0


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=14),
    blocks=st.integers(260, 600),
    cap=st.integers(1, 8),
)
def test_books_hold_with_shared_prefixes(sizes: list[tuple[int, int, int]], blocks: int, cap: int) -> None:
    """However prompts share, blocks in use are counted once, cached ones never outnumber the free, and all finish."""
    batch = Batch(blocks, Scheduling(prefix_cache=True))
    asked = [
        sequence(id_, prompt, output, prefix=tuple(10 * shared + run // 3 for run in range(8)))
        for id_, (prompt, output, shared) in enumerate(sizes)
    ]
    batch.waiting.extend(asked)
    while batch.plan(cap, 700):
        assert batch.cache is not None
        assert RUN_BLOCKS * batch.cache.unused <= batch.kv.free
        batch.settle()
        check_books(batch)

    assert [output for _, output, _ in sizes] == [item.generated for item in asked]
    assert (batch.kv.used, batch.running) == (0, 0)


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


def test_prefills_and_decodes_never_share_a_step_where_prefills_go_first() -> None:
    """Decodes stand still while a prompt is prefilled, in as many steps as it takes, and go on after it."""
    batch = Batch(1000, Scheduling(policy=FIRST))
    batch.waiting.append(sequence(0, 10, 50))
    run_step(batch, budget=64)
    run_step(batch, budget=64)
    batch.waiting.append(sequence(1, 200, 5))
    steps = []
    for _ in range(6):
        batch.plan(256, 64)
        steps.append((batch.stepping, batch.tokens))
        batch.settle()

    assert steps == [(0, 64), (0, 64), (0, 64), (0, 8), (2, 2), (2, 2)]


def test_nothing_is_preempted_where_whole_answers_are_reserved() -> None:
    """In flight, what may not end within the cache waits outside; mixed, the same requests preempt each other."""
    preemptions = {}
    for policy in (BatchPolicy.MIXED, IN_FLIGHT):
        batch = Batch(12, Scheduling(policy=policy))
        asked = [sequence(id_, 40, 60) for id_ in range(5)]
        batch.waiting.extend(asked)
        while batch.plan(256, 256):
            batch.settle()
        preemptions[policy] = sum(item.preemptions for item in asked)

    assert preemptions[IN_FLIGHT] == 0 < preemptions[BatchPolicy.MIXED]


def test_by_priority_the_urgent_go_first_and_the_others_are_preempted() -> None:
    """Whatever the order of arrival, the lowest number is let in first; the highest gives way, and queues again."""
    batch = Batch(9, Scheduling(priority=True))
    low, high, middle = sequence(0, 48, 60, priority=5), sequence(1, 48, 60, priority=0), sequence(2, 40, 2, priority=3)
    for arrived_s, item in enumerate((low, high, middle)):
        item.arrived_s = float(arrived_s)
        batch.queue(item, 256)

    assert [item.request.id for item in batch.waiting] == [1, 2, 0]
    run_step(batch, budget=256)

    assert [item.request.id for item in batch] == [1, 2, 0]
    preempted = []
    while batch.plan(256, 256):
        preempted += batch.preempted
        batch.settle()

    assert set(preempted) == {low}
    assert (low.generated, high.generated, middle.generated) == (60, 60, 2)


def test_a_request_is_in_no_step_whose_batch_was_made_before_it_came() -> None:
    """It waits for its first step while others run, and each step until then is planned alone; else it need not."""
    batch = Batch(1000)
    first, late = sequence(0, 10, 50), sequence(1, 10, 50)
    first.from_step = 7
    batch.queue(first, 256)
    run_step(batch)

    assert (batch.running, batch.ended) == (1, 1)
    late.from_step = 3
    batch.queue(late, 256)
    let_in = []
    for _ in range(3):
        assert batch.plan(256, 8192) == 1
        let_in.append(late in [item for item, _ in batch.chunks])
        batch.settle()
    assert let_in == [False, False, True]


def test_the_urgent_that_came_too_late_for_a_step_leave_it_to_others() -> None:
    """By priority, a step takes the first of those that were there when its batch was made."""
    batch = Batch(1000, Scheduling(priority=True))
    batch.queue(sequence(0, 10, 50, priority=1), 256)
    run_step(batch)
    urgent, other = sequence(1, 10, 50, priority=0), sequence(2, 10, 50, priority=2)
    urgent.from_step = 2
    batch.queue(urgent, 256)
    batch.queue(other, 256)
    entered = []
    for _ in range(2):
        batch.plan(256, 8192)
        entered.append([item for item, _ in batch.chunks])
        batch.settle()

    assert entered == [[other], [urgent]]


def test_one_prompt_enters_a_step_where_that_is_so() -> None:
    """However many wait and fit; pieces of one that is under way go on beside it."""
    batch = Batch(1000, Scheduling(one_prompt_a_step=True))
    batch.waiting.extend([sequence(0, 150, 5), sequence(1, 20, 5), sequence(2, 20, 5)])
    entered = []
    for _ in range(3):
        batch.plan(256, 100)
        entered.append([(item.request.id, chunk) for item, chunk in batch.chunks])
        batch.settle()

    assert entered == [[(0, 100)], [(0, 50), (1, 20)], [(2, 20)]]


def test_a_step_that_preempts_is_planned_alone() -> None:
    """What it has freed may let in somebody else at the next: a small urgent request, not the large one that went."""
    batch = Batch(20, Scheduling(priority=True))
    urgent, large, small = sequence(0, 16, 90, priority=1), sequence(1, 272, 20, priority=2), sequence(2, 64, 5)
    batch.waiting.extend([urgent, large])
    run_step(batch)
    batch.waiting.append(small)
    while (steps := batch.plan(256, 8192)) and not batch.preempted:
        batch.settle()

    assert (batch.preempted, steps, batch.waiting[0]) == ([large], 1, small)
    batch.settle(steps)
    batch.plan(256, 8192)

    assert [item for item, _ in batch.chunks] == [small]


def test_a_newcomer_matters_at_once_only_if_it_may_be_next() -> None:
    """Behind others, or with the cap reached, it does not; as the most urgent it does."""
    batch = Batch(1000, Scheduling(priority=True))

    assert batch.queue(sequence(0, 10, 50, priority=1), 1)
    run_step(batch)

    assert not batch.queue(sequence(1, 10, 50, priority=1), 1)
    assert not batch.queue(sequence(2, 10, 50, priority=2), 8)
    assert batch.queue(sequence(3, 10, 50, priority=0), 8)


def test_a_long_prompt_leaves_room_in_a_step_for_others_unless_it_is_alone() -> None:
    """With a threshold no prompt takes more of a step than that; alone it takes the whole budget."""
    batch = Batch(1000, Scheduling(long_prefill_tokens=100))
    batch.waiting.append(sequence(0, 700, 5))
    chunks = []
    for number in range(4):
        if number == 1:
            batch.waiting.append(sequence(1, 130, 5))
        batch.plan(256, 256)
        chunks.append([chunk for _, chunk in batch.chunks])
        batch.settle()

    assert chunks == [[256], [100, 100], [100, 30], [100]]


def test_a_watermark_keeps_blocks_free_while_others_run() -> None:
    """A prompt that would leave less waits; with nothing running it starts all the same."""
    batch = Batch(100, Scheduling(watermark=0.1))
    batch.waiting.extend([sequence(0, 64, 5), sequence(1, 1472, 5)])
    run_step(batch)

    assert (batch.running, batch.kv.free) == (1, 96)
    while batch.running:
        run_step(batch)
    batch.plan(256, 8192)

    assert (batch.running, batch.kv.free) == (1, 8)


def test_without_the_reserve_a_prompt_starts_as_soon_as_its_first_piece_fits() -> None:
    """It is let in with ten blocks for a hundred; with the reserve it is not."""
    let_in = []
    for reserve in (False, True):
        batch = Batch(130, Scheduling(reserve_prompt=reserve))
        batch.waiting.extend([sequence(0, 800, 50), sequence(1, 1600, 50)])
        batch.plan(256, 960)
        let_in.append(batch.running)

    assert let_in == [2, 1]


@pytest.mark.parametrize(("blocks", "steps"), [(10, 39), (9, 31)])
def test_a_plan_says_how_far_nothing_is_to_be_decided(blocks: int, steps: int) -> None:
    """Up to the first end, after 39 more tokens, or to where the blocks run out; and one step if there is prefill."""
    batch = Batch(blocks)
    # Further blocks are wanted at their steps 9, 16, 25 and 32.
    batch.waiting.extend([sequence(0, 33, 40), sequence(1, 40, 100)])

    assert batch.plan(256, 256) == 1
    batch.settle()
    assert batch.plan(256, 256) == steps
    batch.settle(steps)
    batch.plan(256, 256)

    assert bool(batch.preempted) == (blocks == 9)


@given(
    starts=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    tick=st.integers(0, 40),
    free=st.integers(0, 60),
    most=st.integers(0, 200),
)
def test_how_far_free_blocks_reach_is_told_at_once(starts: list[int], tick: int, free: int, most: int) -> None:
    """The same as taking them tick by tick."""
    kv = PagedKv(10_000)
    for tokens in starts:
        kv.join(tokens, tick)
    ticks, left = 0, free
    while ticks < most and kv.needed(tick + ticks) <= left:
        left -= kv.needed(tick + ticks)
        ticks += 1

    assert ticks == kv.ticks_within(tick, free, most)
    assert free - left == kv.needed_between(tick, tick + ticks)


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

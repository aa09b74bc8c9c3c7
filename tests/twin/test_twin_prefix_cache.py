"""A prefix cache: what a prompt shares is computed once, held once, and forgotten when its room is wanted."""

from dataclasses import replace

import pytest

from flyball_core.ids import EngineId
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.kv import PagedKv, blocks_for
from flyball_twin.engine.prefix_cache import RUN_BLOCKS, PrefixCache, Run
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import ENGINE_MODEL, FLASH_ATTN, EngineModel
from flyball_twin.workload import PREFIX_TOKENS
from twin_parts import ask, with_blocks

NAMES = tuple(range(100))


def engine_of(model: EngineModel = ENGINE_MODEL, *, cached: bool = True) -> Engine:
    """An engine with a prefix cache."""
    return Engine(EngineId("e0"), model, "flash_attn", scheduling=Scheduling(prefix_cache=cached))


def serve(engine: Engine, now_s: float, prompt: int, prefix: tuple[int, ...] = NAMES, output: int = 2) -> Sequence:
    """One request by itself, to its end."""
    sequence = engine.submit(replace(ask(0, prompt=prompt, output=output), prefix=prefix), now_s)
    engine.begin(now_s)
    engine.run(now_s + 100.0, lambda _: None)

    assert sequence.finished_s is not None
    return sequence


def test_a_prompt_computes_only_what_no_other_has() -> None:
    """Of 20,000 shared tokens all whole runs are skipped: the first token comes as after the rest alone."""
    engine = engine_of()
    first = serve(engine, 0.0, 20_000)
    second = serve(engine, 200.0, 20_000)
    cost = ENGINE_MODEL.cost(FLASH_ATTN, engine.condition)
    done = 39 * PREFIX_TOKENS

    assert second.first_token_s == pytest.approx(200.0 + cost.step_s(0, 0, [(done, 20_000 - done)]))
    assert (first.first_token_s or 0.0) > 10 * ((second.first_token_s or 0.0) - 200.0)
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (40_000, done)
    assert engine.counters.prompt_tokens == 40_000


@pytest.mark.parametrize(("prompt", "hit"), [(511, 0), (512, 0), (513, 512), (1024, 512), (1025, 1024)])
def test_at_least_one_token_is_computed(prompt: int, hit: int) -> None:
    """A prompt that is cached to its end is not answered without a step."""
    engine = engine_of()
    serve(engine, 0.0, 2000)
    serve(engine, 200.0, prompt)

    assert hit == engine.counters.prefix_hits


def test_prompts_part_where_their_names_do() -> None:
    """What follows another beginning is not shared, whatever it is called."""
    engine = engine_of()
    serve(engine, 0.0, 4000, (1, 2, 3, 4))
    for prefix, runs in (((1, 2, 9, 4), 2), ((7, 2, 3, 4), 0), ((1, 2, 3, 4), 4), ((1,), 1), ((), 0)):
        before = engine.counters.prefix_hits
        serve(engine, 200.0 * (2 + len(prefix)), 4000, prefix)

        assert runs * PREFIX_TOKENS == engine.counters.prefix_hits - before


def test_without_a_cache_nothing_is_asked_and_nothing_shared() -> None:
    """Off, prefixes change neither times nor counters."""
    plain, named = engine_of(cached=False), engine_of(cached=False)
    ends = [
        [serve(engine, at_s, 5000, prefix).finished_s for at_s in (0.0, 200.0)]
        for engine, prefix in (
            (plain, ()),
            (named, NAMES),
        )
    ]

    assert ends[0] == ends[1]
    assert (named.counters.prefix_queries, named.counters.prefix_hits) == (0, 0)
    assert named.batch.cache is None


def test_shared_blocks_are_held_once_and_free_when_nobody_uses_them() -> None:
    """Two requests over the same 10,000 tokens hold them once; after their end the cache counts as free."""
    engine = engine_of()
    serve(engine, 0.0, 10_100)
    for id_ in range(2):
        engine.submit(replace(ask(id_, prompt=10_100, output=400), prefix=NAMES), 200.0)
    engine.begin(200.0)
    engine.run(200.5, lambda _: None)
    batch = engine.batch
    generated = {item.generated_at(batch.tick) for item in batch}
    own = blocks_for(10_100 + generated.pop() - 1) - 19 * RUN_BLOCKS

    assert generated == set()
    assert batch.kv.used == 19 * RUN_BLOCKS + 2 * own
    engine.run(400.0, lambda _: None)

    assert engine.batch.kv.used == 0
    assert engine.batch.cache is not None
    assert engine.batch.cache.unused == 19


def test_the_longest_unused_go_first_and_the_end_of_a_prefix_before_its_beginning() -> None:
    """With room for six runs, a third prompt takes it from the first, from its end on."""
    engine = engine_of(with_blocks(6 * RUN_BLOCKS))
    serve(engine, 0.0, 3 * PREFIX_TOKENS, (1, 2, 3), output=1)
    serve(engine, 200.0, 3 * PREFIX_TOKENS, (4, 5, 6), output=1)
    serve(engine, 400.0, 2 * PREFIX_TOKENS, (7, 8), output=1)
    cache = engine.batch.cache

    assert cache is not None
    assert [len(cache.match(names, 10**6)) for names in ((1, 2, 3), (4, 5, 6), (7, 8))] == [1, 3, 2]


def test_what_two_compute_at_once_is_kept_once() -> None:
    """Both compute it, the first one's copy stays, and the other's is given back with it."""
    engine = engine_of()
    for id_ in range(2):
        engine.submit(replace(ask(id_, prompt=3000, output=5), prefix=NAMES), 0.0)
    engine.begin(0.0)
    engine.run(100.0, lambda _: None)

    assert engine.counters.prefix_hits == 0
    assert engine.batch.kv.used == 0
    assert engine.batch.cache is not None
    assert engine.batch.cache.unused == 5


def test_a_preempted_request_finds_its_own_prompt_again() -> None:
    """It computes only what its cache has lost; queries count each request once."""
    engine = engine_of(with_blocks(300))
    for id_ in range(2):
        request = replace(ask(id_, prompt=2100, output=500), prefix=tuple(10 * id_ + run for run in range(4)))
        engine.submit(request, 0.0)
    engine.begin(0.0)
    finished: list[Sequence] = []
    engine.run(1000.0, finished.extend)

    assert sum(item.preemptions for item in finished) == engine.counters.preemptions > 0
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (4200, 0)
    assert [item.generated for item in finished] == [500, 500]


def test_a_restart_empties_the_cache() -> None:
    """The new incarnation has seen nothing."""
    engine = engine_of()
    serve(engine, 0.0, 3000)
    engine.restart({}, 200.0)
    engine.relaunch()
    serve(engine, 300.0, 3000)

    assert engine.counters.prefix_hits == 0


def test_runs_in_use_are_never_forgotten() -> None:
    """However little is free, only what nobody holds goes."""
    kv = PagedKv(4 * RUN_BLOCKS)
    cache = PrefixCache(kv)
    held: list[Run] = []
    kv.take(2 * RUN_BLOCKS)
    cache.learn(held, (1, 2), 2 * PREFIX_TOKENS)
    cache.hold(held[:1])
    cache.release(held)
    kv.take(3 * RUN_BLOCKS)
    cache.trim()

    assert cache.match((1, 2), 10**6) == held[:1]
    assert (cache.unused, kv.free) == (0, 0)

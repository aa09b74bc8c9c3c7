"""Export and restore: no pickle, bit-equal continuation, and damage is refused in a sentence."""

import gzip
import json

import pytest
from hypothesis import given, settings, strategies as st

from flyball_controller.machine import PartitionState, standard_seams, step
from flyball_controller.machine.export import OLDEST_SCHEMA, SCHEMA, export_state, restore_state
from flyball_core.errors import Rejected
from flyball_core.outputs import CheckpointDue, Output
from harness.scripted_engine import Load
from harness.scripted_pool import LOG_ID, POLICY, EventLog, ScriptedPool, scripted_pool

QUICK = (
    POLICY
    + """\
variants: {regimes: {interactive: graphs, long_context: splitkv}, relaunch: [long_context], settle: 5s}
guard: {restart_dwell: 30s, canary: 10s, canary_tolerance: 50%}
"""
)


def lively(loads: list[tuple[float, float]], slow_engine: int, seconds: int) -> ScriptedPool:
    """A pool through changing loads, with a slow engine, relaunches and a takeover."""
    pool = scripted_pool(
        policy=QUICK,
        load=lambda now: Load(
            concurrency=loads[int(now // 20) % len(loads)][0], context_tokens=loads[int(now // 20) % len(loads)][1]
        ),
    )
    list(pool.engines.values())[slow_engine].slowness = 2.0
    pool.relaunch_s = 15.0
    pool.run(seconds // 2)
    pool.claim("c2")
    pool.run(seconds - seconds // 2)
    return pool


def checkpoints(log: EventLog) -> list[int]:
    """The offsets at which the state was fit to be exported."""
    return [output.revision for output in log.outputs if isinstance(output, CheckpointDue)]


def continued(log: EventLog, at: int) -> tuple[list[Output], bytes, list[Output], bytes]:
    """Outputs after `at` and the last state: straight through, and restored at `at`."""
    states, answers = [], []
    for restoring in (False, True):
        state, seams, outputs = PartitionState(log_id=LOG_ID, partition=0), standard_seams(), list[Output]()
        for item in log.inputs:
            made = step(state, item, seams)
            if item.offset > at:
                outputs.extend(made)
            if restoring and item.offset == at:
                state, seams = restore_state(export_state(state), SCHEMA), standard_seams()
        states.append(export_state(state))
        answers.append(outputs)
    return answers[0], states[0], answers[1], states[1]


@settings(max_examples=12, deadline=None)
@given(
    loads=st.lists(
        st.tuples(st.sampled_from([0.0, 30.0, 200.0, 600.0]), st.sampled_from([300.0, 2000.0, 9000.0])),
        min_size=1,
        max_size=5,
    ),
    slow_engine=st.integers(0, 3),
    which=st.integers(0, 2),
)
def test_restore_then_continue_is_bit_equal(loads: list[tuple[float, float]], slow_engine: int, which: int) -> None:
    """At any checkpoint of any course: the same outputs and the same bytes of state as without a restore."""
    log = lively(loads, slow_engine, 200).log
    straight, state, restored, state_restored = continued(log, checkpoints(log)[which])

    assert straight == restored
    assert state == state_restored


def test_the_suite_restores_in_the_middle_of_everything() -> None:
    """The courses have relaunches, canaries, pending frames and outcomes, so the test above is no empty one."""
    pool = lively([(120.0, 9000.0)], 0, 150)
    state = pool.state.pools["chat"]

    assert any("splitkv" in str(d.summary) for d in pool.log.decisions())
    assert any(boot.pending for agent in state.agents.values() for boot in agent.boots.values())
    assert state.memory
    assert state.detector


def test_the_same_state_gives_the_same_bytes() -> None:
    """Exporting twice, and exporting what was restored, gives equal bytes."""
    state = lively([(300.0, 2000.0)], 1, 60).state
    payload = export_state(state)

    assert payload == export_state(state)
    assert payload == export_state(restore_state(payload, SCHEMA))


@pytest.fixture(scope="module")
def payload() -> bytes:
    """An exported state."""
    return export_state(lively([(300.0, 2000.0)], 1, 30).state)


def test_every_truncation_is_refused(payload: bytes) -> None:
    """A payload cut short anywhere is `Rejected`, never another exception."""
    for end in range(0, len(payload), 7):
        with pytest.raises(Rejected):
            restore_state(payload[:end], SCHEMA)


def test_every_flipped_bit_is_refused(payload: bytes) -> None:
    """One bit changed anywhere is `Rejected`: the payload carries a checksum of its own."""
    for at in range(0, len(payload), 5):
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        try:
            found = restore_state(bytes(damaged), SCHEMA)
        except Rejected:
            continue
        assert payload == export_state(found)  # a bit of the stream's padding


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"7",
        b'{"$c":"PartitionState","v":{}}',
        b'{"$c":"PartitionState","v":{"x":1}}',
        b'{"$c":"os","v":{}}',
        b'{"$c":[],"v":{}}',
        b'{"$c":"Holding","v":7}',
        b'{"$c":"Holding"}',
        b'{"$d":7}',
        b'{"$d":[[{"$d":[]},1]]}',
        b'{"$n":"Frame","v":[1]}',
        b'{"$e":"Mode","v":"reign"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_what_is_no_state_is_refused(content: bytes) -> None:
    """Sound compression around nonsense is `Rejected` in a sentence."""
    with pytest.raises(Rejected):
        restore_state(gzip.compress(content), SCHEMA)


@pytest.mark.parametrize(("schema", "words"), [(SCHEMA + 1, "newer Flyball"), (OLDEST_SCHEMA - 1, "too old")])
def test_another_schema_is_refused_with_its_number(payload: bytes, schema: int, words: str) -> None:
    """A state of another schema is not guessed at; the refusal says which way it is off."""
    with pytest.raises(Rejected, match=words) as refused:
        restore_state(payload, schema)

    assert f"schema {schema}" in str(refused.value)


def test_what_has_no_place_in_a_state_cannot_be_exported() -> None:
    """A policy that remembers an object is found out at export, by the object's type."""
    state = PartitionState(log_id=LOG_ID, partition=0)
    pool = scripted_pool()
    pool.state.pools["chat"].memory["p"] = {"thing": object()}

    with pytest.raises(Rejected, match="object"):
        export_state(pool.state)
    assert json.loads(gzip.decompress(export_state(state)))

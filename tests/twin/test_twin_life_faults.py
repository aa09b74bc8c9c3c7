"""What goes wrong with a scenario's control plane: telemetry stays away, clocks are off, engines are gone."""

from pathlib import Path

import pytest

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import Verdict, replay_log
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_log.interface import Topic
from flyball_proto.codec import decode_audit
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.governed.life import GOVERNED
from flyball_twin.governed.nodes import GPUS_PER_NODE, NodeFaults, check_node_faults, nodes_of
from flyball_twin.scenario.model import EnginePlan, PoolPlan
from harness.invariants import check_log
from life_parts import TWO_POOLS, Lived, live, scenario


async def alarms(lived: Lived) -> list[tuple[float, str, str]]:
    """Time, pool and words of every alarm of the governed fleet."""
    records = [decode_audit(value or b"") for value in await lived.written(Topic.DECISIONS)]
    return [
        (record.time_s, record.pool, record.summary)
        for record in records
        if isinstance(record, DecisionRecord) and record.kind is RecordKind.ALARM and record.pool in ("chat", "answers")
    ]


async def sound(lived: Lived) -> bool:
    """Whether the log replays identically and breaks no promise."""
    report = await replay_log(lived.log, standard_seams, own_fingerprint())
    return report.verdict is Verdict.IDENTICAL and not (await check_log(lived.log)).all


async def test_frames_of_a_loss_arrive_late_and_none_is_lost(tmp_path: Path) -> None:
    """A node that reaches no log leaves its pool stale; what it spooled comes late, and all of it is counted."""
    loss = "faults:\n  - {telemetry_loss: left, from: 20s, to: 60s}\n"
    lived = await live(scenario(extra=loss), tmp_path / "loss")
    stale = [at_s for at_s, pool, words in await alarms(lived) if pool == "chat" and words.startswith("stale")]

    assert lived.frames.sent == lived.frames.delivered
    assert lived.frames.late >= 2 * 2 * 30  # both pools' frames of both fleets' left node, but for the newest
    assert lived.frames.spooled == 0
    assert any(20.0 < at_s < 60.0 for at_s in stale)
    assert await sound(lived)


async def test_a_loss_that_never_ends_leaves_its_frames_on_the_node(tmp_path: Path) -> None:
    """They are counted as never sent, and no frame that was sent is missing."""
    loss = "faults:\n  - {telemetry_loss: right, from: 50s}\n"
    lived = await live(scenario(extra=loss), tmp_path / "for-good")

    assert lived.frames.spooled >= 2 * 49
    assert lived.frames.sent == lived.frames.delivered
    assert await sound(lived)


async def test_a_clock_that_is_off_moves_no_knob(tmp_path: Path) -> None:
    """Wall time is for expiry and display: with a node's clock half an hour ahead every change is the same."""
    skew = "faults:\n  - {clock_skew: left, skew: 30min, from: 20s, to: 60s}\n"
    right, off = await live(scenario(), tmp_path / "right"), await live(scenario(extra=skew), tmp_path / "off")

    def made(lived: Lived) -> list[tuple[object, ...]]:
        return [(c.target, c.knob, c.old, c.new, c.decided_at_s, c.acked_at_s) for c in lived.life.observed.changes]

    assert made(right)
    assert made(right) == made(off)
    assert any("clock_skew" in words for _, _, words in await alarms(off))
    assert not await alarms(right)
    assert await sound(off)


async def test_an_engine_that_dies_comes_back_under_control(tmp_path: Path) -> None:
    """Its receiver goes with it; after its cold start another attaches, and the engine is told again what to hold."""
    text = TWO_POOLS.replace("node: left}", "node: left, cold_start: 10s}")
    lived = await live(scenario(text, "faults:\n  - {dead: engine-1, from: 40s, to: 50s}\n"), tmp_path / "dead")
    engine = lived.life.fleets[GOVERNED].fleet.engines[EngineId("engine-1")]
    held = [c for c in lived.life.observed.changes if c.target == "engine-1" and c.decided_at_s > 60.0]

    assert engine.ready
    assert engine.incarnation == "engine-1-2"
    assert any(change.acked_at_s is not None for change in held)
    assert engine.max_batched_tokens < 8192
    assert await sound(lived)


def plan(name: str, node: str = "", gpus: int = 1) -> EnginePlan:
    """An engine on a node."""
    return EnginePlan(
        engine=EngineId(name), gpu="h100_sxm", model="qwen3-14b", variant="graphs", node=node, tensor_parallel=gpus
    )


def test_engines_that_name_no_node_fill_nodes_in_their_order() -> None:
    """As many as fit share a node; one that is larger has its own; named nodes keep theirs, over pools too."""
    first = PoolPlan(pool=PoolId("a"), engines=(plan("a0"), plan("a1"), plan("a2", "rack")), lanes=())
    second = PoolPlan(pool=PoolId("b"), engines=(plan("b0"), plan("b1", gpus=4), plan("b2", "rack", 2)), lanes=())
    found = {node.name: [(place.engine, place.gpus) for place in node.places] for node in nodes_of([first, second])}

    assert GPUS_PER_NODE == 2
    assert found == {
        "node-0": [("a0", (0,)), ("a1", (1,))],
        "rack": [("a2", (0,)), ("b2", (1, 2))],
        "node-1": [("b0", (0,))],
        "node-2": [("b1", (0, 1, 2, 3))],
    }


def test_faults_of_nodes_hold_while_they_last() -> None:
    """From their beginning up to their end; skews that overlap add up."""
    faults = [
        Fault(kind=FaultKind.TELEMETRY_LOSS, target="n", from_s=10.0, to_s=20.0),
        Fault(kind=FaultKind.CLOCK_SKEW, target="n", from_s=0.0, to_s=15.0, skew_s=-3.0),
        Fault(kind=FaultKind.CLOCK_SKEW, target="n", from_s=12.0, to_s=30.0, skew_s=5.0),
        Fault(kind=FaultKind.CLOCK_SKEW, target="other", from_s=0.0, to_s=30.0, skew_s=100.0),
    ]
    mine = NodeFaults("n", faults)

    assert [False, True, True, False] == [mine.cut_off(at_s) for at_s in (9.9, 10.0, 19.9, 20.0)]
    assert [-3.0, 2.0, 5.0, 0.0] == [mine.skew_s(at_s) for at_s in (0.0, 12.0, 15.0, 30.0)]


def test_a_fault_of_no_node_is_refused() -> None:
    """It says which nodes there are."""
    nodes = nodes_of([PoolPlan(pool=PoolId("a"), engines=(plan("a0"),), lanes=())])
    with pytest.raises(Rejected, match="strikes 'left', which is no node; there is node-0"):
        check_node_faults(nodes, [Fault(kind=FaultKind.TELEMETRY_LOSS, target="left", from_s=0.0, to_s=1.0)])

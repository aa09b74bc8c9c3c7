"""The JSON documents of docs/commands.md are what the commands print."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_cli import bench_spine
from flyball_cli.bench_fleet import POLICY
from flyball_core.frames import Frame
from recorded_logs import GATEWAY, SLOW, bodies_of, spoiled

Flyball = Callable[..., Answer]


def test_replay(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """Identical, different and damaged replays print the documented documents."""
    frame = next(offset for offset, body in enumerate(bodies_of(recorded)) if isinstance(body, Frame))
    different = spoiled(recorded, tmp_path / "different", frame, 999, crc=True)
    damaged = spoiled(recorded, tmp_path / "damaged", frame, 999, crc=False)

    same_shape("replay", flyball("replay", recorded, "--json").document)
    same_shape("replay", flyball("replay", different, "--json").document)
    same_shape("replay-damaged", flyball("replay", damaged, "--json").document)


def test_replay_policy(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """So does a comparison of policies."""
    (tmp_path / "policy.yaml").write_text(POLICY)

    same_shape("replay-policy", flyball("replay", recorded, "--policy", tmp_path / "policy.yaml", "--json").document)


def test_explain(flyball: Flyball, recorded: Path) -> None:
    """So do explanations of an engine, a gateway and a decision."""
    engine = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "100").document

    same_shape("explain-engine", engine)
    same_shape("explain-gateway", flyball("explain", GATEWAY, "--log", recorded, "--json").document)
    decision = engine["changes"][0]["decision"]
    same_shape("explain-decision", flyball("explain", decision, "--log", recorded, "--json").document)


def test_bench(flyball: Flyball, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the bench, except that a home that was not asked for is null."""
    monkeypatch.setattr(bench_spine, "NODES", 1)
    monkeypatch.setattr(bench_spine, "TICKS", 65)

    same_shape("bench-spine", flyball("bench", "spine", "--json", "--seconds", "0", "--kafka", "off").document)


def test_topics(flyball: Flyball, kafka_broker: str) -> None:
    """So do both verbs on topics."""
    where = f"kafka://{kafka_broker}/cli-{uuid.uuid4()}"

    same_shape("topics-create", flyball("topics", "create", where, "--partitions", "1", "--dev", "--json").document)
    same_shape("topics-check", flyball("topics", "check", where, "--json").document)

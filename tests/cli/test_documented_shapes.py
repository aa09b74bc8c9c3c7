"""The JSON documents of docs/commands.md are what the commands print."""

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_calls import Answer, shape
from flyball_cli import bench_spine
from flyball_cli.bench_fleet import POLICY
from flyball_core.frames import Frame
from recorded_logs import GATEWAY, SLOW, bodies_of, spoiled

Flyball = Callable[..., Answer]

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
_OPEN = frozenset(
    {"features", "effective", "before", "after", "changes_per_knob", "stopped", "settings", "stopped_by_rule"}
)
"""Keys under which there are names of the operator's own: of knobs, features, rules, targets."""


def documented(name: str) -> Any:
    """The example of that name in the document."""
    found = re.search(rf"<!-- shape: {name} -->\n```json\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, f"docs/commands.md documents no {name}"
    return json.loads(found[1])


def same_shape(name: str, printed: Any) -> None:
    """Assert that what was printed has the documented keys, no more and no fewer, wherever both have entries."""
    wanted, found = shape(documented(name), _OPEN), shape(printed, _OPEN)

    _compare(wanted, found, name)


def _compare(wanted: Any, found: Any, where: str) -> None:
    if isinstance(wanted, list) and isinstance(found, list):
        _compare(wanted[0], found[0], f"{where}[]")
    elif isinstance(wanted, dict) and isinstance(found, dict):
        assert wanted.keys() == found.keys(), where
        for key in wanted:
            _compare(wanted[key], found[key], f"{where}.{key}")
    else:
        assert not isinstance(found, dict) or wanted is not None, f"{where} is documented as plain"


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

"""The examples of JSON documents on the page of commands, and whether what is printed has their shape."""

import json
import re
from pathlib import Path
from typing import Any

from cli_calls import shape

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
_OPEN = frozenset(
    {
        "features",
        "effective",
        "before",
        "after",
        "changes_per_knob",
        "stopped",
        "settings",
        "stopped_by_rule",
        "counts",
        "meaning",
        "frame_to_ack_ms",
        "assumed",
        "regime_s",
        "unfinished",
        "left_out",
        "ttft_left_out",
    }
)
"""Keys under which there are names of the operator's own: knobs, features, rules, targets; or what occurred."""


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

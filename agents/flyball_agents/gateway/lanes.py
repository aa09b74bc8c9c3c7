"""Which lane a request belongs to: what its header says, or its body's `service_tier`, or the first lane.

Pure. It reads no more of a body than its beginning, and trusts none of it: what names no lane
counts as not said. It never parses a value that it does not need beyond what JSON's grammar asks.
"""

import json
import re
from collections.abc import Sequence

from flyball_core.outputs import LaneRule

LANE_HEADER = "x-flyball-lane"
"""The header that names a lane."""

BODY_BYTES = 65_536
"""How much of a body is looked at for `service_tier`; beyond it only the header can tell."""

_TIER = "service_tier"
_BLANK = re.compile(r"\s*")
_UNREADABLE = (ValueError, RecursionError)
_decoder = json.JSONDecoder()


def lane_of(header: str | None, body: bytes, rules: Sequence[LaneRule]) -> str:
    """The lane of a request; `rules` are the lanes there are, in their order, at least one.

    A tier may be a lane's name; else `priority` means the most urgent lane and `flex` the least.
    """
    known = {rule.lane for rule in rules}
    if header is not None and header.strip() in known:
        return header.strip()
    tier = service_tier(body[:BODY_BYTES])
    if tier in known:
        return tier
    if tier == "priority":
        return min(rules, key=lambda rule: rule.priority).lane
    if tier == "flex":
        return max(rules, key=lambda rule: rule.priority).lane
    return rules[0].lane


def service_tier(beginning: bytes) -> str:
    """The value of `service_tier` at the top of a JSON object that begins like this; empty if it is not there."""
    text = beginning.decode(errors="ignore")  # a cut may lie within a character
    at = _past(text, _blank(text, 0), "{")
    try:
        while at >= 0:
            key, at = _decoder.raw_decode(text, _blank(text, at))
            at = _past(text, _blank(text, at), ":")
            if at < 0:
                break
            value, at = _decoder.raw_decode(text, _blank(text, at))
            if key == _TIER:
                return value if isinstance(value, str) else ""
            at = _past(text, _blank(text, at), ",")
    except _UNREADABLE:  # the end of what was looked at, or no JSON
        return ""
    return ""


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _past(text: str, at: int, sign: str) -> int:
    return at + 1 if text.startswith(sign, at) else -1

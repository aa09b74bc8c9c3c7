"""Whether an operator's order is worth putting on record: what no owner could ever follow is refused at the door.

What an owner has to judge (bounds, whether an engine has that knob, a document's content) is judged by the
owner, so that its refusal is on record as well.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from flyball_controller.machine.admission import MAX_NAME
from flyball_controller.machine.answers import LARGEST_NUMBER
from flyball_core.errors import Rejected
from flyball_core.inputs import Order, OverrideClear, OverrideSet, PolicyText, Rebase

Said = OverrideSet | OverrideClear | PolicyText | Order | Rebase
"""What an operator may say."""

SaidT = TypeVar("SaidT", OverrideSet, OverrideClear, PolicyText, Order, Rebase)

MAX_REASON = 1_000
"""Longest reason and longest text value, in characters."""


def signed(said: Said, certified: str | None) -> Said:
    """The order under its author's name: the certificate's; on plaintext the one that it names."""
    return said if certified is None else replace(said, author=certified)


def check_order(said: Said, wall_s: float) -> None:
    """Raise `Rejected` with what would be right, if no owner could follow this."""
    if not said.author:
        raise Rejected("an order names its author; on plaintext the request does")
    for what, name in _names(said):
        if len(name) > MAX_NAME:
            raise Rejected(f"{what} of {len(name)} characters; the most is {MAX_NAME}")
        if not name.isprintable():
            raise Rejected(f"{what} holds characters that cannot be printed")
    reason = getattr(said, "reason", "")
    if len(reason) > MAX_REASON:
        raise Rejected(f"a reason of {len(reason)} characters; the most is {MAX_REASON}")
    if isinstance(said, OverrideSet):
        _check_override(said, wall_s)
    elif isinstance(said, OverrideClear) and not said.override_id:
        raise Rejected("name the override that is to be lifted")
    elif isinstance(said, PolicyText) and not said.text.strip():
        raise Rejected("a policy document is not empty")
    elif isinstance(said, Order) and said.mode is None and said.paused is None and said.reset_policy is None:
        raise Rejected("an order says a mode, paused or not, or a policy to be allowed again")


def _names(said: Said) -> Iterator[tuple[str, str]]:
    yield "a pool's name", said.pool
    yield "an author's name", said.author
    if isinstance(said, (OverrideSet, Rebase)):
        yield "a target's name", said.target
    if isinstance(said, OverrideSet):
        yield "a knob's name", said.knob
    if isinstance(said, (OverrideSet, OverrideClear)):
        yield "an override's id", said.override_id
    if isinstance(said, Order):
        yield "a policy's name", said.reset_policy or ""


def _check_override(said: OverrideSet, wall_s: float) -> None:
    if not said.override_id or not said.knob:
        raise Rejected("an override has an id and names a knob")
    value = said.value
    if isinstance(value, str):
        if len(value) > MAX_REASON:
            raise Rejected(f"a value of {len(value)} characters; the most is {MAX_REASON}")
    elif not abs(value) < LARGEST_NUMBER:  # refuses NaN too
        raise Rejected(f"{said.knob} cannot be pinned at {value}")
    if not math.isfinite(said.expires_wall_s):
        raise Rejected("an override expires at a time, in Unix seconds")
    if said.expires_wall_s <= wall_s:
        raise Rejected(f"it would have expired already, {wall_s - said.expires_wall_s:.0f} s ago")

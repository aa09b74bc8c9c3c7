"""The seam between policies and the controller: what a policy sees, and what it is.

A policy sees a `PoolView`: one pool at one tick, one row per engine, missing as NaN.
It answers with proposals and keeps what it must remember in `memory`, which is plain
JSON-like data, because the controller exports and restores it. It reads no clock, draws
no random number that is not derived from its memory, and moves nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball_core.inputs import Proposal
from flyball_policies.document import PolicyDocument

Column = NDArray[np.float64]
"""One number per engine, in the order of `PoolView.engines`; NaN where missing."""

Memory = dict[str, Any]
"""What a policy remembers between ticks: None, bool, int, float, str, and lists and dicts of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool at one tick.

    `columns` holds what was measured (see `controller`'s `features` for names and units);
    `settings` what each engine is wanted to hold, per numeric knob, `ceilings` and `floors`
    the bounds of the same knobs. `usable` marks the engines that serve and have fresh
    telemetry: nothing may be learned from the others.
    """

    pool: str
    time_s: float
    regime: str
    confidence: float
    regime_age_s: float
    engines: tuple[str, ...]
    variants: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    """Per engine the variants it can be relaunched in; empty if it cannot."""
    usable: NDArray[np.bool_]
    columns: Mapping[str, Column]
    settings: Mapping[str, Column]
    floors: Mapping[str, Column]
    ceilings: Mapping[str, Column]
    features: Mapping[str, float]
    """The pool's features; a name is absent where nothing was measured."""
    document: PolicyDocument


class Policy(Protocol):
    """A proposer. `name` identifies it in records, memory and quarantine."""

    @property
    def name(self) -> str:
        """The policy's name, unique among those in use."""
        ...

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """What this policy would change now; an empty list if nothing."""
        ...

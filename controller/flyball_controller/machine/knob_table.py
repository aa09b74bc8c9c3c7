"""What the engines of a pool can be set to, as columns: worked out anew only when that changes.

Engines say what they can do when they attach, and operators bound it with a document; both
are rare, and going through all of it at every tick is not cheap. The table is no part of
the state: it follows from the state, and a machine that was restored makes its own.
"""

import math
from dataclasses import dataclass

import numpy as np

from flyball_controller.machine.guard import bounds_of
from flyball_controller.machine.state import EngineState
from flyball_core.knobs import VARIANT, KnobKind, KnobSpec
from flyball_policies.document import PolicyDocument
from flyball_policies.seam import Column

_NUMERIC = (KnobKind.INTEGER, KnobKind.REAL)


@dataclass(slots=True)
class KnobTable:
    """The bounds of every numeric knob by engine (NaN where it has none), and the variants of each.

    The columns are read-only: they are given to policies, tick after tick.
    """

    document: PolicyDocument
    knobs: list[dict[str, KnobSpec]]
    """Of each engine: what the rest was made from."""
    floors: dict[str, Column]
    ceilings: dict[str, Column]
    choices: tuple[tuple[str, ...], ...]


def knob_table(engines: tuple[EngineState, ...], document: PolicyDocument, known: KnobTable | None) -> KnobTable:
    """The table of these engines under this document: `known`, if it is that already."""
    knobs = [engine.knobs for engine in engines]
    if known is not None and known.document is document and known.knobs == knobs:
        known.knobs = knobs  # equal ones may be other objects by now; the same ones compare at once
        return known
    table = KnobTable(
        document=document,
        knobs=knobs,
        floors={},
        ceilings={},
        choices=tuple([spec.choices if (spec := each.get(VARIANT)) is not None else () for each in knobs]),
    )
    for knob in sorted(set().union(*knobs)):
        specs = [each.get(knob) for each in knobs]
        if any(spec is not None and spec.kind in _NUMERIC for spec in specs):
            rows = [(math.nan, math.nan) if spec is None else bounds_of(spec, document) for spec in specs]
            bounds = np.array(rows, dtype=float).reshape(len(specs), 2)
            bounds.flags.writeable = False
            table.floors[knob], table.ceilings[knob] = bounds[:, 0], bounds[:, 1]
    return table


def held(engines: tuple[EngineState, ...], knob: str) -> Column:
    """What each engine is wanted to hold of a knob; NaN where it has no such number."""
    wanted = [engine.wanted.get(knob) if knob in engine.knobs else None for engine in engines]
    return np.array([math.nan if value is None or isinstance(value, str) else value for value in wanted], dtype=float)

"""What can be exchanged in the machine: policies, detector, regime namer.

A `Seams` belongs to one machine. It also holds what is no part of the state because it
follows from it: parts that cannot be exported (a detector's insides), and tables that are
kept only because they seldom change. A machine that was restored makes its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flyball_controller.machine.detector import ChangeDetector, MixDetector
from flyball_controller.machine.knob_table import KnobTable, knob_table
from flyball_controller.machine.regimes import RegimeNamer, RuleNamer
from flyball_controller.machine.state import EngineState, PoolState
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.document import PolicyDocument
from flyball_policies.seam import Policy
from flyball_policies.variants_map import VariantsMap
from flyball_policies.weights_speed import WeightsSpeed


@dataclass(frozen=True, slots=True)
class PolicySlot:
    """A policy that runs inside every tick, and the baseline that stands in when it fails."""

    policy: Policy
    baseline: Policy | None = None


@dataclass(slots=True)
class Seams:
    """The exchangeable parts of one machine."""

    slots: tuple[PolicySlot, ...]
    slow: tuple[str, ...] = ()
    """Names of policies that run outside `step`, on the snapshot of each tick."""
    namer: RegimeNamer = field(default_factory=RuleNamer)
    new_detector: Callable[[], ChangeDetector] = MixDetector
    detectors: dict[str, ChangeDetector] = field(default_factory=dict)
    knob_tables: dict[str, KnobTable] = field(default_factory=dict)

    def detector(self, pool: PoolState) -> ChangeDetector:
        """The pool's detector, made from its state where this machine has none yet."""
        found = self.detectors.get(pool.pool)
        if found is None:
            found = self.detectors[pool.pool] = self.new_detector()
            found.rebuild(pool.detector)
        return found

    def knob_table(self, pool: str, engines: tuple[EngineState, ...], document: PolicyDocument) -> KnobTable:
        """What these engines of the pool can be set to; worked out anew only where that has changed."""
        table = self.knob_tables[pool] = knob_table(engines, document, self.knob_tables.get(pool))
        return table


def standard_seams() -> Seams:
    """The parts a controller runs with unless told otherwise."""
    return Seams(slots=(PolicySlot(CapsAimd()), PolicySlot(WeightsSpeed()), PolicySlot(VariantsMap())))

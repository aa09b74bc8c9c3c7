"""What can be exchanged in the machine: policies, detector, regime namer.

A `Seams` belongs to one machine. It also holds the parts of them that cannot be exported
(a detector's insides), each rebuilt from the state when the machine is restored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flyball_controller.machine.detector import ChangeDetector, MixDetector
from flyball_controller.machine.regimes import RegimeNamer, RuleNamer
from flyball_controller.machine.state import PoolState
from flyball_policies.caps_aimd import CapsAimd
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

    def detector(self, pool: PoolState) -> ChangeDetector:
        """The pool's detector, made from its state where this machine has none yet."""
        found = self.detectors.get(pool.pool)
        if found is None:
            found = self.detectors[pool.pool] = self.new_detector()
            found.rebuild(pool.detector)
        return found


def standard_seams() -> Seams:
    """The parts a controller runs with unless told otherwise."""
    return Seams(slots=(PolicySlot(CapsAimd()), PolicySlot(WeightsSpeed()), PolicySlot(VariantsMap())))

"""Motion to safe defaults under slew limits, when nobody governs.

Numbers only, and only live and routing ones: a choice or a flag has no half-way, and a
relaunch is not for a receiver to decide. It sets nothing itself; it says what to set.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from flyball_agents.offers import unfit
from flyball_agents.surface import Surface
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting, Value

_STEP_S = 1.0  # most time one step moves for, so that a receiver not polled for long does not jump


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverLimits:
    """How long to hold and how fast to ease."""

    hold_s: float | None = 1800.0
    """The lease from each renewal; None holds for ever. A heartbeat may ask for less, never for more."""
    slew_up_per_s: float = 1.5
    """A value that grows is multiplied by at most this in a second (or grows by its least step)."""
    slew_down_per_s: float = 0.6
    """The same for one that shrinks."""
    ease_jitter_s: float = 0.5
    """Easing starts up to this late, each target at a moment of its own."""


class Phase(Enum):
    """What `poll` found; the caller attaches anew when it changes, so that the owner learns of it."""

    HOLDING = "holding"
    EASING = "easing"
    EASED = "eased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to set now. `arrived` says that every value already read back as safe."""

    moves: Setting
    places: Mapping[str, float]
    now_s: float
    arrived: bool


class Easing:
    """Where each knob stands on its way, unrounded, so that small steps add up."""

    def __init__(self, limits: ReceiverLimits) -> None:
        self._limits = limits
        self._places: Mapping[str, float] = {}
        self._now_s = -math.inf

    def stop(self) -> None:
        """Forget the way; the next step sets out from what is read back then."""
        self._places = {}

    def step(self, surface: Surface, was: Setting, now_s: float) -> Step:
        """The next step from the values `was`; the first one moves nothing but what is out of bounds."""
        elapsed_s = min(max(now_s - self._now_s, 0.0), _STEP_S)
        moves: dict[str, Value] = {}
        places: dict[str, float] = {}
        arrived = True
        for spec in surface.specs():
            value = was.get(spec.name)
            if value is None or not _movable(spec, value):
                continue
            goal = _place(surface, spec, spec.safe)
            at = self._places.get(spec.name)
            if at is None:
                at = _place(surface, spec, value)
            else:
                at = slewed(at, goal, least_step(spec) * elapsed_s, elapsed_s, self._limits)
            places[spec.name] = at
            arrived = arrived and value == spec.safe
            wanted = spec.safe if at == goal else _reached(spec, at, goal)
            if wanted != value:
                moves[spec.name] = wanted
        return Step(moves=moves, places=places, now_s=now_s, arrived=arrived)

    def made(self, step: Step) -> None:
        """The step was set: the next one goes on from there."""
        self._places, self._now_s = step.places, step.now_s


def slewed(at: float, goal: float, least: float, elapsed_s: float, limits: ReceiverLimits) -> float:
    """Where a value may stand `elapsed_s` later on its way to `goal`; it moves by `least` at any rate.

    Growing and shrinking are meant in magnitude, so that a negative value slews as a positive one does.
    """
    growing = abs(goal) > abs(at)
    share = limits.slew_up_per_s**elapsed_s - 1 if growing else 1 - limits.slew_down_per_s**elapsed_s
    room = max(abs(at) * share, least)
    return goal if abs(goal - at) <= room else at + math.copysign(room, goal - at)


def least_step(spec: KnobSpec) -> float:
    """What a knob may always move by in a second: 1 of an integer, a hundredth of a real one's range."""
    if spec.kind is KnobKind.INTEGER:
        return 1.0
    if spec.minimum is not None and spec.maximum is not None:
        return (spec.maximum - spec.minimum) / 100
    return max(abs(float(spec.safe)), 1.0) / 100


def _movable(spec: KnobSpec, value: Value) -> bool:
    number = spec.kind in (KnobKind.INTEGER, KnobKind.REAL) and spec.knob_class is not KnobClass.RESTART
    known = type(value) in (int, float) and math.isfinite(float(value))
    return number and known and unfit(spec, spec.safe) is None


def _place(surface: Surface, spec: KnobSpec, value: Value) -> float:
    """A value on the scale that easing moves along: a zero that means "no limit" stands at its top."""
    if value == 0 and spec.maximum is not None and surface.zero_is_none(spec.name):
        return spec.maximum
    return float(value)


def _reached(spec: KnobSpec, at: float, goal: float) -> Value:
    """The value to set at that place: within bounds, and rounded back towards where it came from."""
    low = spec.minimum if spec.minimum is not None else -math.inf
    high = spec.maximum if spec.maximum is not None else math.inf
    within = min(max(at, low), high)
    if spec.kind is KnobKind.REAL:
        return within
    whole = math.floor(within) if goal > at else math.ceil(within)
    return whole + (whole < low) - (whole > high)  # where a bound is no whole number

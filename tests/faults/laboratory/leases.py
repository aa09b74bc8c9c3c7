"""Judging leases: a receiver holds until its lease is out, and then eases, no faster than its slew, until it is safe.

From what receivers wrote down alone; those that write no leases are not judged.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping

from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Value
from laboratory.record import Applied, Eased, Record, Renewed
from laboratory.verdict import Answer

EARLY_S = 0.001
"""Rounding: easing never starts before the lease is out."""
LATE_S = 3.0
"""Easing starts up to a second late by jitter, and is looked at once a second."""
BEGINS, ENDS = "fault begins", "fault ends"
"""How a record tells of faults; the detail is the fault in words."""
SLEW_UP, SLEW_DOWN = 1.5, 0.6
"""Factors a second that the promise allows."""

Line = Renewed | Eased | Applied
_Specs = Mapping[str, Mapping[str, KnobSpec]]


def judge_leases(record: Record, specs: _Specs, gone: Collection[str], answer: Answer) -> None:
    """Judge each receiver that wrote down its leases; `gone` may be late with anything."""
    by_target: dict[str, list[Line]] = defaultdict(list)
    watched = {line.target for line in record.leases}
    applied = [line for line in record.applied if line.target in watched]
    for line in sorted([*record.leases, *applied], key=lambda one: one.at_s):
        by_target[line.target].append(line)
    times = [line.at_s for lines in (record.sampled, record.applied, record.leases, record.happened) for line in lines]
    end_s = max(times, default=0.0)
    for target, lines in by_target.items():
        _judge_holding(target, lines, answer)
        known = specs.get(target, {})
        _judge_motion(target, [line for line in lines if isinstance(line, Eased)], known, answer)
        if target not in gone:
            _judge_arrival(target, lines, known, record, end_s, answer)


def _judge_holding(target: str, lines: list[Line], answer: Answer) -> None:
    until_s: dict[str, float] = {}
    for line in lines:
        if isinstance(line, Renewed):
            until_s[line.incarnation] = line.until_s
        elif isinstance(line, Eased) and not line.off:
            left_s = until_s.get(line.incarnation, line.at_s) - line.at_s
            if left_s > EARLY_S:
                answer.unexpected.append(f"{target} eased at {line.at_s:.3f}, {left_s:.3f} s before its lease was out")


def _judge_motion(target: str, lines: list[Eased], specs: Mapping[str, KnobSpec], answer: Answer) -> None:
    """Each step goes towards the safe value, and no faster than the slew over the time since the step before."""
    last: Eased | None = None
    for line in lines:
        same = last is not None and last.incarnation == line.incarnation
        dt = min(max(line.at_s - last.at_s, 0.0), 1.0) if last is not None and same else 1.0
        last = line
        for name, value in line.values.items():
            spec, before = specs.get(name), line.before.get(name)
            if spec is None or before is None or not (_is_number(before) and _is_number(value)):
                continue
            if wrong := _misstep(spec, float(before), float(value), dt):
                answer.unexpected.append(f"{target} eased {name} {before} -> {value} at {line.at_s:.3f}: {wrong}")


def _misstep(spec: KnobSpec, before: float, value: float, dt: float) -> str:
    safe = float(spec.safe)
    if abs(value - safe) > abs(before - safe) + 1e-9:
        return f"away from its safe value {safe:g}"
    inside = (spec.minimum is None or before >= spec.minimum) and (spec.maximum is None or before <= spec.maximum)
    # What is read is rounded and the way is not: a whole number may stand up to one behind its place.
    slack = 1.0 if spec.kind is KnobKind.INTEGER else _range(spec) / 100 + 1e-9
    high = max(abs(before) + slack, (abs(before) + slack) * SLEW_UP**dt)
    low = min(abs(before) - slack, (abs(before) - slack) * SLEW_DOWN**dt)
    return "faster than its slew" if inside and not low - 1e-9 <= abs(value) <= high + 1e-9 else ""


def _range(spec: KnobSpec) -> float:
    if spec.minimum is not None and spec.maximum is not None:
        return spec.maximum - spec.minimum
    return max(abs(float(spec.safe)), 1.0)


def _judge_arrival(
    target: str, lines: list[Line], specs: Mapping[str, KnobSpec], record: Record, end_s: float, answer: Answer
) -> None:
    """Whenever its lease is out, a receiver must set out: what it holds and is not safe may not just stay.

    Unless it could not, because it stood still or was gone.
    """
    still = _stands_still(record, target)
    held: dict[str, Value] = {}
    for place, line in enumerate(lines):
        if not isinstance(line, Renewed):
            held |= line.values
            continue
        following = lines[place + 1 :]
        after_s = next((other.at_s for other in following if isinstance(other, Renewed)), end_s)
        due_s = line.until_s + LATE_S
        if after_s <= due_s or any(begin_s < due_s and line.at_s < over_s for begin_s, over_s in still):
            continue
        here = dict(held)
        moved = False
        for other in following:
            if isinstance(other, Renewed) or other.at_s > due_s:
                break
            here |= other.values
            moved = moved or isinstance(other, Eased) or other.incarnation != line.incarnation
        if moved:
            answer.recovered.append(f"{target} was left alone at {line.until_s:.3f} and eased towards its safe values")
        elif unsafe := [name for name, value in here.items() if _may_ease(specs.get(name), value)]:
            since = f"{LATE_S:g} s after its lease was out at {line.until_s:.3f}"
            answer.lost.append(f"{target} still held {', '.join(unsafe)}, {since}")


def _may_ease(spec: KnobSpec | None, value: Value) -> bool:
    """Whether a knob at this value is to be eased."""
    if spec is None or spec.knob_class is KnobClass.RESTART or spec.kind not in (KnobKind.INTEGER, KnobKind.REAL):
        return False
    return value != spec.safe


def _stands_still(record: Record, target: str) -> list[tuple[float, float]]:
    """From when until when a fault kept it from doing anything, by what was put on record of faults."""
    spans: list[tuple[float, float]] = []
    began_s: float | None = None
    for line in sorted(record.happened, key=lambda one: one.at_s):
        if line.target != target or not any(f" {kind} " in line.detail for kind in ("kill", "freeze", "corrupt")):
            continue
        if line.event == BEGINS:
            began_s = line.at_s
        elif line.event == ENDS and began_s is not None:
            spans.append((began_s, line.at_s + LATE_S))
            began_s = None
    return [*spans, (began_s, math.inf)] if began_s is not None else spans


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

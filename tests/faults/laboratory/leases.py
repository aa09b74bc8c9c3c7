"""Judging leases: a receiver holds until its lease is out, and then eases, no faster than its slew, until it is safe.

From what receivers wrote down alone; those that write no leases are not judged.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Value
from laboratory.record import Applied, Eased, Record, Renewed
from laboratory.verdict import Answer

EARLY_S = 0.001
"""Rounding: easing never starts before the lease is out."""
LATE_S = 3.0
"""Easing starts up to a second late by jitter, and is looked at once a second."""
SLEW_UP, SLEW_DOWN = 1.5, 0.6
"""Factors a second that the promise allows."""

_Specs = Mapping[str, Mapping[str, KnobSpec]]


def judge_leases(record: Record, specs: _Specs, gone: Collection[str], answer: Answer) -> None:
    """Judge each receiver that wrote down its leases; `gone` may be late with anything."""
    by_target: dict[str, list[Renewed | Eased | Applied]] = defaultdict(list)
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
            _judge_arrival(target, lines, known, end_s, answer)


def _judge_holding(target: str, lines: list[Renewed | Eased | Applied], answer: Answer) -> None:
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
    target: str, lines: list[Renewed | Eased | Applied], specs: Mapping[str, KnobSpec], end_s: float, answer: Answer
) -> None:
    """Once its lease is out, a receiver must set out: what it last held and is not safe may not just stay."""
    renewed = [line for line in lines if isinstance(line, Renewed)]
    if not renewed:
        return
    until_s = renewed[-1].until_s
    held: dict[str, Value] = {}
    for line in lines:
        if isinstance(line, (Applied, Eased)):
            held |= line.values
    unsafe = [
        name
        for name, value in held.items()
        if (spec := specs.get(name)) is not None
        and spec.knob_class is not KnobClass.RESTART
        and spec.kind in (KnobKind.INTEGER, KnobKind.REAL)
        and value != spec.safe
    ]
    moved_s = max((line.at_s for line in lines if isinstance(line, Eased)), default=until_s)
    if unsafe and end_s - max(moved_s, until_s) > LATE_S:
        since = f"{end_s - until_s:.1f} s after its lease was out at {until_s:.3f}"
        answer.lost.append(f"{target} still holds {', '.join(unsafe)}, {since}")
    elif lines and isinstance(lines[-1], Eased):
        answer.recovered.append(f"{target} was left alone and eased towards its safe values")


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

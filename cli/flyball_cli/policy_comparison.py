"""Two courses over the same telemetry side by side: what was decided, and what another document would have.

It is an open loop and says so: the telemetry is what the recorded settings made of it, so
nothing here tells what would have become of the fleet.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flyball_cli.wording import aligned, change, instant, tally
from flyball_controller.whatif import Change, Comparison, Course
from flyball_core.knobs import Value

SCHEMA = "flyball.replay-policy/1"
OPEN_LOOP = (
    "This is an open loop: the telemetry is as recorded, so it shows what would have been decided, not what would"
    " have become of it."
)
_SHOWN = 5


def comparison_document(where: str, file: Path, found: Comparison) -> dict[str, Any]:
    """The JSON document of a comparison."""
    return {
        "schema": SCHEMA,
        "log": where,
        "policy": str(file),
        "open_loop": True,
        "first_apart_s": found.first_apart_s,
        "recorded": _course_document(found.recorded),
        "other": _course_document(found.other),
    }


def _course_document(course: Course) -> dict[str, Any]:
    return {
        "changes_per_knob": _per_knob(course),
        "stopped": dict(sorted(course.stopped.items())),
        "regimes": [{"pool": pool, "from_s": at_s, "regime": name} for pool, at_s, name in course.regimes],
        "settings": {target: dict(sorted(course.settings[target].items())) for target in sorted(course.settings)},
        "changes": [asdict(one) for one in course.changes],
    }


def _per_knob(course: Course) -> dict[str, int]:
    return dict(sorted(Counter(one.knob for one in course.changes).items()))


def comparison_lines(file: Path, found: Comparison) -> list[str]:
    """The comparison in words and numbers."""
    recorded, other = found.recorded, found.other
    lines = [f"as recorded, and under {file}:", ""]
    mine, theirs = _per_knob(recorded), _per_knob(other)
    rows = [("changes of", "recorded", "other")]
    rows += [(knob, str(mine.get(knob, 0)), str(theirs.get(knob, 0))) for knob in sorted(mine.keys() | theirs.keys())]
    rows.append(("all knobs", str(len(recorded.changes)), str(len(other.changes))))
    lines += aligned(rows)
    lines += ["", "stopped by the guard"]
    lines += aligned([("recorded", tally(recorded.stopped)), ("other", tally(other.stopped))])
    lines += ["", *_apart(found)]
    lines += ["", *_regimes(recorded, other)]
    lines += ["", *_settings(recorded, other)]
    return [*lines, "", OPEN_LOOP]


def _apart(found: Comparison) -> list[str]:
    at_s = found.first_apart_s
    if at_s is None:
        return ["They never part: every change is the same."]
    lines = [f"They part at {instant(at_s)}:"]
    for name, course, beside in (("recorded", found.recorded, found.other), ("other", found.other, found.recorded)):
        known = {_identity(one) for one in beside.changes}
        alone = [one for one in course.changes if one.time_s == at_s and _identity(one) not in known]
        lines += [f"  {name}: {_change(one)}" for one in alone[:_SHOWN]]
        if len(alone) > _SHOWN:
            lines.append(f"  {name}: and {len(alone) - _SHOWN} more")
    return lines


def _identity(one: Change) -> tuple[float, str, str, Value | None]:
    return one.time_s, one.target, one.knob, one.new


def _change(one: Change) -> str:
    limited = "" if one.rule == "accepted" else f" (limited by {one.rule})"
    return f"{one.target} {one.knob} {change(one.old, one.new)}{limited}"


def _regimes(recorded: Course, other: Course) -> list[str]:
    if recorded.regimes == other.regimes:
        return [f"regimes, the same in both: {_course_of_regimes(recorded)}"]
    return [f"regimes recorded: {_course_of_regimes(recorded)}", f"regimes other:    {_course_of_regimes(other)}"]


def _course_of_regimes(course: Course) -> str:
    several = len({pool for pool, _, _ in course.regimes}) > 1
    named = [f"{pool + ' ' if several else ''}{name} from {instant(at_s)}" for pool, at_s, name in course.regimes]
    return ", ".join(named) or "none"


def _settings(recorded: Course, other: Course) -> list[str]:
    rows = [("last decided", "recorded", "other")]
    for target in sorted(recorded.settings.keys() | other.settings.keys()):
        mine, theirs = recorded.settings.get(target, {}), other.settings.get(target, {})
        rows += [
            (f"{target} {knob}", str(mine.get(knob, "-")), str(theirs.get(knob, "-")))
            for knob in sorted(mine.keys() | theirs.keys())
        ]
    return aligned(rows) if len(rows) > 1 else ["Neither decided any change."]

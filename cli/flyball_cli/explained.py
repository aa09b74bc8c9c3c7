"""The documents of `explanation` in words: what a person reads who asks why."""

from collections.abc import Mapping
from typing import Any

from flyball_cli.wording import aligned, calendar, change, feature, features, instant, quantity, seconds, tally

Document = Mapping[str, Any]
_INDENT = "      "


def document_lines(document: Document) -> list[str]:
    """The lines of any explanation."""
    if document["kind"] == "decision":
        return _decision(document)
    return _engine(document) if document["kind"] == "engine" else _gateway(document)


def _wall(document: Document) -> str:
    return calendar(document["wall_s"])


def _regime(document: Document) -> str:
    return f"{document['regime']} (confidence {document['confidence']:.0%})"


def _decision(found: Document) -> list[str]:
    when = f"at {instant(found['time_s'])} ({_wall(found)})"
    lines = [
        f"{found['decision']} of pool {found['pool']}, {when}, mode {found['mode']}, version {found['version']}",
        f"  {found['summary']}",
        f"Regime: {_regime(found)}",
    ]
    if found["features"]:
        lines += ["Seen:", *[f"  {line}" for line in features(found["features"])]]
    if found["proposals"]:
        lines.append("Proposed, and what the guard made of it:")
        for one in found["proposals"]:
            lines += _proposal(one)
    if found["published"]:
        lines += ["Published:", *[f"  {key}" for key in found["published"]]]
    lines += _acks(found["acks"])
    for one in found["others"]:
        lines.append(f"{one['kind']} at {instant(one['time_s'])}: {one['summary']}")
    lines += _outcome(found["outcome"], "")
    return lines


def _proposal(one: Document) -> list[str]:
    wanted = change(one["before"], one["wanted"])
    chance = "" if one["propensity"] == 1 else f", chosen with probability {one['propensity']:.2f}"
    lines = [f"  {one['policy']} wants {one['target']} {one['knob']} {wanted}: {one['reason']}{chance}"]
    if one["allowed"] is None:
        return [*lines, f"{_INDENT}stopped by {one['rule']}: {one['guard']}"]
    if one["allowed"] == one["wanted"]:
        return [*lines, f"{_INDENT}accepted: {one['guard']}"]
    return [*lines, f"{_INDENT}limited by {one['rule']} to {one['allowed']}: {one['guard']}"]


def _acks(acks: list[Document], indent: str = "") -> list[str]:
    return [
        f"{indent}Answer: {ack['said']}"
        + ("" if ack["latency_s"] is None else f", {_latency(ack['latency_s'])}")
        + f" (input {ack['input']})"
        for ack in acks
    ]


def _latency(latency_s: float) -> str:
    return "before the next tick" if latency_s <= 0 else f"{seconds(latency_s)} after the decision"


def _outcome(outcome: Document | None, indent: str) -> list[str]:
    if outcome is None:
        return []
    before, after = outcome["before"], outcome["after"]
    moved = [
        f"{feature(name, before[name])} -> {quantity(name, after[name]) if name in after else 'not measured'}"
        for name in before
    ]
    return [f"{indent}Outcome at {instant(outcome['time_s'])}: {'; '.join(moved) or 'nothing measured'}"]


def _head(found: Document) -> list[str]:
    lines = [f"{found['kind']} {found['name']} of pool {found['pool']}"]
    if found["time_s"] is not None:
        lines[0] += (
            f", as of {instant(found['time_s'])} ({_wall(found)}): mode {found['mode']}, regime {_regime(found)}"
        )
    told = found["told"]
    if told is None:
        return [*lines, "It was never told anything."]
    since = "" if told["since_s"] is None else f" at {instant(told['since_s'])}"
    return [*lines, f"Told last: version {told['version']}, by {told['decision']}{since}"]


def _engine(found: Document) -> list[str]:
    lines = _head(found)
    lines.append("Wanted now:")
    since = _since(found)
    rows = []
    for one in found["settings"]:
        if one["since_s"] is None:
            rows.append(
                (one["knob"], str(one["value"]), f"not changed{since}" if since else "as it was when it attached")
            )
        else:
            why = f"since {instant(one['since_s'])} by {one['decision']} ({one['policy']}: {one['reason']})"
            rows.append((one["knob"], str(one["value"]), why))
    lines += aligned(rows) or ["  nothing is known"]
    lines.append(_shown("Changes", len(found["changes"]), found["changes_in_all"]))
    for one in reversed(found["changes"]):
        lines += _change(one)
    lines.append(f"Stopped{since}: {tally(found['stopped_by_rule'])}")
    for one in reversed(found["stopped"]):
        lines.append(
            f"  {instant(one['time_s'])}  {one['knob']} {change(one['old'], one['wanted'])} by {one['rule']}:"
            f" {one['guard']} ({one['policy']}: {one['reason']}; {one['decision']})"
        )
    return lines + _alarms(found)


def _shown(what: str, shown: int, in_all: int | None) -> str:
    if in_all is None:
        return f"{what}, the last {shown}:"
    return f"{what}, {'all' if shown == in_all else 'the last'} {shown} of {in_all}:"


def _since(found: Document) -> str:
    """From when on the audit was read, unless all of it was."""
    return "" if found["read_from_s"] is None else f" since {instant(found['read_from_s'])}"


def _change(one: Document) -> list[str]:
    moved = f"{'' if one['done'] else 'would be '}{change(one['old'], one['new'])}"
    limited = "" if one["new"] == one["wanted"] else f", limited by {one['rule']} from {one['wanted']} ({one['guard']})"
    lines = [
        f"  {instant(one['time_s'])}  {one['knob']} {moved} ({one['decision']}){limited}",
        f"{_INDENT}why: {one['policy']}: {one['reason']}",
        f"{_INDENT}regime: {_regime(one)}",
        f"{_INDENT}seen: {'; '.join(features(one['features'])) or 'nothing'}",
    ]
    lines += _acks(one["acks"], _INDENT)
    return lines + _outcome(one["outcome"], _INDENT)


def _gateway(found: Document) -> list[str]:
    lines = [*_head(found), "Routes:"]
    rows = [
        (
            one["engine"],
            f"weight {one['weight']}",
            f"at most {one['in_flight_cap']} in flight" if one["in_flight_cap"] else "no cap",
        )
        for one in found["routes"]
    ]
    lines += aligned(rows) or ["  none"]
    lanes = [
        (one["lane"], f"priority {one['priority']}", f"waits {seconds(one['max_wait_s'])} at most")
        for one in found["lanes"]
    ]
    lines += ["Lanes:", *(aligned(lanes) or ["  none"])]
    lines.append(_shown("Tables", len(found["tables"]), found["tables_in_all"]))
    for one in reversed(found["tables"]):
        lines += [
            f"  {instant(one['time_s'])}  {one['summary']} ({one['decision']})",
            f"{_INDENT}regime: {_regime(one)}",
        ]
        lines += _acks(one["acks"], _INDENT)
    return lines + _alarms(found)


def _alarms(found: Document) -> list[str]:
    return [f"Alarm at {instant(one['time_s'])}: {one['summary']} ({one['decision']})" for one in found["alarms"]]

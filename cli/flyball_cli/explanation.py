"""What became of an engine, a gateway or a decision, as JSON documents with a documented shape.

The words of `explain` are made from these documents and from nothing else, so that a
reader of the JSON has all that a reader of the text has.
"""

from collections import Counter
from typing import Any

from flyball_cli.audit import Audit, Story, Target, about
from flyball_core.inputs import Mode, TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, WEIGHT
from flyball_core.outputs import DecisionRecord, Directive, RoutingTable, Verdict

SCHEMA = "flyball.explain/1"

_BEFORE = "_before"
_ROUTED = (WEIGHT, BATCH_CAP)
"""The knobs that gateways are told of as well."""


def decision_document(audit: Audit, story: Story) -> dict[str, Any]:
    """Everything recorded of one decision, order or alarm."""
    record = story.record or next(iter([*story.others, *story.acks]), None) or story.outcome
    assert record is not None  # a story begins with a record
    return {
        "schema": SCHEMA,
        "kind": "decision",
        "log": audit.where,
        "decision": story.decision,
        "pool": record.pool,
        "version": str(record.version),
        "time_s": record.time_s,
        "wall_s": record.wall_s,
        "mode": record.mode,
        "regime": record.regime,
        "confidence": record.confidence,
        "summary": record.summary,
        "features": dict(record.features),
        "proposals": [_proposal(verdict) for verdict in (story.record.verdicts if story.record else ())],
        "published": list(story.record.published if story.record else ()),
        "acks": [_ack(story, ack) for ack in story.acks],
        "outcome": _outcome(story),
        "others": [{"kind": one.kind.value, "time_s": one.time_s, "summary": one.summary} for one in story.others],
    }


def _proposal(verdict: Verdict) -> dict[str, Any]:
    wish = verdict.proposal
    return {
        "policy": wish.policy,
        "target_kind": wish.kind.value,
        "target": wish.target,
        "knob": wish.knob,
        "before": verdict.before,
        "wanted": wish.value,
        "allowed": verdict.allowed,
        "reason": wish.reason,
        "rule": verdict.rule,
        "guard": verdict.reason,
        "propensity": wish.propensity,
    }


def _ack(story: Story, ack: DecisionRecord) -> dict[str, Any]:
    decided = story.record
    return {
        "target_kind": None if ack.target_kind is None else ack.target_kind.value,
        "target": ack.target,
        "said": ack.summary,
        "time_s": ack.time_s,
        "latency_s": None if decided is None else ack.time_s - decided.time_s,
        "input": ack.version.revision,
        "effective": dict(ack.effective),
    }


def _outcome(story: Story) -> dict[str, Any] | None:
    found = story.outcome
    if found is None:
        return None
    before = {name.removesuffix(_BEFORE): value for name, value in found.features.items() if name.endswith(_BEFORE)}
    after = {name: value for name, value in found.features.items() if name in before}
    return {"time_s": found.time_s, "before": before, "after": after}


def target_document(audit: Audit, target: Target, *, last: int) -> dict[str, Any]:
    """What one engine or gateway is wanted to hold, and its `last` changes, stops and answers."""
    kind, pool, name = target
    tick = audit.ticks.get(pool)
    return {
        "schema": SCHEMA,
        "kind": kind.value,
        "log": audit.where,
        "name": name,
        "pool": pool,
        "time_s": None if tick is None else tick.time_s,
        "wall_s": None if tick is None else tick.wall_s,
        "mode": None if tick is None else tick.mode,
        "regime": None if tick is None else tick.regime,
        "confidence": None if tick is None else tick.confidence,
        "read_from_s": audit.read_from_s.get(pool),
        "told": _told(audit, target),
        **(_engine(audit, pool, name, last) if kind is TargetKind.ENGINE else _gateway(audit, pool, name, last)),
        "alarms": _newest(_alarms(audit, target), last),
    }


def _newest(found: list[dict[str, Any]], last: int) -> list[dict[str, Any]]:
    return found[-last:] if last else []


def _told(audit: Audit, target: Target) -> dict[str, Any] | None:
    message = audit.told.get(target)
    if message is None:
        return None
    story = audit.stories.get(message.decision)
    decided = story.record if story is not None else None
    return {
        "version": str(message.version),
        "decision": message.decision,
        "since_s": None if decided is None else decided.time_s,
    }


def _engine(audit: Audit, pool: str, name: str, last: int) -> dict[str, Any]:
    changes: list[dict[str, Any]] = []
    stops: list[dict[str, Any]] = []
    for story in audit.decisions(pool):
        record = story.record
        assert record is not None  # `decisions` gives no others
        for verdict in about(record, name):
            (stops if verdict.allowed is None else changes).append(_change(story, record, verdict, pool))
    by_rule = Counter(one["rule"] for one in stops)
    return {
        "settings": _settings(audit, pool, name, changes),
        "changes_in_all": None if pool in audit.read_from_s else len(changes),
        "changes": _newest(changes, last),
        "stopped_by_rule": dict(sorted(by_rule.items())),
        "stopped": _newest(stops, last),
    }


def _change(story: Story, record: DecisionRecord, verdict: Verdict, pool: str) -> dict[str, Any]:
    gateways = {key.split("/")[2] for key in record.published if key.startswith(f"table/{pool}/")}
    wish = verdict.proposal
    heard = [
        _ack(story, ack)
        for ack in story.acks
        if (ack.target == wish.target and wish.knob != WEIGHT)
        or (ack.target_kind is TargetKind.GATEWAY and ack.target in gateways and wish.knob in _ROUTED)
    ]
    return {
        "decision": story.decision,
        "time_s": record.time_s,
        "wall_s": record.wall_s,
        "knob": wish.knob,
        "old": verdict.before,
        "wanted": wish.value,
        "new": verdict.allowed,
        "done": verdict.allowed is not None and record.mode == Mode.CONTROL.value,
        "policy": wish.policy,
        "reason": wish.reason,
        "rule": verdict.rule,
        "guard": verdict.reason,
        "regime": record.regime,
        "confidence": record.confidence,
        "features": dict(record.features),
        "acks": heard,
        "outcome": _outcome(story),
    }


def _settings(audit: Audit, pool: str, name: str, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the engine is wanted to hold, per knob, since when and by which decision."""
    held = audit.attached.get((TargetKind.ENGINE, pool, name))
    values = {} if held is None else dict(held.effective)
    last = {one["knob"]: one for one in changes if one["done"]}
    values |= {knob: one["new"] for knob, one in last.items()}
    told = audit.told.get((TargetKind.ENGINE, pool, name))
    if isinstance(told, Directive):
        values |= {knob: value for knob, value in told.values.items() if knob != VARIANT or knob not in values}
    found = []
    for knob in sorted(values):
        one = last.get(knob)
        since = None if one is None else one["time_s"]
        found.append(
            {
                "knob": knob,
                "value": values[knob],
                "since_s": since,
                "decision": None if one is None else one["decision"],
                "policy": None if one is None else one["policy"],
                "reason": None if one is None else one["reason"],
            }
        )
    return found


def _gateway(audit: Audit, pool: str, name: str, last: int) -> dict[str, Any]:
    told = audit.told.get((TargetKind.GATEWAY, pool, name))
    routes, lanes = (told.routes, told.lanes) if isinstance(told, RoutingTable) else ((), ())
    tables = []
    for story in audit.decisions(pool):
        record = story.record
        if record is not None and any(key.startswith(f"table/{pool}/{name}/") for key in record.published):
            tables.append(
                {
                    "decision": story.decision,
                    "time_s": record.time_s,
                    "summary": record.summary,
                    "regime": record.regime,
                    "confidence": record.confidence,
                    "acks": [_ack(story, ack) for ack in story.acks if ack.target == name],
                }
            )
    return {
        "routes": [{"engine": r.engine, "weight": r.weight, "in_flight_cap": r.in_flight_cap} for r in routes],
        "lanes": [{"lane": one.lane, "priority": one.priority, "max_wait_s": one.max_wait_s} for one in lanes],
        "tables_in_all": None if pool in audit.read_from_s else len(tables),
        "tables": _newest(tables, last),
    }


def _alarms(audit: Audit, target: Target) -> list[dict[str, Any]]:
    kind, pool, name = target
    return [
        {"decision": story.decision, "time_s": one.time_s, "summary": one.summary}
        for story in audit.stories.values()
        for one in story.others
        if one.pool == pool and one.target == name and one.target_kind is kind
    ]

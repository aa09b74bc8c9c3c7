"""The status of a fleet as one JSON document with a documented shape.

The words of `status` and `watch` are made from it and from nothing else, so that a reader
of the JSON has all that a reader of the text has.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flyball_cli.operating.attention import Concern, concerns, trouble_of
from flyball_cli.operating.merging import Answer, FleetStatus, Owned
from flyball_core.inputs import Mode
from flyball_core.knobs import Value
from flyball_proto.codec.words import MODES, read_known, read_version
from flyball_proto.v1.common_pb2 import TARGET_KIND_GATEWAY, Value as WireValue
from flyball_proto.v1.inputs_pb2 import OverrideSet
from flyball_proto.v1.services_pb2 import PoolStatus, TargetStatus

SCHEMA = "flyball.status/1"
Document = dict[str, Any]


def status_document(fleet: FleetStatus) -> Document:
    """Everything that was answered, with what needs attention in front."""
    found = concerns(fleet)
    return {
        "schema": SCHEMA,
        "healthy": not found,
        "attention": [_concern(one) for one in found],
        "controllers": [
            *[_controller(answer) for answer in fleet.answers],
            *[_silent(one.address, one.why) for one in fleet.silences],
        ],
        "pools": [_pool(owned) for owned in fleet.pools.values()],
    }


def _concern(one: Concern) -> Document:
    return {"pool": one.pool or None, "target": one.target or None, "what": one.what, "remedy": one.remedy or None}


def _controller(answer: Answer) -> Document:
    status = answer.status
    return {
        "address": answer.address,
        "answered": True,
        "why_not": None,
        "controller": status.controller,
        "ready": status.ready,
        "waiting_for": list(status.waiting_for),
        "log": status.log,
        "log_id": status.log_id,
        "partitions": status.partitions,
        "owned": [
            {"partition": one.partition, "epoch": one.epoch, "inputs_behind": one.inputs_behind, "ticks": one.ticks}
            for one in status.owned
        ],
    }


def _silent(address: str, why: str) -> Document:
    return {
        "address": address,
        "answered": False,
        "why_not": why,
        "controller": None,
        "ready": None,
        "waiting_for": [],
        "log": None,
        "log_id": None,
        "partitions": None,
        "owned": [],
    }


def mode_of(pool: PoolStatus) -> str:
    """The mode's name; `unknown` if a newer controller has one that is not known here."""
    return MODES.member(pool.mode, Mode).value if MODES.knows(pool.mode) else "unknown"


def _pool(owned: Owned) -> Document:
    pool = owned.status
    targets = sorted(pool.targets, key=lambda target: target.target)
    return {
        "pool": pool.pool,
        "owner": pool.owner,
        "address": owned.address,
        "partition": pool.partition,
        "epoch": pool.epoch,
        "mode": mode_of(pool),
        "paused": pool.paused,
        "regime": pool.regime,
        "confidence": pool.confidence,
        "regime_for_s": pool.regime_s,
        "time_s": pool.time_s,
        "wall_s": pool.wall_s or None,
        "tick_age_s": owned.tick_age_s,
        "policy_author": pool.policy_author or None,
        "features": dict(sorted(pool.features.items())),
        "quarantined": [{"policy": name, "why": why} for name, why in sorted(pool.quarantined.items())],
        "overrides": [override_document(one, owned.wall_s) for one in pool.overrides],
        "agents": [
            {
                "agent": one.agent,
                "boot": one.boot,
                "age_s": one.age_s if one.HasField("age_s") else None,
                "stale": one.stale,
                "clock": one.clock or None,
            }
            for one in sorted(pool.agents, key=lambda agent: agent.agent)
        ],
        "engines": [_engine(owned, one) for one in targets if one.kind != TARGET_KIND_GATEWAY],
        "gateways": [_receiver(owned, one) for one in targets if one.kind == TARGET_KIND_GATEWAY],
        "relaunching": list(pool.relaunching),
        "counts": dict(sorted(pool.counts.items())),
    }


def override_document(one: OverrideSet, wall_s: float) -> Document:
    """One override, with the time it has left at `wall_s`."""
    return {
        "override": one.override_id,
        "target": one.target or None,
        "knob": one.knob,
        "value": _value(one.value),
        "expires_wall_s": one.expires_wall_s,
        "left_s": max(0.0, one.expires_wall_s - wall_s),
        "reason": one.reason,
        "author": one.author,
    }


def _value(value: WireValue) -> Value | None:
    return read_known({"": value}).get("")


def _receiver(owned: Owned, target: TargetStatus) -> Document:
    return {
        "name": target.target,
        "attached": target.attached,
        "incarnation": target.incarnation,
        "trouble": trouble_of(owned, target) or None,
        "told": str(read_version(target.told)) if target.HasField("told") else None,
        "acked": str(read_version(target.acked)) if target.HasField("acked") else None,
        "settings": _settings(target),
    }


def _engine(owned: Owned, target: TargetStatus) -> Document:
    return {
        **_receiver(owned, target),
        "phase": target.phase,
        "variant": target.variant,
        "weight": target.weight,
        "stale": target.stale,
        "degraded": target.degraded,
    }


def _settings(target: TargetStatus) -> list[Document]:
    """What it holds against what it is wanted to hold, knob by knob. What nobody wants otherwise is as wanted."""
    held, wanted = read_known(target.effective), read_known(target.wanted)
    return [
        {"knob": knob, "held": held.get(knob), "wanted": wanted.get(knob), "as_wanted": _as_wanted(knob, held, wanted)}
        for knob in sorted(held.keys() | wanted.keys())
    ]


def _as_wanted(knob: str, held: Mapping[str, Value], wanted: Mapping[str, Value]) -> bool:
    return knob not in wanted or held.get(knob) == wanted[knob]


def overrides_of(pools: Iterable[Owned]) -> list[Document]:
    """All overrides of some pools, those that end first in front."""
    found = [
        {"pool": owned.status.pool, **override_document(one, owned.wall_s)}
        for owned in pools
        for one in owned.status.overrides
    ]
    return sorted(found, key=lambda one: (one["expires_wall_s"], one["override"]))

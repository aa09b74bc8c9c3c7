"""Statuses as controllers give them, for tests of what operators are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from flyball_core.inputs import Mode
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobClass, KnobKind, KnobSpec, Value
from flyball_proto.codec.words import MODES, fill_knob, fill_setting, fill_value
from flyball_proto.v1.common_pb2 import (
    TARGET_KIND_ENGINE,
    TARGET_KIND_GATEWAY,
    KnobSpec as WireKnob,
    Mode as WireMode,
    Version,
)
from flyball_proto.v1.inputs_pb2 import OverrideSet
from flyball_proto.v1.services_pb2 import AgentStatus, PartitionStatus, PoolStatus, StatusResponse, TargetStatus

LOG_ID = "af4eb748-9b49-4db6-9203-9d24ffad76b3"
NOW_S = 1_790_000_000.0

CAP = KnobSpec(
    name=BATCH_CAP,
    knob_class=KnobClass.LIVE,
    kind=KnobKind.INTEGER,
    safe=256,
    minimum=1,
    maximum=256,
    unit="requests",
)
GRAPHS = KnobSpec(
    name=VARIANT, knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe="graphs", choices=("graphs", "splitkv")
)


def version(revision: int, epoch: int = 5) -> Version:
    """A version of the log of these examples."""
    return Version(log_id=LOG_ID, partition=0, epoch=epoch, revision=revision)


def knobs(*specs: KnobSpec) -> list[WireKnob]:
    """Knobs on the wire."""
    made = []
    for spec in specs:
        knob = WireKnob()
        fill_knob(knob, spec)
        made.append(knob)
    return made


def engine(
    name: str,
    *,
    held: Mapping[str, Value] | None = None,
    wanted: Mapping[str, Value] | None = None,
    trouble: str = "",
    attached: bool = True,
    stale: bool = False,
    degraded: bool = False,
) -> TargetStatus:
    """An engine that holds the batch cap 48 and was told so, or what is said instead."""
    made = TargetStatus(
        kind=TARGET_KIND_ENGINE,
        target=name,
        incarnation="i-1",
        trouble=trouble,
        attached=attached,
        told=version(640),
        acked=version(640),
        stale=stale,
        degraded=degraded,
        weight=128,
        variant="graphs",
        phase="serving",
        knobs=knobs(CAP, GRAPHS),
    )
    held = {BATCH_CAP: 48, VARIANT: "graphs"} if held is None else held
    fill_setting(made.effective, held)
    fill_setting(made.wanted, held if wanted is None else wanted)
    return made


def gateway(name: str, engines: Sequence[str], *, trouble: str = "") -> TargetStatus:
    """A gateway that holds weight 128 of each engine."""
    made = TargetStatus(
        kind=TARGET_KIND_GATEWAY,
        target=name,
        incarnation="i-1",
        trouble=trouble,
        attached=True,
        told=version(641),
        acked=version(641),
    )
    for name_ in engines:
        fill_setting(made.effective, {f"weight:{name_}": 128, f"cap:{name_}": 48})
        fill_setting(made.wanted, {f"weight:{name_}": 128, f"cap:{name_}": 48})
    return made


def override(override_id: str, value: Value, *, target: str = "", left_s: float = 1620.0) -> OverrideSet:
    """An override of the batch cap with some time left."""
    made = OverrideSet(
        pool="chat",
        override_id=override_id,
        target=target,
        knob=BATCH_CAP,
        expires_wall_s=NOW_S + left_s,
        reason="incident 4711",
        author="alice",
    )
    fill_value(made.value, value)
    return made


def pool(
    name: str = "chat",
    targets: Sequence[TargetStatus] | None = None,
    *,
    mode: Mode = Mode.CONTROL,
    tick_age_s: float = 0.4,
    **said: Any,
) -> PoolStatus:
    """A pool of two engines and a gateway in which all is well, or what is `said` of it instead."""
    if targets is None:
        targets = [engine("engine-0"), engine("engine-1"), gateway("gateway-0", ["engine-0", "engine-1"])]
    fields = {
        "owner": "controller-0",
        "epoch": 5,
        "regime": "interactive",
        "confidence": 0.98,
        "regime_s": 303.0,
        "time_s": 640.0,
        "policy_author": "alice",
        "features": {"tpot_s": 0.0299, "running": 313.0},
        "agents": [AgentStatus(agent="node-00", boot="b-1", age_s=0.6)],
        "counts": {"delivered": 1280, "late": 2},
    }
    return PoolStatus(
        pool=name,
        targets=targets,
        mode=WireMode.ValueType(MODES.number(mode)),
        wall_s=NOW_S - tick_age_s,
        **{**fields, **said},
    )


def status(
    *pools: PoolStatus,
    controller: str = "controller-0",
    log_id: str = LOG_ID,
    waiting_for: Sequence[str] = (),
    owned: Sequence[int] = (0,),
    partitions: int = 1,
    now_s: float = NOW_S,
) -> StatusResponse:
    """What one controller answers."""
    return StatusResponse(
        controller=controller,
        log_id=log_id,
        log="kafka://broker:9092/flyball",
        partitions=partitions,
        pools=pools,
        owned=[PartitionStatus(partition=one, epoch=5, inputs_behind=0, ticks=640) for one in owned],
        ready=not waiting_for,
        waiting_for=waiting_for,
        wall_s=now_s,
    )

"""One of every message of the contract, with every field set, and one with as little as can be said.

Their bytes stand in tests/data/wire_v1.json. Never change an example here: add another beside it.
"""

from flyball_core.fencing import Version
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GatewaySample, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, LogId, OwnerId, PoolId
from flyball_core.inputs import (
    Ack,
    AckStatus,
    Attach,
    Body,
    Claim,
    Fingerprint,
    Grant,
    Intent,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Proposal,
    Rebase,
    SlowProposal,
    TargetKind,
    Tick,
)
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting
from flyball_core.outputs import (
    DecisionRecord,
    Directive,
    Heartbeat,
    LaneRule,
    RebaseNotice,
    RecordKind,
    Route,
    RoutingTable,
    TickRecord,
    Verdict,
)
from flyball_proto.codec import CheckpointPart

CHAT = PoolId("chat")
LOG = LogId("6f1c2a34-0b5d-4e6f-8a7b-9c0d1e2f3a4b")
VERSION = Version(log_id=LOG, partition=3, epoch=41, revision=1_000_007)
PIN = OverrideSet(
    pool=CHAT,
    override_id="pin-7",
    target="e1",
    knob="max_active_requests",
    value=24,
    expires_wall_s=1_700_003_600.0,
    reason="load test",
    author="ada",
)
WISH = Proposal(
    policy="caps_aimd",
    kind=TargetKind.ENGINE,
    target="e1",
    knob="max_active_requests",
    value=32,
    reason="TPOT has headroom",
    propensity=0.25,
)
GPU = GpuSample(3, "GPU-5e1f", BandwidthSource.GPM, 4, *(0.5 + index for index in range(len(GpuSample._fields) - 4)))
ENGINE = EngineSample(
    EngineId("e1"),
    Incarnation("e1-2"),
    1,
    (2, 3),
    "flash",
    *(10.25 + index for index in range(len(EngineSample._fields) - 5)),
)
FRAME = Frame(
    AgentId("node-a"),
    BootId("boot-1"),
    CHAT,
    17,
    1_700_000_000.5,
    86_400.125,
    backlog=True,
    gpus=(GPU,),
    engines=(ENGINE,),
)
KNOBS = (
    KnobSpec(
        name="max_active_requests",
        knob_class=KnobClass.LIVE,
        kind=KnobKind.INTEGER,
        safe=64,
        minimum=1.0,
        maximum=256.0,
        unit="requests",
    ),
    KnobSpec(
        name="gpu_share",
        knob_class=KnobClass.RESTART,
        kind=KnobKind.REAL,
        safe=0.5,
        minimum=0.0,
        maximum=1.0,
        unit="ratio",
    ),
    KnobSpec(
        name="variant", knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe="flash", choices=("flash", "fused")
    ),
    KnobSpec(name="drained", knob_class=KnobClass.ROUTING, kind=KnobKind.FLAG, safe=False),
)
EFFECTIVE: Setting = {"drained": False, "gpu_share": 0.5, "max_active_requests": 64, "variant": "flash"}

INPUTS: dict[str, Body] = {
    "frame": FRAME,
    "frame_of_zeros_and_holes": Frame(
        AgentId("node-a"),
        BootId("boot-1"),
        CHAT,
        0,
        0.0,
        0.0,
        backlog=False,
        gpus=(GpuSample(0, "GPU-0", BandwidthSource.NONE, 0, sm_busy_ratio=0.0),),
        engines=(EngineSample(EngineId("e1"), Incarnation("e1-1"), 0, (), "", requests_waiting=0.0, steps_total=7.0),),
    ),
    "frame_of_a_gateway": Frame(
        AgentId("node-b"),
        BootId("boot-9"),
        CHAT,
        4,
        1_700_000_000.5,
        3.5,
        backlog=False,
        gpus=(),
        engines=(),
        gateways=(
            GatewaySample(GatewayId("gw-1"), Incarnation("gw-1-1"), "realtime", 3.0, 12.0, 4_000.0, 21.5, 3_990.0),
            GatewaySample(GatewayId("gw-1"), Incarnation("gw-1-1"), "", requests_queued=0.0),
        ),
    ),
    "claim": Claim(
        owner=OwnerId("controller-1"),
        log_id=LOG,
        fingerprint=Fingerprint(flyball="0.1.0", numpy="2.4.0", river="0.26.1", cpu=("AVX2", "FMA3")),
        wall_s=1_700_000_000.0,
    ),
    "tick": Tick(epoch=41, interval_s=1.0009765625, wall_s=1_700_000_001.0),
    "first_tick": Tick(epoch=0, interval_s=0.0, wall_s=0.0),
    "attach_engine": Attach(
        pool=CHAT,
        kind=TargetKind.ENGINE,
        target="e1",
        incarnation=Incarnation("e1-2"),
        attached=True,
        capability_hash="9a3b",
        knobs=KNOBS,
        held=VERSION,
        effective=EFFECTIVE,
    ),
    "attach_gateway_gone": Attach(
        pool=CHAT, kind=TargetKind.GATEWAY, target="gw-1", incarnation=Incarnation("gw-1-1"), attached=False
    ),
    "attach_gateway_farewell": Attach(
        pool=CHAT, kind=TargetKind.GATEWAY, target="gw-1", incarnation=Incarnation("gw-1-1"), attached=False, ends=41
    ),
    "attach_gateway_counted_farewell": Attach(
        pool=CHAT,
        kind=TargetKind.GATEWAY,
        target="gw-1",
        incarnation=Incarnation("gw-1-1"),
        attached=False,
        ends=41,
        attempt=3,
    ),
    "ack_applied": Ack(
        pool=CHAT,
        kind=TargetKind.ENGINE,
        target="e1",
        incarnation=Incarnation("e1-2"),
        version=VERSION,
        status=AckStatus.APPLIED,
        effective=EFFECTIVE,
    ),
    "ack_pending_restart": Ack(
        pool=CHAT,
        kind=TargetKind.ENGINE,
        target="e1",
        incarnation=Incarnation("e1-2"),
        version=VERSION,
        status=AckStatus.PENDING_RESTART,
    ),
    "ack_nack": Ack(
        pool=CHAT,
        kind=TargetKind.GATEWAY,
        target="gw-1",
        incarnation=Incarnation("gw-1-1"),
        version=VERSION,
        status=AckStatus.NACK,
        reason="stale: holds 3:41:1000008",
    ),
    "override_set": PIN,
    "override_clear": OverrideClear(pool=CHAT, override_id="pin-7", author="ada"),
    "policy": PolicyText(pool=CHAT, text="pool: chat\nmode: control\n# Größe ≤ 64\n", author="ada"),
    "order": Order(
        pool=CHAT, author="ada", reason="maintenance", mode=Mode.OBSERVE, paused=True, reset_policy="caps_aimd"
    ),
    "rebase": Rebase(pool=CHAT, target="e1", author="ada", reason="the log was made anew"),
    "rebase_of_all": Rebase(pool=CHAT, target="", author="ada", reason=""),
    "order_that_unpauses": Order(pool=CHAT, author="ada", paused=False),
    "intent": Intent(
        pool=CHAT, policy_text="pool: chat\n", policy_author="ada", mode=Mode.CONTROL, paused=True, overrides=(PIN,)
    ),
    "intent_as_of": Intent(
        pool=CHAT, policy_text="", policy_author="", mode=Mode.ADVISE, paused=False, as_of=1_000_006
    ),
    "grant": Grant(pool=CHAT, name="spill", amount=2.5, expires_wall_s=1_700_000_600.0),
    "proposal": SlowProposal(pool=CHAT, policy="search", tick_revision=1_000_001, proposals=(WISH,)),
    "proposal_missed": SlowProposal(pool=CHAT, policy="search", tick_revision=1_000_001, missed="deadline of 5 s"),
}

DIRECTIVES: dict[str, Directive | RoutingTable | Heartbeat | RebaseNotice] = {
    "directive": Directive(
        pool=CHAT,
        engine=EngineId("e1"),
        incarnation=Incarnation("e1-2"),
        capability_hash="9a3b",
        version=VERSION,
        values=EFFECTIVE,
        decision="chat/1000007/0",
    ),
    "table": RoutingTable(
        pool=CHAT,
        gateway=GatewayId("gw-1"),
        version=VERSION,
        routes=(
            Route(engine=EngineId("e1"), weight=256, in_flight_cap=64),
            Route(engine=EngineId("e2"), weight=0, in_flight_cap=0),
        ),
        lanes=(
            LaneRule(lane="realtime", priority=-1, max_wait_s=0.5),
            LaneRule(lane="bulk", priority=9, max_wait_s=600.0),
        ),
        decision="chat/1000007/1",
    ),
    "rebase": RebaseNotice(pool=CHAT, target="e1", version=VERSION, author="ada", expires_wall_s=1_700_000_600.0),
    "heartbeat": Heartbeat(pool=CHAT, version=VERSION, time_s=12.5, wall_s=1_700_000_001.0, hold_s=1800.0),
}

AUDIT: dict[str, DecisionRecord | TickRecord] = {
    "refused_order": DecisionRecord(
        pool=CHAT,
        kind=RecordKind.ORDER,
        version=VERSION,
        decision="chat@17",
        time_s=12.5,
        wall_s=1_700_000_001.0,
        mode="advise",
        regime="idle",
        confidence=0.5,
        summary="override pin-7 of ada refused: max_active_requests must be 4 to 128, not 500",
        refused=True,
    ),
    "decision": DecisionRecord(
        pool=CHAT,
        kind=RecordKind.DECISION,
        version=VERSION,
        decision="chat/1000007/0",
        time_s=12.5,
        wall_s=1_700_000_001.0,
        mode="control",
        regime="long_context",
        confidence=0.875,
        summary="e1: batch cap 64 → 32",
        target_kind=TargetKind.ENGINE,
        target="e1",
        features={"kv_used_ratio": 0.0, "tpot_s": 0.0625},
        verdicts=(
            Verdict(proposal=WISH, before=64, allowed=48, rule="slew", reason="at most a quarter at once"),
            Verdict(proposal=WISH, before=None, allowed=None, rule="dwell", reason="changed 3 s ago"),
            Verdict(proposal=WISH, before=False, allowed=0.0, rule="bounds", reason="not below 0"),
        ),
        published=("directive/chat/e1/41",),
        effective=EFFECTIVE,
    ),
    "ack": DecisionRecord(
        pool=CHAT,
        kind=RecordKind.ACK,
        version=VERSION,
        decision="chat/1000007/0",
        time_s=0.0,
        wall_s=0.0,
        mode="",
        regime="",
        confidence=0.0,
        summary="",
    ),
    "tick": TickRecord(
        pool=CHAT,
        version=VERSION,
        time_s=12.5,
        wall_s=1_700_000_001.0,
        inputs_digest=0xFFFF_FFFE,
        mode="advise",
        regime="interactive",
        confidence=1.0,
        alarm=True,
        features={"tpot_s": 0.0625},
        counts={"duplicate": 0, "frames": 12},
    ),
}

CHECKPOINTS: dict[str, CheckpointPart] = {
    "checkpoint": CheckpointPart(
        schema=1,
        log_id=LOG,
        partition=3,
        epoch=41,
        revision=1_000_007,
        part=1,
        parts=2,
        crc=0xDEAD_BEEF,
        payload=b"\x00\xffstate",
    ),
}

"""Engines and gateways of the scripted pool: counters as a real engine's, physics as plain as can be.

TPOT grows with the batch and with its context; everything follows from the load that the
test gives. Receivers apply what is strictly newer, and say what they hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flyball_core.fencing import Fence, Version
from flyball_core.frames import EngineSample
from flyball_core.ids import EngineId, Incarnation, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Directive, RoutingTable

POOL = PoolId("chat")

CAP_SPEC = KnobSpec(
    name=BATCH_CAP, knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=64, minimum=1, maximum=256, unit="requests"
)
VARIANT_SPEC = KnobSpec(
    name=VARIANT,
    knob_class=KnobClass.RESTART,
    kind=KnobKind.CHOICE,
    safe="graphs",
    choices=("graphs", "splitkv"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What clients ask of the pool at one second."""

    concurrency: float = 120.0
    """Requests that would run if nothing limited them."""
    context_tokens: float = 1000.0
    prompt_tokens: float = 200.0
    """Prompt tokens per finished request."""


@dataclass(slots=True, kw_only=True)
class ScriptedEngine:
    """One engine with its receiver."""

    name: str
    agent: str
    gpu: int
    specs: tuple[KnobSpec, ...] = (CAP_SPEC, VARIANT_SPEC)
    setting: dict[str, Value] = field(default_factory=lambda: {BATCH_CAP: 64, VARIANT: "graphs"})
    incarnation: str = "i0"
    slowness: float = 1.0
    held: Version | None = None
    back_at_s: float | None = None
    """When a relaunch under way ends."""
    running: float = 0.0
    tpot_s: float = 0.0
    counters: dict[str, float] = field(default_factory=dict)
    refuse: Callable[[Directive], str] = lambda _directive: ""
    """Why it refuses a directive that is sound; empty if it does not."""
    deaf: bool = False
    """Acknowledges what it does not apply, and reads back what it really holds."""

    def attach(self) -> Attach:
        """What it says of itself."""
        return Attach(
            pool=POOL,
            kind=TargetKind.ENGINE,
            target=self.name,
            incarnation=Incarnation(self.incarnation),
            capability_hash="h",
            knobs=self.specs,
            held=self.held,
            effective=dict(self.setting),
        )

    def places(self, limit: float | None) -> float:
        """How many requests it can run; `limit` is what gateways send at most at once."""
        cap = self.setting.get(BATCH_CAP)
        own = float(cap) if isinstance(cap, int) else 1e9
        return min(own, limit) if limit is not None else own

    def live(self, running: float, load: Load) -> None:
        """Serve one second of so many requests."""
        self.running = float(int(running))
        suits = 0.8 if self.setting.get(VARIANT) == "splitkv" and load.context_tokens > 4000 else 1.0
        self.tpot_s = self.slowness * suits * (0.01 + 0.0003 * self.running * (1.0 + load.context_tokens / 4000.0))
        tokens = self.running / self.tpot_s
        finished = tokens / 200.0
        growth = {
            "prompt_tokens_total": finished * load.prompt_tokens,
            "generation_tokens_total": tokens,
            "requests_finished_total": finished,
            "preemptions_total": 0.0,
            "ttft_s_sum": finished * 0.5,
            "ttft_count": finished,
            "itl_s_sum": tokens * self.tpot_s,
            "itl_count": tokens,
            "queue_s_sum": finished * 0.1,
            "queue_count": finished,
        }
        for name, number in growth.items():
            self.counters[name] = self.counters.get(name, 0.0) + number

    def sample(self, load: Load) -> EngineSample:
        """What its agent sees of it."""
        capacity = 400_000.0
        return EngineSample(
            engine=EngineId(self.name),
            incarnation=Incarnation(self.incarnation),
            rank=0,
            gpus=(self.gpu,),
            variant=str(self.setting.get(VARIANT, "")),
            requests_running=self.running,
            requests_waiting=0.0,
            kv_used_ratio=min(self.running * load.context_tokens / capacity, 1.0),
            kv_capacity_tokens=capacity,
            **self.counters,
        )

    def take(self, directive: Directive, now_s: float, relaunch_s: float) -> Ack:
        """Apply a directive as a receiver does, and answer."""
        if directive.version.against(self.held) is not Fence.NEWER:
            return self._ack(directive.version, AckStatus.NACK, f"{directive.version} is not newer")
        for name, value in directive.values.items():
            spec = next((spec for spec in self.specs if spec.name == name), None)
            refusal = f"no knob {name!r}" if spec is None else spec.refuse(value)
            if refusal:
                return self._ack(directive.version, AckStatus.NACK, refusal)
        if reason := self.refuse(directive):
            return self._ack(directive.version, AckStatus.NACK, reason)
        if self.deaf:
            self.held = directive.version
            return self._ack(directive.version, AckStatus.APPLIED)
        variant = directive.values.get(VARIANT)
        restarts = any(spec.name == VARIANT and spec.knob_class is KnobClass.RESTART for spec in self.specs)
        restart = restarts and variant is not None and variant != self.setting.get(VARIANT)
        if restart and directive.incarnation != self.incarnation:
            return self._ack(directive.version, AckStatus.NACK, "of another incarnation")
        self.held = directive.version
        self.setting.update({k: value for k, value in directive.values.items() if k != VARIANT or not restarts})
        if not restart:
            return self._ack(directive.version, AckStatus.APPLIED)
        answer = self._ack(directive.version, AckStatus.PENDING_RESTART)
        self.setting[VARIANT] = str(variant)
        self.back_at_s = now_s + relaunch_s
        return answer

    def restart(self, incarnation: str) -> None:
        """A new start: other incarnation, counters from zero."""
        self.incarnation, self.back_at_s = incarnation, None
        self.counters = {}

    def _ack(self, version: Version, status: AckStatus, reason: str = "") -> Ack:
        return Ack(
            pool=POOL,
            kind=TargetKind.ENGINE,
            target=self.name,
            incarnation=Incarnation(self.incarnation),
            version=version,
            status=status,
            reason=reason,
            effective=dict(self.setting),
        )


@dataclass(slots=True, kw_only=True)
class ScriptedGateway:
    """One gateway with its receiver."""

    name: str
    incarnation: str = "g0"
    held: Version | None = None
    table: dict[str, Value] = field(default_factory=dict)

    def attach(self) -> Attach:
        """What it says of itself."""
        return Attach(
            pool=POOL,
            kind=TargetKind.GATEWAY,
            target=self.name,
            incarnation=Incarnation(self.incarnation),
            held=self.held,
            effective=dict(self.table),
        )

    def take(self, table: RoutingTable) -> Ack:
        """Take a table over, and answer."""
        newer = table.version.against(self.held) is Fence.NEWER
        if newer:
            self.held = table.version
            self.table = {}
            for route in table.routes:
                self.table[f"weight:{route.engine}"] = route.weight
                self.table[f"cap:{route.engine}"] = route.in_flight_cap
        return Ack(
            pool=POOL,
            kind=TargetKind.GATEWAY,
            target=self.name,
            incarnation=Incarnation(self.incarnation),
            version=table.version,
            status=AckStatus.APPLIED if newer else AckStatus.NACK,
            reason="" if newer else "not newer",
            effective=dict(self.table),
        )

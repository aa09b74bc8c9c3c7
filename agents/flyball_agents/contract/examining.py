"""What the examiner knows of a receiver, and how it speaks to it: versions, offers, answers, values.

It keeps the versions of one invented log, always above what the receiver holds, so that rules can be
tried one after the other without spoiling each other. It judges no rule itself.
"""

import asyncio
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from flyball_agents.contract.door import Door, Sitting
from flyball_agents.gateway_adapter import CAP, MAX_WAIT, PRIORITY, WEIGHT, routes_and_lanes
from flyball_core.errors import Rejected
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, LogId
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting, Value
from flyball_core.outputs import Directive, Heartbeat, RebaseNotice, RoutingTable
from flyball_proto.codec import Pushed, pusher_message
from flyball_proto.v1 import services_pb2 as pb

LOG_PREFIX = "flyball-check-"
"""How the logs that the examiner invents are named."""

_HALVES = {WEIGHT: CAP, CAP: WEIGHT, PRIORITY: MAX_WAIT, MAX_WAIT: PRIORITY}


class Broken(Exception):
    """The receiver does not hold the rule; the text says what it did."""


class Skipped(Exception):
    """The rule says nothing about this receiver; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the examiner waits, in seconds."""

    answer_s: float = 10.0
    """For an answer to a message."""
    move_s: float = 60.0
    """For what a receiver does of itself: attaching, coming back, easing."""
    quiet_s: float = 0.3
    """How long nothing has to come for nothing to count as said."""


class Examination:
    """One receiver under examination."""

    def __init__(self, door: Door, sitting: Sitting, attach: Attach, patience: Patience) -> None:
        self.door = door
        self.sitting = sitting
        self.attach = attach
        """The attach heard last."""
        self.patience = patience
        self.held: Version | None = None
        """What the receiver should hold."""
        self.values: dict[str, Value] = {}
        """What was taken of it."""
        log_id = LogId(f"{LOG_PREFIX}{uuid.uuid4().hex[:8]}")
        self._last = Version(log_id=log_id, partition=0, epoch=1000, revision=0)
        self.believe()

    # -- versions ---------------------------------------------------------------------------------

    def newer(self, *, epochs: int = 0) -> Version:
        """A version above all used so far; of a later epoch, with a smaller revision, if asked."""
        self._last = _raised(self._last, epochs=epochs)
        return self._last

    def change_log(self) -> Version:
        """From now on the versions are another log's; the last one used of the old."""
        was = self._last
        log_id = LogId(f"{LOG_PREFIX}{uuid.uuid4().hex[:8]}")
        self._last = Version(log_id=log_id, partition=was.partition, epoch=5, revision=100)
        return was

    def believe(self) -> None:
        """Go on from what the receiver's attach says that it holds, whatever was known before."""
        self.held, self.values = self.attach.held, {}
        self._last = _raised(self._last if self.held is None else self.held, epochs=1000)

    # -- what to say ------------------------------------------------------------------------------

    def offer(
        self, version: Version, values: Setting, *, pool: str | None = None, target: str | None = None
    ) -> Directive | RoutingTable:
        """These values at that version, as a directive or a table."""
        attach = self.attach
        where = type(attach.pool)(attach.pool if pool is None else pool)
        name = attach.target if target is None else target
        if attach.kind is TargetKind.GATEWAY:
            routes, lanes = routes_and_lanes(self._whole_rows(values))
            return RoutingTable(
                pool=where, gateway=GatewayId(name), version=version, routes=routes, lanes=lanes, decision="check"
            )
        return Directive(
            pool=where,
            engine=EngineId(name),
            incarnation=Incarnation(""),
            capability_hash=attach.capability_hash,
            version=version,
            values=values,
            decision="check",
        )

    def heartbeat(self, version: Version, hold_s: float) -> Heartbeat:
        """A heartbeat of the receiver's pool."""
        return Heartbeat(pool=self.attach.pool, version=version, time_s=0.0, wall_s=0.0, hold_s=hold_s)

    def notice(self, version: Version, *, target: str = "") -> RebaseNotice:
        """A permission to take `version`'s log."""
        return RebaseNotice(
            pool=self.attach.pool, target=target, version=version, author="flyball receiver check", expires_wall_s=1e12
        )

    def knob(self, *kinds: KnobKind) -> KnobSpec:
        """A knob to try things on, of one of these kinds if any are named. Raises `Skipped` if there is none."""
        specs = [spec for spec in self.attach.knobs if spec.knob_class is not KnobClass.RESTART]
        for spec in specs:
            if spec.name in self.attach.effective and (not kinds or spec.kind in kinds) and self._others(spec):
                return spec
        raise Skipped(f"it has no {' or '.join(kind.value for kind in kinds) or 'live'} knob that can be moved")

    def other(self, spec: KnobSpec) -> Value:
        """A value that the knob takes and has not now."""
        return self._others(spec)[0]

    def two(self) -> tuple[str, Value, Value]:
        """A knob and two values that it takes, neither of which it has now, the same one twice if need be."""
        spec = self.knob()
        others = self._others(spec)
        return spec.name, others[0], others[-1]

    # -- saying and hearing -----------------------------------------------------------------------

    async def ask(self, pushed: Pushed | pb.PusherMessage) -> Ack:
        """Say it and hear the answer. Raises `Broken` if none comes or it is not about this."""
        await self.say(pushed)
        return await self.answer()

    async def say(self, pushed: Pushed | pb.PusherMessage) -> None:
        """Say it."""
        await self.sitting.say(pushed if isinstance(pushed, pb.PusherMessage) else pusher_message(pushed))

    async def answer(self) -> Ack:
        """The next answer; an attach that comes before it is taken note of."""
        while True:
            said = await self.sitting.hear(self.patience.answer_s)
            if isinstance(said, Ack):
                return said
            self.attach = said

    async def attach_anew(self, within_s: float) -> Attach:
        """The next attach on this stream. Raises `Broken` if an answer comes instead."""
        said = await self.sitting.hear(within_s)
        if isinstance(said, Ack):
            raise Broken(f"answered {said.version} where there was nothing to answer")
        self.attach = said
        return said

    async def take(self, values: Setting) -> Ack:
        """Have the receiver take these values at a newer version. Raises `Broken` if it does not."""
        version = self.newer()
        ack = await self.ask(self.offer(version, values))
        self.taken(ack, version, values)
        return ack

    def taken(self, ack: Ack, version: Version, values: Setting) -> None:
        """Raise `Broken` unless this answer says that the values were taken at that version."""
        if (ack.status, ack.version) != (AckStatus.APPLIED, version):
            raise Broken(f"{_shown(values)} at {version} was answered {_told(ack)}")
        missed = {name: ack.effective.get(name) for name, value in values.items() if ack.effective.get(name) != value}
        if missed:
            raise Broken(f"said that {_shown(values)} was applied, but reads back {_shown(missed)}")
        self.held, self.values = version, {**self.values, **values}

    def refused(self, ack: Ack, version: Version | None, before: Setting, *, naming: str = "") -> None:
        """Raise `Broken` unless this answer refuses that version, in words, with every value as before."""
        if ack.status is not AckStatus.NACK:
            raise Broken(f"was answered {_told(ack)}")
        if version is not None and ack.version != version:
            raise Broken(f"the answer to {version} names {ack.version}")
        if not ack.reason:
            raise Broken("was refused without a reason")
        if naming not in ack.reason:
            raise Broken(f"the refusal does not say {naming!r}: {ack.reason}")
        moved = {name: value for name, value in ack.effective.items() if before.get(name) != value}
        if moved or ack.effective.keys() != before.keys():
            raise Broken(f"was refused, but now reads back {_shown(moved) or 'other knobs'}")

    async def now(self) -> dict[str, Value]:
        """The values as they read back now: what the receiver answers to the version that it holds."""
        if self.held is None:
            await self.take({})
        assert self.held is not None
        ack = await self.ask(self.offer(self.held, self.values))
        if ack.status is not AckStatus.APPLIED:
            raise Broken(f"the version held was answered {_told(ack)}")
        return dict(ack.effective)

    async def rest(self) -> None:
        """Let a moment pass."""
        await asyncio.sleep(self.patience.quiet_s)

    async def sit_again(self, within_s: float) -> None:
        """Wait for the receiver's next stream and its attach."""
        self.sitting.end()
        self.sitting = await self.door.sitting(within_s)
        said = await self.sitting.hear(self.patience.answer_s)
        if not isinstance(said, Attach):
            raise Broken("the first message of its new stream was no attach")
        self.attach = said

    def _whole_rows(self, values: Setting) -> dict[str, Value]:
        whole: dict[str, Value] = {}
        for name, value in values.items():
            family, _, of = name.partition(":")
            half = f"{_HALVES.get(family, family)}:{of}"
            whole[half] = values.get(half, self.attach.effective.get(half, 0))
            whole[name] = value
        return whole

    def _others(self, spec: KnobSpec) -> list[Value]:
        now = {**self.attach.effective, **self.values}.get(spec.name)
        return [value for value in _candidates(spec, now) if value != now and spec.refuse(value) is None]


def open_attach(said: object) -> Attach:
    """What was said, if it is the attach that a stream opens with and the receiver may be examined. Else `Rejected`."""
    if not isinstance(said, Attach):
        raise Rejected("R1: the first message of the stream was no attach")
    if said.held is not None and not said.held.log_id.startswith(LOG_PREFIX):
        raise Rejected(
            f"{said.target} holds {said.held} of log {said.held.log_id}; examine a receiver whose state folder is "
            "empty, for it holds an invented log's version afterwards"
        )
    return said


def _candidates(spec: KnobSpec, now: Value | None) -> list[Value]:
    if spec.kind is KnobKind.FLAG:
        return [True, False]
    if spec.kind is KnobKind.CHOICE:
        return list(spec.choices)
    found: list[Value] = []
    if isinstance(now, (int, float)):
        found += [now + 1, now - 1] if spec.kind is KnobKind.INTEGER else [now + 0.125, now - 0.125]
    found.append(spec.safe)
    bounds = [bound for bound in (spec.maximum, spec.minimum) if bound is not None]
    return found + [int(bound) if spec.kind is KnobKind.INTEGER else bound for bound in bounds]


def _raised(version: Version, *, epochs: int = 0) -> Version:
    if epochs:
        return Version(log_id=version.log_id, partition=version.partition, epoch=version.epoch + epochs, revision=7)
    return Version(
        log_id=version.log_id,
        partition=version.partition,
        epoch=version.epoch,
        revision=version.revision + random.randint(2, 9),
    )


def _told(ack: Ack) -> str:
    return f"{ack.status.value}{f' ({ack.reason})' if ack.reason else ''}"


def _shown(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())[:4])

"""The safety boundary: what stands between a controller, however mad, and an engine or a gateway.

It fences (only a strictly newer version of the same log and partition), bounds, persists before it applies,
reads back, answers, and eases to safe defaults when its lease runs out. It has no clock, no network and no
policy: the caller brings messages and time, and calls `poll` about once a second.

- A refusal is final: no version once refused is taken later, also after a restart (one log's, if none is held).
- Refused means unchanged: what an offer had set by then is put back.
- The lease is renewed by a heartbeat, or by the taking of an offer, of a version strictly newer than the one
  that renewed it last: what an owner wrote proves it alive once, however often it is pushed.
- What was eased stays eased until the next version is taken: a renewed lease only stops the motion.
- Easing moves live and routing numbers. Choices, flags and restart-class knobs stay: they have no half-way.
- At a cold start (another incarnation than the record's) values are set at once, for nothing runs yet; beside
  a running engine they are eased. A damaged store counts as nothing held; the engine starts in any case.
"""

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import replace

from flyball_agents.easing import Easing, Phase, ReceiverLimits
from flyball_agents.offers import Offer, Target, sound, unfit, unmapped
from flyball_agents.receiver_store import Held, ReceiverStore
from flyball_agents.surface import Surface, capability_hash
from flyball_core.errors import Rejected
from flyball_core.fencing import Fence, Version
from flyball_core.ids import Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach
from flyball_core.knobs import KnobClass, Setting, Value
from flyball_core.outputs import Heartbeat

_TOUCH_SHARE = 1 / 30  # of the hold time: how old the wall time on disk may grow while the lease is renewed
_MOST_TOUCH_S = 60.0
_MOST_REASON = 300  # characters of a reason


class Receiver:
    """One target's receiver, not thread-safe. `held` is its memory; `trouble` what last went wrong beside an answer."""

    def __init__(
        self,
        target: Target,
        surface: Surface,
        store: ReceiverStore,
        limits: ReceiverLimits,
        *,
        seed: int,
        now_s: float,
        wall_s: float,
    ) -> None:
        """Take up and set what is on disk; raises `Rejected` if a knob's safe value is out of its own bounds."""
        if wrong := next((wrong for spec in surface.specs() if (wrong := unfit(spec, spec.safe))), None):
            raise Rejected(f"{target.name}: the safe value is not allowed: {wrong}")
        self.target, self._surface, self._store, self._limits = target, surface, store, limits
        self.held: Held = store.load()
        self.trouble: str = store.trouble
        if self.trouble and self.held != Held():  # two whole records again, so that more damage does not leave none
            self._quietly(lambda: store.save(self.held))
        self._easing = Easing(limits)
        # A string seeds alike on every machine, and neighbours that share a seed still ease apart.
        rng = random.Random(f"{seed} {target.pool} {target.name}")
        self._jitter_s = rng.uniform(0, limits.ease_jitter_s)
        good = not self.held.eased and not store.off()
        if limits.hold_s is None:
            self._until_s = math.inf
        else:
            age_s, hold_s = wall_s - self.held.wall_s, self._hold_s()
            good = good and 0 <= age_s < hold_s  # a time in the future is no age
            self._until_s = now_s + hold_s - age_s if good else now_s
        self._start(self.held.values if good else {}, cold=self.held.incarnation != target.incarnation)

    def attach(self) -> Attach:
        """What this target holds and can do, for the owner; raises if the surface cannot say what it has."""
        specs, target = self._surface.specs(), self.target
        return Attach(
            pool=target.pool,
            kind=target.kind,
            target=target.name,
            incarnation=target.incarnation,
            capability_hash=capability_hash(specs),
            knobs=specs,
            held=self.held.version,
            effective=self._read(),
        )

    def offer(self, offer: Offer, *, now_s: float, wall_s: float) -> Ack:
        """Take the offer or refuse it, and say which. The version held gets its answer again, read back anew."""
        version = offer.version
        if wrong := self._misdirected(offer) or self._fenced(version):
            return self._ack(version, AckStatus.NACK, wrong)
        if version == self.held.version:
            return self._standing(version)
        try:
            was = dict(self._surface.read())
            wrong = self._unacceptable(offer, was)
            return self._refuse(version, wrong) if wrong else self._take(offer, was, now_s, wall_s)
        except Exception as error:  # noqa: BLE001 - a surface is not ours; what it raises is an answer
            return self._refuse(version, f"cannot be judged: {error}")

    def renew(self, heartbeat: Heartbeat, *, now_s: float, wall_s: float) -> bool:
        """Renew the lease by a heartbeat; False, and nothing changes, if it is not strictly newer or not ours."""
        version, held = heartbeat.version, self.held
        ours = heartbeat.pool == self.target.pool and sound(version) and held.log_id in ("", version.log_id)
        ours = ours and (held.version is None or held.version.partition == version.partition)
        if not ours or version.against(held.renewed) is not Fence.NEWER:
            return False
        asked_s = heartbeat.hold_s if 0 < heartbeat.hold_s < math.inf else 0.0
        self.held = replace(held, renewed=version, hold_s=asked_s)
        self._until_s = now_s + self._hold_s()
        if asked_s != held.hold_s or not 0 <= wall_s - held.wall_s < min(_MOST_TOUCH_S, self._hold_s() * _TOUCH_SHARE):
            self._quietly(lambda: self._keep(replace(self.held, wall_s=wall_s)))
        return True

    def poll(self, *, now_s: float, wall_s: float) -> Phase:
        """Ease by what has come due, if the lease has run out or the local switch is off."""
        off = self._store.off()
        if off or now_s >= self._until_s + self._jitter_s:
            return self._ease(now_s, wall_s, "switched off locally" if off else "the lease ran out")
        self._easing.stop()
        if not self.held.eased:
            self._quietly(lambda: self._surface.settle(self.held.values))
        return Phase.HOLDING

    def lease_s(self, now_s: float) -> float:
        """Seconds until easing begins unless the lease is renewed; 0 if it has run out, inf if it never does."""
        return max(self._until_s + self._jitter_s - now_s, 0.0)

    def rebase(self, log_id: LogId, *, author: str, wall_s: float) -> None:
        """Forget the version held and take versions of this log only. Raises OSError if it cannot be audited."""
        if not (log_id and author):
            raise Rejected("a rebase names the new log and its author")
        self._forget("rebase", log_id, author, wall_s)

    def release(self, pool: PoolId, *, author: str, wall_s: float) -> None:
        """Hand this target over to another pool of the same log. Raises OSError if it cannot be audited."""
        if not (pool and author):
            raise Rejected("a handover names the new pool and its author")
        self._forget(f"handover to {pool}", self.held.log_id, author, wall_s)
        self.target = replace(self.target, pool=pool)

    def _forget(self, what: str, log_id: LogId, author: str, wall_s: float) -> None:
        self._audit(wall_s, f"{what} by {author}, was {self.held.log_id}", {}, {})
        self._keep(replace(self.held, version=None, log_id=log_id, renewed=None, refused=None))

    def _hold_s(self) -> float:
        """How long a lease lasts: what the last heartbeat asked for, and never more than the limit."""
        if self._limits.hold_s is None:
            return math.inf
        return min(self.held.hold_s or self._limits.hold_s, self._limits.hold_s)

    def _start(self, good: Setting, *, cold: bool) -> None:
        wanted: dict[str, Value] = {}
        for name in (*good, *(spec.name for spec in self._surface.specs() if cold)):
            spec = self._surface.spec(name)
            if spec is not None and spec.knob_class is not KnobClass.RESTART:
                value = good.get(name, spec.safe)
                wanted[name] = spec.safe if unfit(spec, value) else value  # bounds may have changed since
        if not self._quietly(lambda: self._surface.apply(wanted)) and good:
            self._start({}, cold=True)

    def _misdirected(self, offer: Offer) -> str | None:
        """Why this is not for us to judge; such an offer leaves no trace."""
        if (offer.pool, offer.target) != (self.target.pool, self.target.name):
            return f"meant for {offer.target} of {offer.pool}, this is {self.target.name} of {self.target.pool}"
        if not sound(offer.version):
            return "malformed version"
        if self.held.log_id not in ("", offer.version.log_id):
            return f"{Fence.FOREIGN_LOG.value}: log {self.held.log_id} is held; `flyball rebase` changes that"
        return None

    def _fenced(self, version: Version) -> str | None:
        """Why this version may not be taken, if it is neither the one held nor strictly newer than all judged."""
        held, fence = self.held, version.against(self.held.version)
        if fence not in (Fence.SAME, Fence.NEWER):
            return f"{fence.value}: {held.version} is held"
        seen = version.against(held.refused)
        if seen is Fence.STALE and fence is Fence.NEWER:
            return f"stale: {held.refused} was refused since"
        return held.refusal if seen is Fence.SAME else None

    def _unacceptable(self, offer: Offer, was: Setting) -> str | None:
        if self._store.off():
            return "switched off locally"
        if offer.unreadable:
            return f"cannot be read: {offer.unreadable}"
        can, incarnation = offer.capability_hash, self.target.incarnation
        if can is not None and can != (has := capability_hash(self._surface.specs())):
            return f"decided for capabilities {can}, these are {has}"
        if offer.incarnation not in ("", incarnation):
            return f"meant for incarnation {offer.incarnation}, this is {incarnation}"
        if wrong := unmapped(offer.values):
            return wrong
        wrongs = (self._wrong(name, value, was, offer.incarnation) for name, value in offer.values.items())
        return next((wrong for wrong in wrongs if wrong), None) or self._surface.refuse(offer.values)

    def _wrong(self, name: str, value: Value, was: Setting, incarnation: Incarnation) -> str | None:
        spec = self._surface.spec(name)
        if spec is None:
            return f"there is no knob {name!r:.100}"
        if wrong := unfit(spec, value):
            return wrong
        if spec.knob_class is KnobClass.RESTART and value != was.get(name) and not incarnation:
            return f"{name} takes a restart, and the incarnation to end is not named"
        return None

    def _take(self, offer: Offer, was: Setting, now_s: float, wall_s: float) -> Ack:
        version, before = offer.version, self.held
        restart = {n: v for n, v in offer.values.items() if self._restarts(n) and v != was.get(n)}
        live = {n: v for n, v in offer.values.items() if not self._restarts(n)}
        known = {spec.name for spec in self._surface.specs()}
        kept = {n: was.get(n, v) if self._restarts(n) else v for n, v in before.values.items() if n in known}
        proof = version.against(before.renewed) not in (Fence.SAME, Fence.STALE)
        taken = Held(
            version=version,
            values={**kept, **offer.values},
            incarnation=self.target.incarnation,
            log_id=version.log_id,
            wall_s=wall_s if proof else before.wall_s,
            renewed=version if proof else before.renewed,
            hold_s=before.hold_s,
        )
        try:
            # On disk as refused first: should the engine die of it, its next start will not try it again.
            self._keep(replace(before, refused=version, refusal="died while trying it", log_id=version.log_id))
        except OSError as error:
            return self._refuse(version, f"cannot be persisted: {error}")
        try:
            self._surface.apply(live)
            self._surface.read()
            self._audit(wall_s, f"took {version} of {version.log_id}", was, offer.values)
            self._keep(taken)
            if restart:
                self._surface.restart(restart)
        except Exception as error:  # noqa: BLE001 - a surface is not ours; what it raises is an answer
            self.held = before
            old = {n: was[n] for n in live if n in was}
            self._quietly(lambda: self._surface.apply(old))
            self._quietly(lambda: self._audit(wall_s, f"put back, {version} failed", offer.values, old))
            return self._refuse(version, f"could not be applied: {error}")
        self._easing.stop()
        if proof:
            self._until_s = now_s + self._hold_s()
        return self._standing(version)

    def _ease(self, now_s: float, wall_s: float, why: str) -> Phase:
        try:
            was = self._surface.read()
            step = self._easing.step(self._surface, was, now_s)
            if step.arrived:
                return Phase.EASED
            if not self.held.eased:
                self._quietly(lambda: self._keep(replace(self.held, eased=True)))
            if step.moves:
                self._surface.apply(step.moves)
                self._quietly(lambda: self._audit(wall_s, f"eased: {why}", was, step.moves))
            self._easing.made(step)
        except Exception as error:  # noqa: BLE001 - a surface is not ours; the next poll tries again
            self.trouble = f"easing failed: {error}"
        return Phase.EASING

    def _standing(self, version: Version) -> Ack:
        """The answer to the version held, from what reads back now."""
        effective, waiting = self._read(), []
        with contextlib.suppress(Exception):  # a surface that cannot say leaves `effective` to tell
            waiting = [n for n, v in self.held.values.items() if self._restarts(n) and effective.get(n) != v]
        if not waiting:
            return self._ack(version, AckStatus.APPLIED, "eased to safe values since" if self.held.eased else "")
        if self.held.incarnation == self.target.incarnation:
            return self._ack(version, AckStatus.PENDING_RESTART)
        return self._ack(version, AckStatus.NACK, f"the restart did not bring {', '.join(waiting)}")

    def _refuse(self, version: Version, reason: str) -> Ack:
        self.held = replace(self.held, refused=version, refusal=reason[:_MOST_REASON])
        self._quietly(lambda: self._store.save(self.held))
        return self._ack(version, AckStatus.NACK, reason)

    def _ack(self, version: Version, status: AckStatus, reason: str = "") -> Ack:
        return Ack(
            pool=self.target.pool,
            kind=self.target.kind,
            target=self.target.name,
            incarnation=self.target.incarnation,
            version=version,
            status=status,
            reason=reason[:_MOST_REASON],
            effective=self._read(),
        )

    def _keep(self, held: Held) -> None:
        self._store.save(held)
        self.held = held

    def _restarts(self, name: str) -> bool:
        spec = self._surface.spec(name)
        return spec is not None and spec.knob_class is KnobClass.RESTART

    def _read(self) -> Setting:
        try:
            return dict(self._surface.read())
        except Exception as error:  # noqa: BLE001 - a surface is not ours; nothing read is an answer
            self.trouble = f"cannot be read back: {error}"
        return {}

    def _audit(self, wall_s: float, what: str, was: Setting, new: Setting) -> None:
        self._store.audit(wall_s, self.target.name, what, was, new)

    def _quietly(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - nothing here may stop the engine; it is told instead
            self.trouble = f"{type(error).__name__}: {error}"
            return False
        return True

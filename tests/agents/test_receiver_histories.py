"""Arbitrary histories of one receiver: what holds after every single act, whatever came before."""

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flyball_agents.easing import Phase, ReceiverLimits
from flyball_agents.receiver_store import ReceiverStore
from flyball_core.fencing import Version
from flyball_core.inputs import Ack, AckStatus
from flyball_core.knobs import Value
from receiver_bench import SPECS, Bench, odd, version

versions = st.builds(
    version,
    revision=st.integers(0, 30),
    epoch=st.integers(0, 3),
    partition=st.sampled_from([3, 3, 3, 3, 4]),
    log_id=st.sampled_from(["log-a", "log-a", "log-a", "log-b"]),
)
anything = st.one_of(
    st.integers(-5, 300),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.booleans(),
    st.none(),
    st.sampled_from(["fifo", "priority", "flash", "infer", "", "x"]),
    st.just([]),
    st.just(10**400),
)
settings_offered = st.dictionaries(st.sampled_from([*(spec.name for spec in SPECS), "speed"]), anything, max_size=4)
sound_settings = st.fixed_dictionaries({"cap": st.integers(1, 256)}, optional={"margin": st.floats(0, 1)})


class Histories(RuleBasedStateMachine):
    """Offers, heartbeats, time, restarts, failures and the off switch in any order."""

    @initialize()
    def begin(self) -> None:
        """A bench in a folder of its own, and a log of what was applied."""
        self.folder = Path(tempfile.mkdtemp(prefix="flyball-"))
        self.bench = Bench(self.folder, limits=ReceiverLimits(hold_s=20.0, ease_jitter_s=2.0))
        self.applied: list[Version] = []
        self.refused: set[Version] = set()
        self.forgot = False

    def teardown(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(of=versions, values=st.one_of(settings_offered, sound_settings, sound_settings), named=st.booleans())
    def offer(self, of: Version, values: dict[str, object], *, named: bool) -> None:
        """Something arrives; a change of any value must come with an answer that says so."""
        offer = replace(self.bench.make(of), values=odd(values))
        if named:
            offer = replace(offer, incarnation=self.bench.incarnation)
        before, held = dict(self.bench.engine.values), self.bench.receiver.held
        asked = len(self.bench.engine.restarts)
        ack = self.bench.give(offer)
        self.judge(ack, of, held.version)
        if ack.status is AckStatus.NACK or of == held.version:
            assert before == self.bench.engine.values
            assert len(self.bench.engine.restarts) == asked

    def judge(self, ack: Ack, of: Version, held: Version | None) -> None:
        """Applied versions grow strictly and were never refused before."""
        assert ack.version == of
        if ack.status is AckStatus.NACK:
            if held is None:  # with nothing held there is no one log yet, and the latest refusal counts
                self.refused = {v for v in self.refused if (v.log_id, v.partition) == (of.log_id, of.partition)}
            self.refused.add(of)
        elif of != held:
            assert of not in self.refused
            if self.applied:
                last = self.applied[-1]
                assert of.log_id == last.log_id
                assert of.partition == last.partition or self.forgot
                assert (of.epoch, of.revision) > (last.epoch, last.revision) or of.partition != last.partition
            self.applied.append(of)
            self.forgot = False

    @rule(of=versions, hold_s=st.sampled_from([0.0, 5.0, 1e9, math.nan]))
    def beat(self, of: Version, hold_s: float) -> None:
        """A heartbeat moves nothing."""
        before = dict(self.bench.engine.values)
        self.bench.beat(of, hold_s=hold_s)
        assert before == self.bench.engine.values

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 15.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time moves values only when easing, only towards safe, and only under slew."""
        before = dict(self.bench.engine.values)
        phase = self.bench.after(seconds)
        after = self.bench.engine.values
        step_s = min(seconds, 1.0)
        if phase is Phase.HOLDING:
            assert before == after
        for spec in SPECS:
            was, now = before[spec.name], after[spec.name]
            if was == now:
                continue
            assert spec.name in ("cap", "margin")
            self.slewed(spec.name, was, now, step_s)

    def slewed(self, name: str, was: Value, now: Value, step_s: float) -> None:
        """One step is within the slew limit, give or take the rounding of a whole number, and goes the safe way."""
        assert not isinstance(was, str)
        assert not isinstance(now, str)
        safe, least, rounding = (16, 1.0, 1) if name == "cap" else (0.1, 0.01, 0)
        assert abs(now - safe) < abs(was - safe)
        grows = now > was
        room = max(was * (1.5**step_s - 1), least * step_s) if grows else max(was * (1 - 0.6**step_s), least * step_s)
        assert abs(now - was) <= room + rounding + 1e-9

    @rule(cold=st.booleans())
    def restart(self, *, cold: bool) -> None:
        """The receiver, or the engine with it, starts again."""
        held = self.bench.receiver.held
        self.bench.again(cold=cold)
        kept = self.bench.receiver.held
        assert (held.version, held.values, held.refused) == (kept.version, kept.values, kept.refused)

    @rule(names=st.sets(st.sampled_from(["cap", "margin"])), unreadable=st.booleans())
    def fail_and_offer(self, names: set[str], *, unreadable: bool) -> None:
        """An engine that fails while a good offer comes holds what it held."""
        last = self.bench.receiver.held.version
        before = dict(self.bench.engine.values)
        self.bench.engine.fails, self.bench.engine.unreadable = set(names), unreadable
        of = (
            version(31, epoch=0)
            if last is None
            else version(last.revision + 1, last.epoch, last.partition, last.log_id)
        )
        ack = self.bench.offer(of, cap=77, margin=0.77)
        self.bench.engine.fails, self.bench.engine.unreadable = set(), False
        self.judge(ack, of, last)
        if names or unreadable:
            assert ack.status is AckStatus.NACK
            assert before == self.bench.engine.values

    @rule(off=st.booleans())
    def switch(self, *, off: bool) -> None:
        """The local switch."""
        path = self.folder / "off"
        if off:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    @rule(slot=st.sampled_from([0, 1]), cold=st.booleans())
    def lose_a_slot(self, slot: int, *, cold: bool) -> None:
        """One damaged file never lets an older version in; what was learned since the write before is gone."""
        if not all((self.folder / f"held-{index}.json").exists() for index in (0, 1)):
            return
        (self.folder / f"held-{slot}.json").write_bytes(b"damaged")
        self.bench.again(cold=cold)
        held = self.bench.receiver.held
        self.forgot = self.forgot or held.version is None  # a version held by no record binds no partition
        known = [(v.epoch, v.revision) for v in (held.refused, held.version) if v is not None]
        if self.applied and not self.forgot:
            assert max(known) >= (self.applied[-1].epoch, self.applied[-1].revision)
        self.refused = {v for v in self.refused if (v.epoch, v.revision) <= max(known, default=(-1, -1))}

    @invariant()
    def values_are_within_bounds(self) -> None:
        """Whatever came, the engine holds only what its knobs allow."""
        for spec in SPECS:
            assert spec.refuse(self.bench.engine.values[spec.name]) is None

    @invariant()
    def the_disk_holds_what_is_held(self) -> None:
        """Another process would find the same version, values and fence."""
        held, disk = self.bench.receiver.held, ReceiverStore(self.folder).load()
        assert (held.version, held.values, held.refused, held.eased) == (
            disk.version,
            disk.values,
            disk.refused,
            disk.eased,
        )


Histories.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = Histories.TestCase

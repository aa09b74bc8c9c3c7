"""The guard: every rule by its name, and that backing off is always allowed."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from flyball_controller.machine.guard import LEAD_IN, OVERRIDE, Rails, Ruling, bounds_of, judge, lead_in
from flyball_controller.machine.state import DRAINING, Canary, EngineState, PoolState, Relaunch
from flyball_core.ids import PoolId
from flyball_core.inputs import OverrideSet, Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, WEIGHT, KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Verdict
from flyball_policies.document import PolicyDocument
from flyball_policies.reading import read_document

CAP = KnobSpec(name=BATCH_CAP, knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=64, minimum=1, maximum=256)
RATIO = KnobSpec(name="ratio", knob_class=KnobClass.LIVE, kind=KnobKind.REAL, safe=0.5, minimum=0.0, maximum=1.0)
FLAG = KnobSpec(name="chunked", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=False)
KERNEL = KnobSpec(
    name=VARIANT, knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe="graphs", choices=("graphs", "splitkv")
)
GRAPHS = KnobSpec(name="cuda_graphs", knob_class=KnobClass.RESTART, kind=KnobKind.FLAG, safe=True)

DOCUMENT = read_document("version: 1\nknobs: {max_active_requests: {min: 4, max: 128}}\nguard: {dead_band: 8%}")
NOW_S = 1000.0


def pool_of(count: int = 4, **wanted: Value) -> PoolState:
    """Engines that serve and hold these settings, in a known regime."""
    pool = PoolState(pool="chat")
    pool.regime.name = "interactive"
    for i in range(count):
        name = f"e{i}"
        pool.engines[name] = EngineState(
            engine=name,
            incarnation="i0",
            variant="graphs",
            attached=True,
            knobs={spec.name: spec for spec in (CAP, RATIO, FLAG, KERNEL, GRAPHS)},
            wanted={BATCH_CAP: 64, "ratio": 0.5, "chunked": False, **wanted},
            weight=128,
        )
    return pool


def wish(value: Any, *, knob: str = BATCH_CAP, target: str = "e0", policy: str = "p") -> Proposal:
    """A proposal."""
    return Proposal(policy=policy, kind=TargetKind.ENGINE, target=target, knob=knob, value=value, reason="why")


def rails(
    *,
    document: PolicyDocument = DOCUMENT,
    now_s: float = NOW_S,
    interval_s: float = 1.0,
    fresh: Sequence[str] = ("e0", "e1", "e2", "e3"),
) -> Rails:
    """What the guard measures against, one tick of a second."""
    return Rails(document=document, now_s=now_s, interval_s=interval_s, fresh=frozenset(fresh))


def the_verdict(ruling: Ruling) -> Verdict:
    """The only verdict of a ruling."""
    [verdict] = [*ruling.accepted, *ruling.stopped]
    return verdict


def stopped_by(pool: PoolState, proposal: Proposal, **changes: Any) -> str:
    """Which rule stops the proposal; empty if none does, "quiet" if one that is not recorded."""
    ruling = judge(pool, [proposal], rails(**changes))
    if ruling.accepted:
        return ""
    return ruling.stopped[0].rule if ruling.stopped else "quiet"


def pin(
    pool: PoolState, value: Value, *, target: str = "e0", override_id: str = "o1", knob: str = BATCH_CAP
) -> Proposal:
    """An override in force, as the proposal that it makes."""
    pool.overrides[override_id] = OverrideSet(
        pool=PoolId("chat"),
        override_id=override_id,
        target=target,
        knob=knob,
        value=value,
        expires_wall_s=1e10,
        reason="r",
        author="op",
    )
    return wish(value, policy=f"{OVERRIDE}:{override_id}", knob=knob)


def hold_off(pool: PoolState) -> None:
    """Its receiver refused something and is left in peace for a while."""
    pool.engines["e0"].holding.not_before_s = NOW_S + 5.0
    pool.engines["e0"].holding.nack = "no"


def diverge(pool: PoolState) -> None:
    """Its receiver does not hold what it acknowledged."""
    pool.engines["e0"].holding.diverged = "cap is 3, not 64"


def forget_regime(pool: PoolState) -> None:
    """Nobody can say what the traffic is."""
    pool.regime.name = "unknown"


def raise_recently(pool: PoolState) -> None:
    """The knob was raised ten seconds ago."""
    pool.engines["e0"].raised_s[BATCH_CAP] = NOW_S - 10.0


def spend_the_budget(pool: PoolState) -> None:
    """The hour's raises are used up."""
    pool.raises_s = [NOW_S - 100.0] * DOCUMENT.guard.changes_per_hour


TROUBLES = {
    "backoff": hold_off,
    "diverged": diverge,
    "unknown_regime": forget_regime,
    "dwell": raise_recently,
    "budget": spend_the_budget,
}


class TestRules:
    """Each rule stops what it is for, and says its name."""

    def test_a_proposal_within_all_rails_is_accepted(self) -> None:
        """What nothing speaks against happens just so."""
        verdict = the_verdict(judge(pool_of(), [wish(80)], rails()))

        assert (64, 80, "accepted") == (verdict.before, verdict.allowed, verdict.rule)

    @pytest.mark.parametrize(
        ("proposal", "rule"),
        [
            (wish(80, target="e9"), "unknown"),
            (wish(80, knob="nothing"), "unknown"),
            (wish(math.nan), "invalid"),
            (wish(math.inf), "invalid"),
            (wish("many"), "invalid"),
            (wish(value=True), "invalid"),
            (wish("other", knob=VARIANT), "invalid"),
            (wish(1, knob="chunked"), "invalid"),
            (wish(value=False, knob="cuda_graphs"), "unknown"),
            (wish(64), "quiet"),
            (wish(66), "quiet"),
            (wish("graphs", knob=VARIANT), "quiet"),
        ],
        ids=lambda value: value if isinstance(value, str) else f"{value.target} {value.knob} {value.value}",
    )
    def test_what_makes_no_sense_is_stopped(self, proposal: Proposal, rule: str) -> None:
        """Unknown engines and knobs, values that are none, and changes not worth making."""
        assert rule == stopped_by(pool_of(), proposal)

    def test_a_gateway_is_no_engine(self) -> None:
        """A proposal for a gateway of an engine's name is not taken for the engine."""
        odd = Proposal(policy="p", kind=TargetKind.GATEWAY, target="e0", knob=BATCH_CAP, value=80, reason="")

        assert "unknown" == stopped_by(pool_of(), odd)

    @pytest.mark.parametrize(("wanted", "before", "allowed"), [(500, 100, 128), (1, 6, 4), (-3, 5, 4)])
    def test_bounds_cut_a_proposal_down(self, wanted: int, before: int, allowed: int) -> None:
        """A value beyond the operator's bounds becomes the bound, and the verdict says so."""
        pool = pool_of(max_active_requests=before)
        verdict = the_verdict(judge(pool, [wish(wanted)], rails()))

        assert (allowed, "bounds") == (verdict.allowed, verdict.rule)
        assert "4 to 128" in verdict.reason

    @pytest.mark.parametrize(
        ("before", "wanted", "interval_s", "allowed"),
        [
            (64, 128, 1.0, 96),
            (64, 4, 1.0, 39),
            (64, 128, 0.5, 78),
            (64, 4, 0.5, 50),
            (64, 128, 30.0, 96),
            (8, 4, 0.0, 7),
            (5, 128, 1.0, 7),
            (4, 128, 0.0, 5),
        ],
    )
    def test_slew_limits_the_factor_of_a_second(
        self, before: int, wanted: int, interval_s: float, allowed: int
    ) -> None:
        """A knob moves by at most its factor a second, however long the tick; a whole number by one at least."""
        pool = pool_of(max_active_requests=before)
        verdict = the_verdict(judge(pool, [wish(wanted)], rails(interval_s=interval_s)))

        assert (allowed, "slew") == (verdict.allowed, verdict.rule)

    def test_many_short_ticks_move_a_small_number_no_faster(self) -> None:
        """Ten ticks of a tenth of a second lower a cap of 10 by no more than one second's factor and one step."""
        pool = pool_of(max_active_requests=10)
        for i in range(10):
            ruling = judge(pool, [wish(4)], rails(now_s=NOW_S + i / 10, interval_s=0.1))
            for verdict in ruling.accepted:
                assert isinstance(verdict.allowed, int)
                pool.engines["e0"].wanted[BATCH_CAP] = verdict.allowed
        value = pool.engines["e0"].wanted[BATCH_CAP]

        assert isinstance(value, int)
        assert 5 <= value < 10

    def test_negative_numbers_have_a_slew_too(self) -> None:
        """A factor on a negative number bounds it on both sides."""
        spec = KnobSpec(
            name="bias", knob_class=KnobClass.LIVE, kind=KnobKind.REAL, safe=-1.0, minimum=-9.0, maximum=9.0
        )
        pool = pool_of(bias=-4.0)
        pool.engines["e0"].knobs["bias"] = spec
        lower = the_verdict(judge(pool, [wish(-9.0, knob="bias")], rails()))
        higher = the_verdict(judge(pool_with(pool, "bias", -4.0), [wish(9.0, knob="bias")], rails(now_s=NOW_S + 60.0)))

        assert -6.0 == lower.allowed
        assert -2.4 == higher.allowed

    @pytest.mark.parametrize("rule", TROUBLES)
    def test_what_raises_risk_is_stopped(self, rule: str) -> None:
        """Back-off, divergence, an unknown regime, dwell and budget each stop a raise by their name."""
        pool = pool_of()
        TROUBLES[rule](pool)

        assert rule == stopped_by(pool, wish(80))

    @pytest.mark.parametrize("rule", TROUBLES)
    def test_backing_off_is_always_allowed(self, rule: str) -> None:
        """Whatever stops a raise does not stop the way back."""
        pool = pool_of()
        TROUBLES[rule](pool)

        assert "" == stopped_by(pool, wish(50))

    def test_backing_off_needs_no_fresh_telemetry(self) -> None:
        """A stale engine may be cut, and may not be raised."""
        assert "" == stopped_by(pool_of(), wish(50), fresh=())
        assert "stale" == stopped_by(pool_of(), wish(80), fresh=("e1",))

    def test_a_paused_pool_moves_nothing(self) -> None:
        """An operator's pause holds everything still, overrides and backing off included."""
        for value, pinned in ((50, False), (80, False), (70, True)):
            pool = pool_of()
            pool.paused = True

            assert "paused" == stopped_by(pool, pin(pool, value) if pinned else wish(value))

    def test_a_flag_is_a_raise_both_ways(self) -> None:
        """Of a knob without an order nobody knows which way the risk lies, so dwell binds both."""
        pool = pool_of()
        pool.engines["e0"].raised_s["chunked"] = NOW_S - 1.0

        assert "dwell" == stopped_by(pool, wish(value=True, knob="chunked"))

    def test_a_knob_moves_once_a_tick(self) -> None:
        """Of two proposals for one knob the first holds, and the second is stopped by `one_change`."""
        ruling = judge(pool_of(), [wish(50, policy="a"), wish(45, policy="b")], rails())

        assert [50] == [verdict.allowed for verdict in ruling.accepted]
        assert ["one_change"] == [verdict.rule for verdict in ruling.stopped]

    def test_the_same_stop_is_recorded_once(self) -> None:
        """A proposal that is stopped tick after tick by the same rule is told of at the first."""
        pool = pool_of()
        raise_recently(pool)

        assert 1 == len(judge(pool, [wish(80)], rails()).stopped)
        assert 0 == len(judge(pool, [wish(80)], rails(now_s=NOW_S + 1)).stopped)

    def test_dwell_counts_from_the_last_raise(self) -> None:
        """A second raise waits 30 s after the first, to the tick."""
        pool = pool_of()

        assert "" == stopped_by(pool, wish(70))
        assert "dwell" == stopped_by(pool, wish(80), now_s=NOW_S + 29.0)
        assert "" == stopped_by(pool, wish(80), now_s=NOW_S + 30.0)

    def test_the_budget_is_of_the_last_hour(self) -> None:
        """What was spent more than an hour ago may be spent again."""
        pool = pool_of()
        spend_the_budget(pool)

        assert "budget" == stopped_by(pool, wish(80), now_s=NOW_S + 3000.0)
        assert "" == stopped_by(pool, wish(80), now_s=NOW_S + 3600.0)


def pool_with(pool: PoolState, knob: str, value: Value) -> PoolState:
    """The same pool holding another value."""
    pool.engines["e0"].wanted[knob] = value
    return pool


class TestOverrides:
    """What an operator pins goes before policies, within bounds and slew."""

    def test_it_stops_policies(self) -> None:
        """A pinned knob is no policy's any more."""
        pool = pool_of()
        pin(pool, 70)

        assert "override" == stopped_by(pool, wish(50))

    def test_it_needs_no_dwell_no_dead_band_and_no_telemetry(self) -> None:
        """An operator may raise again at once, by little, and blind."""
        pool = pool_of()
        raise_recently(pool)
        forget_regime(pool)

        assert "" == stopped_by(pool, pin(pool, 65), fresh=())

    def test_it_stays_within_bounds_and_slew(self) -> None:
        """An operator's pin is bounded like everything else."""
        pool = pool_of()

        assert 96 == the_verdict(judge(pool, [pin(pool, 10_000)], rails())).allowed

    def test_an_engines_own_goes_before_the_pools(self) -> None:
        """With both in force the pool's override never moves an engine that has its own."""
        pool = pool_of(max_active_requests=70)
        own, common = pin(pool, 70), pin(pool, 90, target="", override_id="o0")

        assert ["override"] == [v.rule for v in judge(pool, [own, common], rails()).stopped]
        assert 70 == pool.engines["e0"].wanted[BATCH_CAP]

    @pytest.mark.parametrize("name", [OVERRIDE, f"{OVERRIDE}:", f"{OVERRIDE}:o2", f"{OVERRIDE}:o1"])
    def test_a_policy_that_calls_itself_an_override_gains_nothing(self, name: str) -> None:
        """Without an override in force its name is no key to the rails."""
        pool = pool_of()
        raise_recently(pool)

        assert "dwell" == stopped_by(pool, wish(80, policy=name))


class TestRestarts:
    """A restart needs everything: serving peers, no canary, dwell, budget."""

    @staticmethod
    def wish() -> Proposal:
        """Into the other variant."""
        return wish("splitkv", knob=VARIANT)

    def test_it_is_accepted_when_nothing_speaks_against(self) -> None:
        """All engines serve, none is in change: one may go."""
        assert "" == stopped_by(pool_of(), self.wish())

    def test_one_at_a_time_within_one_tick(self) -> None:
        """Two engines proposed at once: the first goes, the second is `in_change`."""
        ruling = judge(pool_of(), [self.wish(), wish("splitkv", knob=VARIANT, target="e1")], rails())

        assert ["e0"] == [verdict.proposal.target for verdict in ruling.accepted]
        assert ["in_change"] == [verdict.rule for verdict in ruling.stopped]

    def test_one_at_a_time_over_ticks(self) -> None:
        """While one engine is away no other goes."""
        pool = pool_of()
        pool.relaunches.append(
            Relaunch(engine="e1", variant="splitkv", before="graphs", phase=DRAINING, since_s=0.0, decision="d")
        )

        assert "in_change" == stopped_by(pool, self.wish())

    def test_an_engine_that_does_not_serve_is_left_alone(self) -> None:
        """One that drains, or is not attached, is not sent away again."""
        draining, gone = pool_of(), pool_of()
        draining.engines["e0"].phase = DRAINING
        gone.engines["e0"].attached = False

        assert "in_change" == stopped_by(draining, self.wish())
        assert "in_change" == stopped_by(gone, self.wish())

    def test_min_serving_keeps_half_the_pool(self) -> None:
        """With only two of four engines fresh none may go away."""
        assert "min_serving" == stopped_by(pool_of(), self.wish(), fresh=("e0", "e1"))

    def test_a_single_engine_never_restarts(self) -> None:
        """Of a pool of one nothing would be left to serve."""
        assert "min_serving" == stopped_by(pool_of(1), self.wish(), fresh=("e0",))

    def test_a_canary_holds_the_others(self) -> None:
        """While one is watched no other follows."""
        pool = pool_of()
        pool.canary = Canary(engine="e1", variant="splitkv", before="graphs", until_s=2000.0, decision="d")

        assert "canary" == stopped_by(pool, self.wish())

    def test_a_barred_variant_is_not_tried(self) -> None:
        """After a failed canary its variant rests, and then may be tried again."""
        pool = pool_of()
        pool.barred["splitkv"] = NOW_S + 10.0

        assert "barred" == stopped_by(pool, self.wish())
        assert "" == stopped_by(pool, self.wish(), now_s=NOW_S + 10.0)

    def test_restart_dwell(self) -> None:
        """An engine restarts at most once in its dwell."""
        pool = pool_of()
        pool.engines["e0"].restarted_s = NOW_S - 599.0

        assert "dwell" == stopped_by(pool, self.wish())
        assert "" == stopped_by(pool, self.wish(), now_s=NOW_S + 1.0)

    def test_a_restart_costs_ten_of_the_budget(self) -> None:
        """With nine raises left a restart is too dear, though a raise is not."""
        pool = pool_of()
        pool.raises_s = [NOW_S] * (DOCUMENT.guard.changes_per_hour - 9)

        assert "budget" == stopped_by(pool, self.wish())
        assert "" == stopped_by(pool, wish(80))

    @pytest.mark.parametrize("rule", ["backoff", "diverged", "unknown_regime"])
    def test_a_restart_is_a_raise(self, rule: str) -> None:
        """What stops raises stops restarts."""
        pool = pool_of()
        TROUBLES[rule](pool)

        assert rule == stopped_by(pool, self.wish())

    def test_an_operators_restart_waits_for_canary_and_capacity_only(self) -> None:
        """A pinned variant needs no dwell and no budget, but never takes the last engines away."""
        pool = pool_of()
        pool.engines["e0"].restarted_s = NOW_S
        spend_the_budget(pool)
        pool.barred["splitkv"] = NOW_S + 10.0
        proposal = pin(pool, "splitkv", knob=VARIANT)

        assert "min_serving" == stopped_by(pool, proposal, fresh=("e0",))
        assert "" == stopped_by(pool, proposal)


class TestBounds:
    """The bounds that hold are those of engine and operator both."""

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [("4", "128", (4, 128)), ("4.5", "10.2", (5, 10)), ("300", "400", (256, 256)), ("0", "0.5", (1, 1))],
    )
    def test_of_a_whole_number_are_whole_and_inside_the_engines(
        self, low: str, high: str, expected: tuple[int, int]
    ) -> None:
        """Fractions are rounded inwards; where the two do not meet the engine's nearest bound holds."""
        document = read_document(f"version: 1\nknobs: {{max_active_requests: {{min: {low}, max: {high}}}}}")

        assert expected == bounds_of(CAP, document)

    def test_a_setting_outside_is_led_in_under_the_slew(self) -> None:
        """After a stricter document a cap of 200 comes down to 128 by itself, and never goes further out."""
        pool = pool_of(max_active_requests=200)
        values = []
        for tick in range(4):
            for verdict in judge(pool, lead_in(pool, DOCUMENT, pool.engines), rails(now_s=NOW_S + tick)).accepted:
                if "e0" == verdict.proposal.target and isinstance(verdict.allowed, int):
                    pool.engines["e0"].wanted[BATCH_CAP] = verdict.allowed
                    values.append(verdict.allowed)

        assert [128] == values
        assert LEAD_IN not in {wish.policy for wish in lead_in(pool, DOCUMENT, pool.engines) if wish.target == "e0"}

    def test_a_small_step_inwards_is_made_in_spite_of_the_dead_band(self) -> None:
        """130 becomes 128, although that is less than the dead-band."""
        pool = pool_of(1, max_active_requests=130)

        assert [128] == [v.allowed for v in judge(pool, lead_in(pool, DOCUMENT, pool.engines), rails()).accepted]

    def test_weights_are_led_in_as_well(self) -> None:
        """A routing weight outside the document's bounds is brought back."""
        document = read_document("version: 1\nweights: {min: 10, nominal: 50, max: 100}")
        pool = pool_of(1)

        assert [(WEIGHT, 100)] == [(wish.knob, wish.value) for wish in lead_in(pool, document, pool.engines)]

    def test_an_outsider_pinned_by_an_operator_is_left_to_the_pin(self) -> None:
        """Where an override stands, leading in is its business."""
        pool = pool_of(1, max_active_requests=200)
        pin(pool, 250)

        assert [] == lead_in(pool, DOCUMENT, pool.engines)

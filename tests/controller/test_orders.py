"""Standing orders: overrides, modes, pause, policy documents, intents, quarantine, and what outsiders may not fill."""

import math
from dataclasses import replace
from typing import Any

import pytest

from flyball_controller.machine import Seams
from flyball_controller.machine.filing import MAX_ENGINES
from flyball_controller.machine.orders import MAX_GATEWAYS, MAX_GRANTS, MAX_OVERRIDES, standing_intent
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.machine.state import PoolState
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import (
    Attach,
    Grant,
    Intent,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Proposal,
    SlowProposal,
    TargetKind,
)
from flyball_core.knobs import BATCH_CAP, WEIGHT, KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import (
    CheckpointDue,
    DecisionRecord,
    Directive,
    Heartbeat,
    RecordKind,
    RoutingTable,
    Snapshot,
    TickRecord,
)
from flyball_policies.seam import Memory, PoolView
from harness.invariants import check_events
from harness.scripted_engine import POOL, Load
from harness.scripted_pool import POLICY, WALL_S, ScriptedPool, scripted_pool


def override(value: Value, **changes: Any) -> OverrideSet:
    """An override of one engine's cap for a long time."""
    made = OverrideSet(
        pool=POOL,
        override_id="o1",
        target="e0-0",
        knob=BATCH_CAP,
        value=value,
        expires_wall_s=WALL_S + 1e6,
        reason="test",
        author="op",
    )
    return replace(made, **changes)


def orders_said(pool: ScriptedPool) -> list[str]:
    """What was recorded about orders."""
    return [record.summary for record in pool.log.decisions(RecordKind.ORDER)]


def machine(pool: ScriptedPool) -> PoolState:
    """The machine's view of the pool."""
    return pool.state.pools["chat"]


@pytest.fixture
def pool() -> ScriptedPool:
    """A pool in control, some seconds old."""
    made = scripted_pool()
    made.run(5)
    return made


class TestOverrides:
    """An operator pins a knob, within its bounds, until a time."""

    def test_it_moves_the_knob_under_the_slew(self, pool: ScriptedPool) -> None:
        """From 64 to 20 in steps of at most x0.6 a second."""
        pool.put(override(20))
        pool.run(12)
        caps = [v.allowed for d in pool.log.decisions() for v in d.verdicts if v.proposal.policy == "override:o1"]

        assert [39, 24, 20] == caps
        assert 20 == pool.engines["e0-0"].setting[BATCH_CAP]
        assert [] == check_events(pool.log).all

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (override(300), "max_active_requests must be 4 to 128, not 300"),
            (override(3), "max_active_requests must be 4 to 128, not 3"),
            (override(math.nan), "max_active_requests must be 4 to 128, not nan"),
            (override(7.5), "max_active_requests takes a whole number, not 7.5"),
            (override("many"), "max_active_requests takes a whole number, not 'many'"),
            (override(value=True), "max_active_requests takes a whole number, not True"),
            (override(20, target="e9"), "no engine 'e9' in this pool"),
            (override(20, knob="nothing"), "no engine in its scope has a knob 'nothing'"),
            (override(20, expires_wall_s=math.nan), "its expiry is not a time"),
            (override(20, expires_wall_s=math.inf), "its expiry is not a time"),
            (override("other", knob="variant"), "variant takes one of graphs, splitkv, not 'other'"),
            (override(1000, knob=WEIGHT), "weight must be 8 to 256, not 1000"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_wrong_one_is_refused_with_what_would_be_right(
        self, pool: ScriptedPool, wrong: OverrideSet, words: str
    ) -> None:
        """The record names the bounds or the choices; nothing moves."""
        pool.put(wrong)
        pool.second()

        assert f"override o1 of op refused: {words}" == orders_said(pool)[-1]
        assert {} == machine(pool).overrides
        assert 1 == machine(pool).counts["override_refused"]

    def test_of_the_whole_pool_it_must_suit_every_engine(self, pool: ScriptedPool) -> None:
        """A value that one engine cannot hold is refused for all."""
        engine = pool.engines["e1-1"]
        engine.specs = (replace(engine.specs[0], maximum=32, safe=16), engine.specs[1])
        engine.setting[BATCH_CAP] = 32
        pool.put(engine.attach())
        pool.put(override(40, target=""))
        pool.second()

        assert "must be 4 to 32, not 40" in orders_said(pool)[-1]

    def test_it_expires_by_wall_time_and_says_so(self, pool: ScriptedPool) -> None:
        """At its time it is gone, which is recorded, and the knob is automatic again."""
        pool.put(override(40, expires_wall_s=WALL_S + pool.now_s + 10.0))
        pool.run(9)
        assert "o1" in machine(pool).overrides
        pool.run(1)

        assert {} == machine(pool).overrides
        assert "override o1 of op on max_active_requests expired: automatic again" == orders_said(pool)[-1]

    @pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "expired"])
    def test_the_knob_goes_back_to_where_it_was(self, pool: ScriptedPool, *, lifted: bool) -> None:
        """Under slew and dwell, up as well as down, if no policy asks otherwise; then nobody remembers the pin."""
        pool.seams = Seams(slots=())
        before = {name: pool.engines[name].setting[BATCH_CAP] for name in ("e0-0", "e0-1")}
        until_s = WALL_S + pool.now_s + 20.0
        pool.put(override(20, expires_wall_s=until_s))
        pool.put(override(90, override_id="o2", target="e0-1", expires_wall_s=until_s))
        pool.run(19)
        held = [pool.engines[name].setting[BATCH_CAP] for name in ("e0-0", "e0-1")]
        if lifted:
            for name in ("o1", "o2"):
                pool.put(OverrideClear(pool=POOL, override_id=name, author="op"))
        pool.run(200)

        assert [20, 90] == held
        assert before == {name: pool.engines[name].setting[BATCH_CAP] for name in before}
        assert [{}, {}] == [machine(pool).engines[name].before_pin for name in before]
        assert [] == check_events(pool.log).all

    def test_a_policy_that_moves_the_knob_takes_over(self) -> None:
        """What a policy asks for after the pin is not undone in favour of what was before it."""
        pool = scripted_pool()
        pool.seams = Seams(slots=(PolicySlot(Lowering()),))
        pool.run(5)
        pool.put(override(40, expires_wall_s=WALL_S + pool.now_s + 5.0))
        pool.run(60)

        assert 25 >= int(pool.engines["e0-0"].setting[BATCH_CAP])
        assert {} == machine(pool).engines["e0-0"].before_pin

    def test_it_can_be_lifted(self, pool: ScriptedPool) -> None:
        """An operator clears it by its id; clearing one that is not there is said, not an error."""
        pool.put(override(40))
        for _ in range(2):
            pool.put(OverrideClear(pool=POOL, override_id="o1", author="op2"))
        pool.second()

        assert ["op2 lifts override o1", "op2 lifts override o1, which there is none of"] == orders_said(pool)[-2:]
        assert {} == machine(pool).overrides

    def test_there_are_at_most_so_many(self, pool: ScriptedPool) -> None:
        """One more than the bound is refused, but those there are can be renewed."""
        for i in range(MAX_OVERRIDES + 1):
            pool.put(override(40, override_id=f"o{i}"))
        pool.put(override(41, override_id="o3"))

        assert MAX_OVERRIDES == len(machine(pool).overrides)
        assert 41 == machine(pool).overrides["o3"].value

    def test_an_engines_own_and_the_pools_do_not_take_turns(self, pool: ScriptedPool) -> None:
        """With both in force each engine holds one value and keeps it."""
        pool.put(override(70, override_id="own"))
        pool.put(override(60, override_id="all", target=""))
        pool.run(20)
        told = len(pool.log.told())
        pool.run(20)

        assert 70 == pool.engines["e0-0"].setting[BATCH_CAP]
        assert 60 == pool.engines["e1-0"].setting[BATCH_CAP]
        assert told == len(pool.log.told())


class Lowering:
    """A policy that wants every cap at 25 or lower."""

    name = "lowering"

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Every engine above it down."""
        del memory
        return [
            Proposal(policy=self.name, kind=TargetKind.ENGINE, target=name, knob=BATCH_CAP, value=25, reason="lower")
            for name, held in zip(view.engines, view.settings[BATCH_CAP].tolist(), strict=True)
            if held > 25
        ]


class Wanting:
    """A policy that always wants a higher cap."""

    name = "wanting"
    asked = 0

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Every engine up."""
        del memory
        Wanting.asked += 1
        return [
            Proposal(policy=self.name, kind=TargetKind.ENGINE, target=e, knob=BATCH_CAP, value=90, reason="")
            for e in view.engines
        ]


class TestModes:
    """Observe records, advise says what it would do, control does it."""

    @staticmethod
    def run(mode: str) -> ScriptedPool:
        """Half a minute under a mode."""
        Wanting.asked = 0
        pool = scripted_pool(
            policy=POLICY.replace("mode: control", f"mode: {mode}"), seams=Seams(slots=(PolicySlot(Wanting()),))
        )
        pool.run(90)
        return pool

    def test_observe_proposes_nothing_and_tells_nobody(self) -> None:
        """No policy is asked, nothing is published but records and heartbeats."""
        pool = self.run("observe")

        assert 0 == Wanting.asked
        assert [] == pool.log.told()
        assert {DecisionRecord, TickRecord, Heartbeat, CheckpointDue} == {type(o) for o in pool.log.outputs}
        assert not any(record.verdicts for record in pool.log.decisions())

    def test_advise_says_what_it_would_do_once_and_tells_nobody(self) -> None:
        """The advice stands in a decision record, not in one per tick; no directive, no table."""
        pool = self.run("advise")
        advice = [d.summary for d in pool.log.decisions(RecordKind.DECISION) if "would set" in d.summary]

        assert [] == pool.log.told()
        assert 1 == len(advice)
        assert "would set e0-0 max_active_requests 64 -> 90" in advice[0]

    def test_control_does_it(self) -> None:
        """The same wish is told, taken and acknowledged."""
        pool = self.run("control")

        assert {90} == {engine.setting[BATCH_CAP] for engine in pool.engines.values()}

    def test_a_pool_without_orders_observes(self) -> None:
        """Telemetry and attaches alone govern nothing."""
        pool = scripted_pool(policy="")
        pool.run(10)

        assert Mode.OBSERVE is machine(pool).mode
        assert [] == pool.log.told()

    def test_a_document_without_mode_advises(self) -> None:
        """New pools start in `advise`."""
        pool = scripted_pool(policy=POLICY.replace("mode: control\n", ""))
        pool.run(10)

        assert Mode.ADVISE is machine(pool).mode

    def test_an_order_changes_the_mode(self, pool: ScriptedPool) -> None:
        """From control to observe and back, each on record with author and reason."""
        pool.put(Order(pool=POOL, author="op", reason="night", mode=Mode.OBSERVE))
        pool.second()

        assert Mode.OBSERVE is machine(pool).mode
        assert "op: mode observe: night" == orders_said(pool)[-1]


def busy(pool: ScriptedPool) -> None:
    """Let one engine be slow, so that there is always something to do."""
    pool.engines["e0-1"].slowness = 2.5
    pool.load = lambda _now: Load(concurrency=230.0)


class TestPause:
    """A pause freezes actuation, survives everything, and ends when it is told to."""

    def test_nothing_moves_while_paused(self, pool: ScriptedPool) -> None:
        """No knob and no weight moves from the pause to the resumption."""
        busy(pool)
        pool.put(Order(pool=POOL, author="op", paused=True))
        pool.run(3)
        held = [dict(engine.setting) for engine in pool.engines.values()]
        pool.run(60)

        assert held == [dict(engine.setting) for engine in pool.engines.values()]
        pool.put(Order(pool=POOL, author="op", paused=False))
        pool.run(20)

        assert held != [dict(engine.setting) for engine in pool.engines.values()]

    def test_it_survives_a_takeover(self, pool: ScriptedPool) -> None:
        """A successor is as paused as its predecessor."""
        pool.put(Order(pool=POOL, author="op", paused=True))
        pool.claim("c2")
        pool.run(3)

        assert machine(pool).paused


class TestIntents:
    """All standing orders at once, for those who have lost the first ones."""

    def test_it_restores_what_a_fresh_state_lacks(self, pool: ScriptedPool) -> None:
        """A state that sees only the intent stands where the one before it stood."""
        pool.put(override(40))
        pool.put(Order(pool=POOL, author="op", paused=True))
        intent = standing_intent(machine(pool), len(pool.log.inputs))
        assert intent is not None
        fresh = scripted_pool(policy="")
        fresh.put(intent)
        found = machine(fresh)

        assert machine(pool).overrides == found.overrides
        assert (machine(pool).mode, True, POLICY) == (found.mode, found.paused, found.policy_text)

    def test_one_that_an_order_has_overtaken_changes_nothing(self, pool: ScriptedPool) -> None:
        """A pause that came after the intent was written stands, and the intent is counted."""
        intent = standing_intent(machine(pool), len(pool.log.inputs))
        assert intent is not None
        pool.put(Order(pool=POOL, author="op", paused=True))
        pool.put(intent)

        assert machine(pool).paused
        assert 1 == machine(pool).counts["intents_out_of_date"]

    def test_a_broken_one_changes_nothing(self, pool: ScriptedPool) -> None:
        """An intent whose document cannot be read leaves the orders in force."""
        before = (machine(pool).policy_text, machine(pool).mode)
        pool.put(
            Intent(pool=POOL, policy_text="version: 9", policy_author="x", mode=Mode.OBSERVE, paused=True, as_of=10**6)
        )

        assert before == (machine(pool).policy_text, machine(pool).mode)
        assert not machine(pool).paused

    def test_overrides_without_an_expiry_are_left_out(self, pool: ScriptedPool) -> None:
        """No pin lasts for ever by a NaN."""
        pool.put(
            Intent(
                pool=POOL,
                policy_text=POLICY,
                policy_author="x",
                mode=Mode.CONTROL,
                paused=False,
                overrides=(override(40, expires_wall_s=math.nan), override(50, override_id="o2")),
                as_of=10**6,
            )
        )

        assert ["o2"] == list(machine(pool).overrides)

    def test_a_pool_without_orders_has_none_to_repeat(self) -> None:
        """There is no intent of a pool that only observes."""
        assert standing_intent(PoolState(pool="p"), 0) is None


class TestSlowAnswers:
    """Answers from outside `step`: only of who was asked, only to the last question, only once."""

    @staticmethod
    def asked() -> tuple[ScriptedPool, int]:
        """A pool that has just asked the policy `slow`."""
        pool = scripted_pool(seams=Seams(slots=(), slow=("slow",)))
        outputs = pool.run(5)
        return pool, next(o.tick_revision for o in reversed(outputs) if isinstance(o, Snapshot))

    @staticmethod
    def answer(revision: int, **changes: Any) -> SlowProposal:
        """A sound answer."""
        wish = Proposal(policy="slow", kind=TargetKind.ENGINE, target="e0-0", knob=BATCH_CAP, value=50, reason="")
        made = SlowProposal(pool=POOL, policy="slow", tick_revision=revision, proposals=(wish,))
        return replace(made, **changes)

    def test_an_answer_is_used_at_the_next_tick(self) -> None:
        """What was proposed moves the knob."""
        pool, revision = self.asked()
        pool.put(self.answer(revision))
        pool.run(3)

        assert 50 == pool.engines["e0-0"].setting[BATCH_CAP]

    def test_copies_and_late_answers_are_counted_only(self) -> None:
        """The second copy, an answer to an earlier tick, and one of nobody asked change nothing."""
        pool, revision = self.asked()
        pool.put(self.answer(revision, missed="late", proposals=()))
        pool.put(self.answer(revision, missed="late", proposals=()))
        pool.put(self.answer(revision - 1))
        pool.put(self.answer(revision, policy="stranger"))
        pool.second()

        assert 3 == machine(pool).counts["proposal_out_of_date"]
        assert {"slow": 1} == machine(pool).trips

    @pytest.mark.parametrize("value", [math.nan, math.inf, 2**62])
    def test_a_mad_answer_is_a_miss(self, value: float) -> None:
        """A value that is no number to set trips the policy and proposes nothing."""
        pool, revision = self.asked()
        mad = replace(self.answer(revision).proposals[0], value=value)
        pool.put(self.answer(revision, proposals=(mad,)))
        pool.second()

        assert {"slow": 1} == machine(pool).trips
        assert 64 == pool.engines["e0-0"].setting[BATCH_CAP]

    def test_nobody_proposes_in_anothers_name(self) -> None:
        """A policy that signs as an override trips."""
        pool, revision = self.asked()
        forged = replace(self.answer(revision).proposals[0], policy="override:o1")
        pool.put(self.answer(revision, proposals=(forged,)))

        assert {"slow": 1} == machine(pool).trips


class TestPolicyDocuments:
    """A document is taken whole or refused whole."""

    def test_a_wrong_one_keeps_the_old_and_says_where(self, pool: ScriptedPool) -> None:
        """The record carries line, column and hint; mode and document stay."""
        pool.put(PolicyText(pool=POOL, text="version: 1\nmood: control\n", author="op"))
        pool.second()

        assert POLICY == machine(pool).policy_text
        assert "policy of op refused: policy document:2:1: unknown key 'mood'" in orders_said(pool)[-1]
        assert "did you mean 'mode'?" in orders_said(pool)[-1]

    def test_stricter_bounds_take_hold_by_themselves(self, pool: ScriptedPool) -> None:
        """Under a new document with a lower maximum caps come down to it under the slew, without any policy."""
        pool.put(PolicyText(pool=POOL, text=POLICY.replace("max: 128", "max: 20"), author="op"))
        pool.run(20)

        assert all(int(engine.setting[BATCH_CAP]) <= 20 for engine in pool.engines.values())
        assert [] == check_events(pool.log).all


class TestBoundsOfMemory:
    """What outsiders can name is bounded in number."""

    def test_engines_gateways_and_grants(self) -> None:
        """Ten thousand names of each kind leave at most the bound of each."""
        pool = scripted_pool(agents=1, per_agent=1)
        for i in range(MAX_ENGINES + 300):
            for kind in TargetKind:
                pool.put(Attach(pool=POOL, kind=kind, target=f"t{i}", incarnation=Incarnation("i")))
            pool.put(Grant(pool=POOL, name=f"g{i}", amount=1.0, expires_wall_s=1e300))
        found = machine(pool)

        assert MAX_ENGINES == len(found.engines)
        assert MAX_GATEWAYS == len(found.gateways)
        assert MAX_GRANTS == len(found.grants)
        assert found.counts["attaches_refused"] > 300

    def test_a_target_without_a_name_is_refused(self, pool: ScriptedPool) -> None:
        """There is no engine ''."""
        pool.put(Attach(pool=POOL, kind=TargetKind.ENGINE, target="", incarnation=Incarnation("i")))

        assert "" not in machine(pool).engines

    def test_an_input_without_a_pool_changes_nothing(self, pool: ScriptedPool) -> None:
        """No pool, no effect, but a count."""
        pool.put(Order(pool=PoolId(""), author="op", paused=True))

        assert ["chat"] == list(pool.state.pools)
        assert 1 == pool.state.counts["inputs_without_pool"]


class TestAttaches:
    """What an engine says of itself is believed as far as it can be true."""

    def test_a_setting_it_cannot_hold_is_not_governed(self, pool: ScriptedPool) -> None:
        """An engine that says it holds more than its own maximum is told nothing about that knob."""
        engine = pool.engines["e0-0"]
        engine.restart("i9")
        machine(pool).engines["e0-0"].wanted.clear()
        engine.setting[BATCH_CAP] = 10_000
        pool.put(engine.attach())
        pool.run(5)

        assert BATCH_CAP not in machine(pool).engines["e0-0"].wanted

    def test_a_refusal_with_absurd_values_moves_nothing(self, pool: ScriptedPool) -> None:
        """After a Nack the last sound setting is wanted, never a value that the engine could not hold."""
        pool.engines["e0-0"].refuse = lambda _directive: "no"
        pool.on_answer = lambda _m, ack: replace(ack, effective={BATCH_CAP: 10**9})
        pool.put(override(40))
        pool.run(30)

        assert [] == check_events(pool.log).motion
        assert 10**9 != machine(pool).engines["e0-0"].wanted[BATCH_CAP]

    def test_a_live_variant_is_believed_when_it_is_acknowledged(self) -> None:
        """Where a kernel choice is a live knob it is told once, and is then what the engine runs."""
        pool = scripted_pool()
        live = KnobSpec(
            name="variant",
            knob_class=KnobClass.LIVE,
            kind=KnobKind.CHOICE,
            safe="graphs",
            choices=("graphs", "splitkv"),
        )
        engine = pool.engines["e0-0"]
        engine.specs = (engine.specs[0], live)
        pool.put(engine.attach())
        pool.put(override("splitkv", knob="variant"))
        pool.run(10)
        told = [d for d in pool.log.told("e0-0") if isinstance(d, Directive) and "splitkv" in d.values.values()]

        assert "splitkv" == machine(pool).engines["e0-0"].variant
        assert 1 == len(told)
        assert not [o for o in pool.log.outputs if isinstance(o, RoutingTable) and o.routes[0].weight == 0]

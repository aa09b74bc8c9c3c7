"""What receivers are told and in which order: lower at the gateway first, raise at the engine first."""

import pytest
from hypothesis import given, strategies as st

from flyball_controller.machine import Seams
from flyball_controller.machine.publishing import WAIT_FOR_GATEWAYS_S, share
from flyball_controller.machine.seams import PolicySlot
from flyball_core.inputs import Ack, AckStatus, Attach, Mode, Order, Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import Directive, Heartbeat, Output, RoutingTable, Tombstone, compacted_key
from flyball_policies.seam import Memory, PoolView
from harness.invariants import check_events
from harness.scripted_engine import POOL
from harness.scripted_pool import Message, ScriptedPool, scripted_pool


class Scripted:
    """A policy that asks at some ticks for what the test says."""

    name = "scripted"

    def __init__(self) -> None:
        self.wishes: list[tuple[str, str, int]] = []

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """The wishes, once."""
        del view, memory
        wishes, self.wishes = self.wishes, []
        return [
            Proposal(policy=self.name, kind=TargetKind.ENGINE, target=target, knob=knob, value=value, reason="test")
            for target, knob, value in wishes
        ]


def quiet_pool(*, gateways: int = 1) -> tuple[ScriptedPool, Scripted]:
    """A pool in which only the test wants something, some seconds old."""
    policy = Scripted()
    pool = scripted_pool(gateways=gateways, seams=Seams(slots=(PolicySlot(policy),)))
    pool.run(5)
    return pool, policy


def moments(pool: ScriptedPool, engine: str) -> dict[str, float]:
    """When the gateways and when the engine last applied a cap."""
    found = {}
    for event in pool.log.applied:
        if event.target == engine and BATCH_CAP in event.values:
            found["engine"] = event.time_s
        elif event.target.startswith("gw"):
            found["gateway"] = event.time_s
    return found


def caps_told(outputs: list[Output], engine: str) -> tuple[int | None, int]:
    """The cap told to the engine (None: nothing), and the sum of the caps told to gateways."""
    told = [o.values[BATCH_CAP] for o in outputs if isinstance(o, Directive) and o.engine == engine]
    shares = [r.in_flight_cap for o in outputs if isinstance(o, RoutingTable) for r in o.routes if r.engine == engine]
    cap = told[-1] if told else None
    assert cap is None or isinstance(cap, int)
    return cap, sum(shares)


class TestOrderOfCaps:
    """No more work is sent than an engine takes, at any time."""

    def test_lowering_goes_to_the_gateways_first(self) -> None:
        """At the tick of the cut the table carries it and the engine is told nothing; the tick after it is told."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 50)]
        first, second = pool.second(), pool.second()

        assert (None, 50) == caps_told(first, "e0-0")
        assert (50, 0) == caps_told(second, "e0-0")

    def test_raising_goes_to_the_engine_first(self) -> None:
        """At the tick of the raise the engine is told; the table follows once it has acknowledged."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        first, second = pool.second(), pool.second()

        assert (80, 0) == caps_told(first, "e0-0")
        assert (None, 80) == caps_told(second, "e0-0")

    def test_gateways_never_send_more_than_the_engine_holds(self) -> None:
        """Up and down over minutes: what gateways may send is at no moment above the engine's own cap."""
        pool, policy = quiet_pool(gateways=2)
        for i, cap in enumerate((50, 60, 40, 35, 50, 30, 45)):
            policy.wishes = [("e0-0", BATCH_CAP, cap)]
            for _ in range(35):
                pool.second()
                shares = [gateway.table["cap:e0-0"] for gateway in pool.gateways.values()]
                held = pool.engines["e0-0"].setting[BATCH_CAP]
                assert isinstance(held, int)
                assert sum(share for share in shares if isinstance(share, int)) <= held, i

        assert [] == check_events(pool.log).all

    def test_a_gateway_that_does_not_answer_holds_a_cut_up_for_seconds_only(self) -> None:
        """When the gateway's answer is lost the engine is told all the same, after its wait."""
        pool, policy = quiet_pool()
        pool.on_answer = lambda _message, ack: None if ack.target == "gw0" else ack
        policy.wishes = [("e0-0", BATCH_CAP, 50)]
        start = pool.state.time_s
        pool.run(10)
        told = [d for d in pool.log.told("e0-0") if isinstance(d, Directive) and d.values[BATCH_CAP] == 50]
        beats = {o.version.revision: o.time_s for o in pool.log.outputs if isinstance(o, Heartbeat)}

        assert 1 == len(told)
        assert WAIT_FOR_GATEWAYS_S == beats[told[0].version.revision] - (start + 1.0)

    def test_without_gateways_an_engine_is_told_at_once(self) -> None:
        """No gateway, no waiting."""
        pool, policy = quiet_pool(gateways=0)
        policy.wishes = [("e0-0", BATCH_CAP, 50)]

        assert (50, 0) == caps_told(pool.second(), "e0-0")


class TestShares:
    """Several gateways share an engine's cap out between them."""

    @given(cap=st.integers(1, 5000), count=st.integers(1, 300))
    def test_shares_add_up_and_starve_nobody(self, cap: int, count: int) -> None:
        """They sum to the cap, each has at least one, and no two differ by more than one."""
        shares = [share(cap, place, count) for place in range(count)]

        assert max(cap, count) == sum(shares)
        assert 1 <= min(shares) <= max(shares) <= min(shares) + 1

    @pytest.mark.parametrize("cap", [0, -1])
    def test_no_cap_is_shared_as_no_cap(self, cap: int) -> None:
        """An engine without a cap has none at any gateway."""
        assert 0 == share(cap, 0, 3)

    def test_tables_of_three_gateways_add_up(self) -> None:
        """Each gateway's table carries its own share of the same cap."""
        pool, _ = quiet_pool(gateways=3)

        assert 64 == sum(int(gateway.table["cap:e1-1"]) for gateway in pool.gateways.values())

    def test_a_gateway_that_leaves_gives_its_share_back(self) -> None:
        """The others' shares grow when one detaches."""
        pool, _ = quiet_pool(gateways=2)
        gone = pool.gateways.pop("gw1")
        left = gone.attach()
        pool.put(Attach(pool=POOL, kind=left.kind, target=left.target, incarnation=left.incarnation, attached=False))
        pool.run(2)

        assert 64 == pool.gateways["gw0"].table["cap:e0-0"]


def without_version(message: Message) -> object:
    """What a message says, but for its version and decision."""
    if isinstance(message, Directive):
        return message.engine, message.values, message.incarnation
    return message.gateway, message.routes, message.lanes


class TestTakeover:
    """A new owner rewrites everything under its epoch, and then ends the older keys."""

    def test_everything_is_told_again_under_the_new_epoch(self) -> None:
        """At its first tick the successor tells each receiver what it was last told, strictly newer."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80), ("e1-0", BATCH_CAP, 50)]
        pool.run(6)
        last = {target: pool.log.told(target)[-1] for target in ("e0-0", "e1-0", "gw0")}
        pool.claim("c2")
        outputs = pool.second()
        again = {target: pool.log.told(target)[-1] for target in last}

        assert 3 == len(last)
        for target, message in last.items():
            assert without_version(message) == without_version(again[target])
            assert pool.state.epoch == again[target].version.epoch
            assert again[target] in outputs
        assert [] == check_events(pool.log).all

    def test_older_keys_are_ended_after_the_rewrite(self) -> None:
        """Each tombstone names a key of the older epoch and comes after its successor's record; none is forgotten."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        pool.run(6)
        live = self._live(pool.log.outputs)
        pool.claim("c2")
        outputs = pool.second()
        ended = [o.key for o in outputs if isinstance(o, Tombstone)]

        assert live == set(ended)
        for i, output in enumerate(outputs):
            if isinstance(output, Tombstone):
                stem = output.key.rsplit("/", 1)[0]
                written = [compacted_key(o) for o in outputs[:i] if isinstance(o, (Directive, RoutingTable, Heartbeat))]
                assert f"{stem}/{pool.state.epoch}" in written

    @staticmethod
    def _live(outputs: list[Output]) -> set[str]:
        live: set[str] = set()
        for output in outputs:
            if isinstance(output, (Directive, RoutingTable, Heartbeat)):
                live.add(compacted_key(output))
            elif isinstance(output, Tombstone):
                live.discard(output.key)
        return live

    def test_nothing_is_answered_before_the_first_tick(self) -> None:
        """Between its claim and its first tick an owner publishes nothing, whatever comes."""
        pool, _ = quiet_pool()
        pool.claim("c2")

        assert [] == pool.put(Order(pool=POOL, author="op", mode=Mode.CONTROL))
        assert [] == pool.put(pool.engines["e0-0"].attach())


class TestRepublishing:
    """When something is told again, and when not."""

    def test_what_stands_is_not_told_again(self) -> None:
        """A minute without change tells receivers nothing."""
        pool, _ = quiet_pool()
        before = len(pool.log.told())
        pool.run(60)

        assert before == len(pool.log.told())

    def test_a_restarted_engine_is_told_its_setting_again(self) -> None:
        """A new incarnation that holds its launch values gets the wanted ones, in a new version."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        pool.run(6)
        engine = pool.engines["e0-0"]
        engine.restart("i9")
        engine.setting[BATCH_CAP] = 64
        pool.put(engine.attach())
        pool.run(2)

        assert 80 == engine.setting[BATCH_CAP]
        assert [] == check_events(pool.log).all

    def test_an_engine_that_lost_its_version_is_told_again(self) -> None:
        """One that attaches holding less than it was told gets it again."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        pool.run(6)
        engine = pool.engines["e0-0"]
        engine.held, engine.setting = None, {**engine.setting, BATCH_CAP: 64}
        pool.put(engine.attach())
        pool.run(2)

        assert 80 == engine.setting[BATCH_CAP]

    def test_what_left_is_taken_back_and_told_anew_on_return(self) -> None:
        """A detached engine's key is ended once; when it comes back it is told again."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        pool.run(6)
        engine = pool.engines["e0-0"]
        here = engine.attach()
        pool.put(Attach(pool=POOL, kind=here.kind, target="e0-0", incarnation=here.incarnation, attached=False))
        ended = [o.key for o in pool.run(3) if isinstance(o, Tombstone)]
        pool.put(engine.attach())
        told = [o for o in pool.run(3) if isinstance(o, Directive) and o.engine == "e0-0"]

        assert [f"directive/chat/e0-0/{pool.state.epoch}"] == ended
        assert [80] == [directive.values[BATCH_CAP] for directive in told]

    def test_an_answer_of_an_earlier_incarnation_is_not_believed(self) -> None:
        """An acknowledgement that comes after the engine's restart is counted and changes nothing."""
        pool, policy = quiet_pool()
        kept: list[Ack] = []

        def keep_back(_message: Message, ack: Ack) -> Ack | None:
            if ack.target != "e0-0":
                return ack
            kept.append(ack)
            return None

        pool.on_answer = keep_back
        policy.wishes = [("e0-0", BATCH_CAP, 80)]
        pool.second()
        engine = pool.engines["e0-0"]
        engine.restart("i9")
        engine.setting[BATCH_CAP] = 64
        pool.put(engine.attach())
        pool.put(kept[0])
        state = pool.state.pools["chat"]

        assert 1 == state.counts["acks_of_another_incarnation"]
        assert 64 == state.engines["e0-0"].holding.effective[BATCH_CAP]

    def test_every_engine_has_a_weight_from_the_start(self) -> None:
        """One known by telemetry only gets its nominal share of the traffic, not none."""
        pool, _ = quiet_pool()
        spec = pool.engines["e0-0"]
        pool.engines["bare"] = type(spec)(name="bare", agent="a0", gpu=7)
        pool.run(6)

        assert 128 == pool.gateways["gw0"].table["weight:bare"]

    def test_capabilities_that_shrink_are_heeded(self) -> None:
        """An engine that attaches again with a lower maximum is never told more than that."""
        pool, policy = quiet_pool()
        policy.wishes = [("e0-0", BATCH_CAP, 90)]
        pool.run(6)
        engine = pool.engines["e0-0"]
        low = type(engine.specs[0])
        engine.specs = (
            low(
                name=BATCH_CAP,
                knob_class=engine.specs[0].knob_class,
                kind=engine.specs[0].kind,
                safe=16,
                minimum=1,
                maximum=32,
            ),
            engine.specs[1],
        )
        engine.restart("i9")
        engine.setting[BATCH_CAP] = 32
        pool.put(engine.attach())
        pool.run(40)

        assert 32 == engine.setting[BATCH_CAP]
        assert AckStatus.NACK not in {i.body.status for i in pool.log.inputs if isinstance(i.body, Ack)}
        assert [] == check_events(pool.log).all

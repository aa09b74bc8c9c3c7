"""The engine's settings and the gateway's table keep the surface contract, and what is each one's own."""

from pathlib import Path

import pytest

from adapter_contract import SurfaceContract
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface, offer_directive
from flyball_agents.gateway_adapter import (
    LanePlace,
    TableDefaults,
    TableSurface,
    offer_table,
    routes_and_lanes,
    setting_of,
)
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.surface import Surface, capability_hash
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, GatewayId, Incarnation
from flyball_core.inputs import AckStatus, TargetKind
from flyball_core.outputs import Directive, Heartbeat, LaneRule, Route, RoutingTable
from receiver_bench import POOL, Broken, FakeEngine, FakeGateway, version


class TestSettingsKeepTheContract(SurfaceContract):
    """An engine's settings are a surface."""

    first = {"cap": 32, "margin": 0.25, "chunked": True, "order": "fifo"}
    second = {"cap": 8, "margin": 0.75, "chunked": False, "order": "priority"}

    def surface(self) -> Surface:
        """Settings over an engine in memory."""
        self.engine = FakeEngine()
        return SettingsSurface(self.engine)

    def fail(self, surface: Surface, name: str) -> None:
        """That knob sticks."""
        del surface
        self.engine.fails.add(name)
        self.engine.values[name] = self.first[name]

    def heal(self, surface: Surface) -> None:
        """Nothing sticks."""
        del surface
        self.engine.fails.clear()


class TestTableKeepsTheContract(SurfaceContract):
    """A gateway's table is a surface."""

    first = {"weight:a": 10, "cap:a": 4, "weight:b": 0, "cap:b": 0, "priority:chat": -1, "max_wait_s:chat": 2.0}
    second = {"weight:a": 0, "cap:a": 0, "weight:b": 256, "cap:b": 9, "priority:chat": 5, "max_wait_s:chat": 9.5}

    def surface(self) -> Surface:
        """A table over a gateway in memory."""
        self.gateway = FakeGateway()
        return TableSurface(self.gateway, TableDefaults())

    def fail(self, surface: Surface, name: str) -> None:
        """That engine or lane sticks."""
        del surface
        self.gateway.fails.add(name.partition(":")[2])

    def heal(self, surface: Surface) -> None:
        """Nothing sticks."""
        del surface
        self.gateway.fails.clear()


def test_settings_lower_before_they_raise() -> None:
    """On the way from one setting to the next no knob is raised before the others are lowered."""
    engine = FakeEngine()
    SettingsSurface(engine).apply({"cap": 128, "margin": 0.1})

    assert [("margin", 0.1), ("cap", 128)] == engine.sets


def test_settings_restart_through_the_controls() -> None:
    """A relaunch reaches the engine with its values."""
    engine = FakeEngine()
    SettingsSurface(engine).restart({"variant": "infer"})

    assert [{"variant": "infer"}] == engine.restarts


def test_a_table_gives_weight_before_it_takes_weight() -> None:
    """Caps go down first and up last; weights go up before others go down; lanes first of all."""
    gateway = FakeGateway()
    gateway.weights = {"a": 100, "b": 0}
    gateway.caps = {"a": 8, "b": 0}
    table = TableSurface(gateway, TableDefaults())
    table.apply({"weight:a": 0, "weight:b": 100, "cap:a": 0, "cap:b": 4, "priority:bulk": 3})

    assert ["lane bulk", "cap b", "weight b", "weight a", "cap a"] == [f"{s[0]} {s[1]}" for s in gateway.sets]


def test_a_table_waits_for_engines_that_are_not_there_yet() -> None:
    """An entry of an unknown engine is no error; it is set when the engine appears, and when it comes back."""
    gateway = FakeGateway()
    table = TableSurface(gateway, TableDefaults())
    held = {"weight:a": 50, "weight:c": 7, "cap:c": 3}
    table.apply(held)
    assert {"a": 50, "b": 100} == gateway.weights

    gateway.join("c")
    table.settle(held)
    assert (7, 3) == (gateway.weights["c"], gateway.caps["c"])

    gateway.weights["c"] = 9
    table.settle(held)
    assert gateway.weights["c"] == 9

    del gateway.weights["c"]
    table.settle(held)
    gateway.join("c")
    table.settle(held)
    assert gateway.weights["c"] == 7


def test_a_settling_that_fails_is_tried_again() -> None:
    """An engine that appears but cannot be set yet is not forgotten."""
    gateway = FakeGateway()
    table = TableSurface(gateway, TableDefaults())
    gateway.join("c")
    gateway.fails.add("c")
    with pytest.raises(Broken):
        table.settle({"weight:c": 7})
    gateway.fails.clear()
    table.settle({"weight:c": 7})

    assert gateway.weights["c"] == 7


def test_a_table_without_any_weight_is_refused() -> None:
    """A table that would leave all of several engines at 0 is an outage; a pool's only engine may be drained."""
    table = TableSurface(FakeGateway(), TableDefaults())

    assert table.refuse({"weight:a": 0, "weight:b": 0}) == "no engine would keep a weight above 0"
    assert table.refuse({"weight:a": 0}) is None
    assert table.refuse({"weight:a": 0, "weight:b": 0, "weight:c": 1}) == "no engine would keep a weight above 0"
    assert TableSurface(FakeGateway(("a",)), TableDefaults()).refuse({"weight:a": 0}) is None


def test_a_table_bounds_what_haproxy_bounds() -> None:
    """Weights are 0 to 256, classes -2047 to 2047; caps and waits end at the operator's limits."""
    table = TableSurface(FakeGateway(), TableDefaults(most_cap=64, most_wait_s=10.0))
    bounds = {spec.name: (spec.minimum, spec.maximum) for spec in table.specs()}

    assert [bounds[name] for name in ("weight:a", "cap:b", "priority:chat", "max_wait_s:bulk")] == [
        (0, 256),
        (0, 64),
        (-2047, 2047),
        (0.0, 10.0),
    ]


def test_a_table_eases_to_the_operators_safe_places() -> None:
    """Lanes named in the defaults have safe places of their own."""
    defaults = TableDefaults(weight=5, cap=6, lane=LanePlace(1, 2.0), lanes={"bulk": LanePlace(3, 4.0)})
    safe = {spec.name: spec.safe for spec in TableSurface(FakeGateway(("a",)), defaults).specs()}

    assert safe == {
        "weight:a": 5,
        "cap:a": 6,
        "priority:chat": 1,
        "max_wait_s:chat": 2.0,
        "priority:bulk": 3,
        "max_wait_s:bulk": 4.0,
    }


def test_a_table_has_no_knob_under_a_name_that_is_none() -> None:
    """Unknown families, empty and endless names have no knob; an engine's name may hold a colon."""
    table = TableSurface(FakeGateway(), TableDefaults())

    assert [table.spec(name) for name in ("weight:", "weight", "speed:a", "weight:" + "x" * 257)] == [None] * 4
    assert table.spec("weight:rack:4") is not None


def test_a_gateway_is_never_restarted() -> None:
    """A table has no restart-class knobs, and says so."""
    with pytest.raises(Rejected, match="not restarted for variant"):
        TableSurface(FakeGateway(), TableDefaults()).restart({"variant": "x"})


ROUTES = (
    Route(engine=EngineId("a"), weight=10, in_flight_cap=0),
    Route(engine=EngineId("rack:4"), weight=0, in_flight_cap=9),
)
LANES = (LaneRule(lane="chat", priority=-3, max_wait_s=1.5),)


def test_a_table_and_its_flat_names_say_the_same() -> None:
    """Flattening and its inverse lose nothing."""
    table = RoutingTable(
        pool=POOL, gateway=GatewayId("g"), version=version(5), routes=ROUTES, lanes=LANES, decision="d"
    )

    assert setting_of(table) == {
        "weight:a": 10,
        "cap:a": 0,
        "weight:rack:4": 0,
        "cap:rack:4": 9,
        "priority:chat": -3,
        "max_wait_s:chat": 1.5,
    }
    assert routes_and_lanes(setting_of(table)) == (ROUTES, LANES)


@pytest.mark.parametrize("setting", [{"speed:a": 1}, {"weight:": 1}, {"weight:a": 1}, {"priority:chat": 1}])
def test_flat_names_that_are_no_table_are_refused(setting: dict[str, int]) -> None:
    """An unknown family, an empty name and a half entry are errors, not guesses."""
    with pytest.raises(Rejected):
        routes_and_lanes(setting)


def test_a_directive_reaches_the_engine(tmp_path: Path) -> None:
    """Every field of a directive is judged: the right one is applied, one for another engine is not."""
    engine = FakeEngine()
    receiver = _receiver(tmp_path, "e1", TargetKind.ENGINE, SettingsSurface(engine))
    directive = Directive(
        pool=POOL,
        engine=EngineId("e1"),
        incarnation=Incarnation("i1"),
        capability_hash=capability_hash(engine.specs),
        version=version(5),
        values={"cap": 40, "variant": "infer"},
        decision="d",
    )

    assert offer_directive(receiver, directive, now_s=0, wall_s=0).status is AckStatus.PENDING_RESTART
    assert (40, [{"variant": "infer"}]) == (engine.values["cap"], engine.restarts)


def test_a_table_reaches_the_gateway(tmp_path: Path) -> None:
    """A routing table is applied and answered with the table read back, entries that wait left out."""
    gateway = FakeGateway(("a", "b"), ("chat",))
    receiver = _receiver(tmp_path, "g", TargetKind.GATEWAY, TableSurface(gateway, TableDefaults()))
    table = RoutingTable(
        pool=POOL, gateway=GatewayId("g"), version=version(5), routes=ROUTES, lanes=LANES, decision="d"
    )
    ack = offer_table(receiver, table, now_s=0, wall_s=0)

    assert ack.status is AckStatus.APPLIED
    assert ack.effective == {
        "weight:a": 10,
        "weight:b": 100,
        "cap:a": 0,
        "cap:b": 0,
        "priority:chat": -3,
        "max_wait_s:chat": 1.5,
    }
    gateway.join("rack:4")
    receiver.poll(now_s=1, wall_s=1)
    assert (0, 9) == (gateway.weights["rack:4"], gateway.caps["rack:4"])


def test_a_table_that_fails_is_put_back_with_what_waits(tmp_path: Path) -> None:
    """A table with entries of unknown engines is refused as a whole, and those entries do not come later."""
    gateway = FakeGateway(("a", "b"), ())
    receiver = _receiver(tmp_path, "g", TargetKind.GATEWAY, TableSurface(gateway, TableDefaults()))
    gateway.fails.add("b")
    routes = tuple(Route(engine=EngineId(name), weight=7, in_flight_cap=3) for name in ("a", "b", "c"))
    table = RoutingTable(pool=POOL, gateway=GatewayId("g"), version=version(5), routes=routes, lanes=(), decision="d")
    ack = offer_table(receiver, table, now_s=0, wall_s=0)
    gateway.fails.clear()
    gateway.join("c")
    receiver.poll(now_s=0, wall_s=0)

    assert (ack.status, ack.reason) == (AckStatus.NACK, "could not be applied: b stuck")
    assert gateway.weights == {"a": 100, "b": 100, "c": 100}


def test_an_engine_that_appears_after_easing_does_not_get_the_old_tables_entry(tmp_path: Path) -> None:
    """What was eased no longer stands, for engines that come back either."""
    gateway = FakeGateway(("a", "b"), ())
    receiver = _receiver(tmp_path, "g", TargetKind.GATEWAY, TableSurface(gateway, TableDefaults()))
    routes = tuple(Route(engine=EngineId(name), weight=7, in_flight_cap=3) for name in ("a", "b", "c"))
    table = RoutingTable(pool=POOL, gateway=GatewayId("g"), version=version(5), routes=routes, lanes=(), decision="d")
    assert offer_table(receiver, table, now_s=0, wall_s=0).status is AckStatus.APPLIED
    receiver.poll(now_s=100, wall_s=100)
    beat = Heartbeat(pool=POOL, version=version(6), time_s=0, wall_s=0, hold_s=0)
    assert receiver.renew(beat, now_s=101, wall_s=101)
    gateway.join("c")
    receiver.poll(now_s=102, wall_s=102)

    assert gateway.weights["c"] == 100


def test_a_cap_eases_towards_none_from_below_and_from_none_downwards(tmp_path: Path) -> None:
    """A cap of 0 stands above all caps: easing to it grows, easing from it starts at the greatest cap."""
    for safe, start, path in ((0, 8, [8, 12, 18, 27, 40, 60, 0]), (4, 0, [64, 39, 24, 14, 9, 5, 4])):
        gateway = FakeGateway(("a",), ())
        surface = TableSurface(gateway, TableDefaults(cap=safe, most_cap=64))
        receiver = _receiver(tmp_path / f"{safe}", "g", TargetKind.GATEWAY, surface)
        gateway.caps["a"] = start
        seen = []
        for second in range(200, 207):
            receiver.poll(now_s=second, wall_s=second)
            seen.append(gateway.caps["a"])

        assert path == seen


def _receiver(folder: Path, name: str, kind: TargetKind, surface: Surface) -> Receiver:
    target = Target(pool=POOL, kind=kind, name=name, incarnation=Incarnation("i1"))
    store = ReceiverStore(folder)
    limits = ReceiverLimits(hold_s=100, ease_jitter_s=0)
    return Receiver(target, surface, store, limits, seed=1, now_s=0, wall_s=0)

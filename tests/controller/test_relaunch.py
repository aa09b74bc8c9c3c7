"""Kernel choice made real: drain, relaunch, warm, watch; and every way in which that can go wrong."""

import pytest

from flyball_controller.machine import Seams
from flyball_controller.machine.relaunch import LEAST_DRAIN_S
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.machine.state import DRAINING, RELAUNCHING, SERVING, WARMING, EngineState, PoolState
from flyball_core.inputs import Mode, Order, Proposal, TargetKind
from flyball_core.knobs import VARIANT
from flyball_core.outputs import Directive, RecordKind
from flyball_policies.seam import Memory, PoolView
from harness.invariants import check_events
from harness.scripted_engine import POOL, Load, ScriptedEngine
from harness.scripted_pool import POLICY, ScriptedPool, scripted_pool

QUICK = POLICY + "guard: {canary: 20s, drain_timeout: 30s, relaunch_timeout: 60s, canary_tolerance: 10%}\n"


class Chooser:
    """A policy that wants one engine in a variant until it is told otherwise."""

    name = "chooser"

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """One proposal per engine that is wanted elsewhere."""
        del view, memory
        return [
            Proposal(
                policy=self.name, kind=TargetKind.ENGINE, target=engine, knob=VARIANT, value=variant, reason="test"
            )
            for engine, variant in self.wanted.items()
        ]


def pool_of(load: Load | None = None, policy: str = QUICK) -> tuple[ScriptedPool, Chooser]:
    """A pool a few seconds old in which only the test wants something."""
    chooser = Chooser()
    asked = load or Load(concurrency=40.0, context_tokens=6000.0)
    pool = scripted_pool(policy=policy, load=lambda _now: asked, seams=Seams(slots=(PolicySlot(chooser),)))
    pool.relaunch_s = 20.0
    pool.run(5)
    return pool, chooser


def machine(pool: ScriptedPool) -> PoolState:
    """The machine's view of the pool."""
    return pool.state.pools["chat"]


def engine_of(pool: ScriptedPool) -> EngineState:
    """The engine that is relaunched."""
    return machine(pool).engines["e0-0"]


def phases(pool: ScriptedPool, seconds: int) -> list[str]:
    """The phases that the engine goes through, each once."""
    seen: list[str] = []
    for _ in range(seconds):
        pool.second()
        if not seen or seen[-1] != engine_of(pool).phase:
            seen.append(engine_of(pool).phase)
    return seen


def alarms(pool: ScriptedPool) -> list[str]:
    """What was alarmed, in words."""
    return [record.summary for record in pool.log.decisions(RecordKind.ALARM)]


def test_the_whole_way_of_one_engine() -> None:
    """Weight to zero, empty, told to restart, back, warm, serving in the other variant, and watched as canary."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}

    assert [DRAINING, RELAUNCHING, WARMING, SERVING] == phases(pool, 40)
    assert "splitkv" == pool.engines["e0-0"].setting[VARIANT] == engine_of(pool).variant
    assert [] == check_events(pool.log).all
    restarts = [d for d in pool.log.told("e0-0") if isinstance(d, Directive) and VARIANT in d.values]
    assert ["i0"] == [d.incarnation for d in restarts]


def test_no_traffic_while_draining_and_a_trickle_while_warming() -> None:
    """The gateway's weight is zero until the engine is back, then a fraction, then whole."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    weights: list[int] = []
    for _ in range(40):
        pool.second()
        weight = pool.gateways["gw0"].table["weight:e0-0"]
        assert isinstance(weight, int)
        if not weights or weights[-1] != weight:
            weights.append(weight)

    assert [0, 32, 128] == weights[-3:]


def test_it_drains_at_least_until_work_on_its_way_has_come() -> None:
    """Even an empty engine is not restarted before its shortest drain."""
    pool, chooser = pool_of(Load(concurrency=0.0))
    chooser.wanted = {"e0-0": "splitkv"}
    machine(pool).regime.name = "interactive"
    pool.second()
    start = pool.state.time_s
    while engine_of(pool).phase == DRAINING:
        pool.second()

    assert LEAST_DRAIN_S <= pool.state.time_s - start


def test_a_drain_that_never_ends_is_cut_off() -> None:
    """An engine that does not empty is restarted after the drain's timeout."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    pool.gateways.clear()  # nobody heeds the weight: the engine stays full
    start = pool.state.time_s
    while engine_of(pool).phase != RELAUNCHING:
        pool.second()

    assert 30.0 <= pool.state.time_s - start <= 32.0


def test_a_refused_restart_is_given_up_and_told() -> None:
    """A Nack ends the attempt: the engine serves on as it was, and an alarm says why."""
    pool, chooser = pool_of()
    pool.engines["e0-0"].refuse = lambda directive: "not now" if VARIANT in directive.values else ""
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(12)

    assert SERVING == engine_of(pool).phase
    assert "graphs" == pool.engines["e0-0"].setting[VARIANT]
    assert ["e0-0 into splitkv: refused: not now"] == [text for text in alarms(pool) if "into" in text]
    assert [] == machine(pool).relaunches


def test_an_old_refusal_does_not_end_a_new_attempt() -> None:
    """What was refused before the relaunch began says nothing about the relaunch."""
    pool, chooser = pool_of()
    engine_of(pool).holding.nack = "an old story"
    chooser.wanted = {"e0-0": "splitkv"}

    assert SERVING == phases(pool, 40)[-1]
    assert "splitkv" == engine_of(pool).variant


def test_an_engine_that_does_not_come_back_is_given_up() -> None:
    """After the relaunch's timeout an alarm says so, and the way is free for others."""
    pool, chooser = pool_of()
    pool.relaunch_s = 1e6
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(80)
    chooser.wanted = {}

    assert ["e0-0 into splitkv: did not come back in time"] == [text for text in alarms(pool) if "into" in text]
    assert [] == machine(pool).relaunches


def test_an_engine_that_comes_back_without_telemetry_is_given_up() -> None:
    """One that attaches and shows nothing does not block all other changes for ever."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    while engine_of(pool).phase != RELAUNCHING:
        pool.second()
    pool.second()
    chooser.wanted = {}
    pool.on_frame = lambda frame: (frame._replace(engines=tuple(e for e in frame.engines if "e0-0" != e.engine)),)
    pool.run(100)

    assert ["e0-0 into splitkv: came back, but shows no telemetry"] == [t for t in alarms(pool) if "into" in t]
    assert [] == machine(pool).relaunches


def test_a_good_canary_stays_and_lets_the_next_follow() -> None:
    """A variant that is no slower than its peers stays; meanwhile nobody else restarts, after it the next may."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv", "e1-0": "splitkv"}
    pool.run(30)

    assert machine(pool).canary is not None
    assert "graphs" == machine(pool).engines["e1-0"].variant
    pool.run(60)

    assert "splitkv" == machine(pool).engines["e0-0"].variant
    assert "splitkv" == machine(pool).engines["e1-0"].variant
    assert [] == check_events(pool.log).all


class Worse(ScriptedEngine):
    """An engine that runs at half the speed in the other variant."""

    def live(self, running: float, load: Load) -> None:
        """As any engine, but for its slowness."""
        self.slowness = 2.0 if self.setting[VARIANT] == "splitkv" else 1.0
        super().live(running, load)


def test_a_bad_canary_goes_back_and_bars_its_variant() -> None:
    """One that is slower than its peers is relaunched in its old variant, told, and the variant is barred."""
    pool, chooser = pool_of()
    pool.engines["e0-0"] = Worse(name="e0-0", agent="a0", gpu=0, held=pool.engines["e0-0"].held)
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(60)
    chooser.wanted = {"e1-1": "splitkv"}
    pool.run(60)

    assert ["canary e0-0 in splitkv failed"] == [text.split(":")[0] for text in alarms(pool) if "canary" in text]
    assert "graphs" == pool.engines["e0-0"].setting[VARIANT]
    assert SERVING == engine_of(pool).phase
    assert "splitkv" in machine(pool).barred
    assert "graphs" == pool.engines["e1-1"].setting[VARIANT]
    assert "barred" in {v.rule for d in pool.log.decisions() for v in d.verdicts}
    assert [] == check_events(pool.log).all


def test_a_pause_holds_a_relaunch_where_it_is() -> None:
    """While paused an engine in change goes no further; afterwards it goes on."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(2)
    pool.put(Order(pool=POOL, author="op", paused=True))
    pool.run(20)

    assert DRAINING == engine_of(pool).phase
    pool.put(Order(pool=POOL, author="op", paused=False))

    assert SERVING == phases(pool, 40)[-1]


def test_a_takeover_in_the_middle_ends_the_same_incarnation() -> None:
    """A successor tells the restart again under its epoch; the engine restarts once."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    while engine_of(pool).phase != RELAUNCHING:
        pool.second()
    pool.claim("c2")
    pool.run(60)

    assert SERVING == engine_of(pool).phase
    assert "splitkv" == engine_of(pool).variant
    assert [] == check_events(pool.log).order


def test_an_engine_gone_for_good_ends_its_change() -> None:
    """If the engine is forgotten while it is away, its change is, too."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(2)
    del pool.engines["e0-0"]
    chooser.wanted = {}
    pool.run(4)
    del machine(pool).engines["e0-0"]
    pool.second()

    assert [] == machine(pool).relaunches


@pytest.mark.parametrize("mode", [Mode.ADVISE, Mode.OBSERVE])
def test_a_relaunch_under_way_is_ended_in_any_mode(mode: Mode) -> None:
    """An operator who takes control away in the middle does not leave an engine without work."""
    pool, chooser = pool_of()
    chooser.wanted = {"e0-0": "splitkv"}
    pool.run(6)
    assert DRAINING == engine_of(pool).phase or RELAUNCHING == engine_of(pool).phase
    pool.put(Order(pool=POOL, author="op", mode=mode))
    chooser.wanted = {"e0-1": "splitkv"}
    pool.run(60)

    assert SERVING == engine_of(pool).phase
    assert 128 == pool.gateways["gw0"].table["weight:e0-0"]
    assert "graphs" == pool.engines["e0-1"].setting[VARIANT]
    told = len(pool.log.told("e0-1"))
    pool.run(30)
    assert told == len(pool.log.told("e0-1"))

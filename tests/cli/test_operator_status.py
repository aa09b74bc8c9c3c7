"""What of a fleet is shown, and what needs attention: pure, from what controllers answer."""

import pytest

from flyball_cli.operating.attention import concerns
from flyball_cli.operating.merging import Answer, FleetStatus, Silence, merge
from flyball_cli.operating.status_document import status_document
from flyball_cli.operating.status_words import status_lines
from flyball_core.errors import Rejected
from flyball_core.inputs import Mode
from flyball_core.knobs import BATCH_CAP, VARIANT
from flyball_proto.v1.services_pb2 import AgentStatus, PoolStatus, StatusResponse
from operator_examples import engine, gateway, override, pool, status


def fleet(*statuses: StatusResponse, silences: tuple[Silence, ...] = ()) -> FleetStatus:
    """Those answers, merged."""
    answers = [Answer(address=f"10.0.0.{at}:7460", status=one) for at, one in enumerate(statuses)]
    return merge(answers, silences)


def said(*pools: PoolStatus) -> list[tuple[str, str]]:
    """What needs attention with these pools: of whom, and what."""
    return [(one.target or one.pool, one.what) for one in concerns(fleet(status(*pools)))]


def test_a_well_fleet_needs_nobody() -> None:
    """Nothing is told where all is as it should be, and the first line says so."""
    found = status_document(fleet(status(pool())))

    assert (True, []) == (found["healthy"], found["attention"])
    assert "All is well: 1 pool, 2 engines, 1 controller." == status_lines(found)[0]


def test_the_greatest_epoch_is_believed() -> None:
    """Of two that speak of a pool, the one with the later claim counts whole, and the other is told."""
    old = status(pool(mode=Mode.ADVISE, epoch=5), controller="a")
    new = status(pool(mode=Mode.CONTROL, epoch=9), controller="b")

    for order in ((old, new), (new, old)):
        found = fleet(*order)

        assert ("b", 9) == (found.pools["chat"].controller, found.pools["chat"].status.epoch)
        assert ["a still speaks of it with an older epoch"] == [one.what for one in concerns(found)]


def test_a_controller_under_two_addresses_counts_once() -> None:
    """Names resolve to what they like."""
    found = fleet(status(pool()), status(pool()))

    assert (1, ()) == (len(found.answers), found.pools["chat"].others)


def test_an_unknown_pool_names_the_nearest() -> None:
    """And says that a silent controller may own it."""
    with pytest.raises(Rejected, match="did you mean chat"):
        fleet(status(pool())).pool("chet")
    with pytest.raises(Rejected, match=r"no answer from 10\.9\.9\.9:7460"):
        fleet(status(pool()), silences=(Silence(address="10.9.9.9:7460", why="connection refused"),)).pool("batch")


def test_controllers_that_cannot_be_relied_on_are_told() -> None:
    """Silent, waiting, of another log, or with a partition that nobody owns."""
    silent = fleet(status(pool()), silences=(Silence(address="10.9.9.9:7460", why="connection refused"),))
    waiting = fleet(status(waiting_for=["the broker"], owned=()))
    other = fleet(status(pool(), controller="a"), status(controller="b", log_id="another"))
    orphan = fleet(status(pool(), partitions=2))

    assert ["controller at 10.9.9.9:7460 does not answer: connection refused"] == [o.what for o in concerns(silent)]
    assert "controller controller-0 waits for the broker" in [one.what for one in concerns(waiting)]
    assert any("different logs" in one.what for one in concerns(other))
    assert ["partition 1 is owned by none of the controllers that answered"] == [one.what for one in concerns(orphan)]


def test_troubled_receivers_are_told_with_the_remedy() -> None:
    """What will not come right by itself is told, once each."""
    foreign = engine("engine-1", trouble="holds another log: 1b2c")
    troubled = [engine("engine-0", trouble="nack: too many", degraded=True), foreign, gateway("g", [])]

    found = concerns(fleet(status(pool("chat", troubled))))

    assert ["engine-0", "engine-1"] == [one.target for one in found]
    assert "nack: too many; degraded: slower than its peers at the same mix" == found[0].what
    assert "flyball rebase chat --target engine-1 --reason WHY" == found[1].remedy


def test_a_receiver_that_refuses_for_another_log_without_a_version_of_it_is_told_the_same_remedy() -> None:
    """One that was rebased, and took nothing before the log was exchanged once more."""
    bound = engine("engine-0", trouble="nack: foreign_log: log 1b2c is held; `flyball rebase` changes that")

    [found] = concerns(fleet(status(pool("chat", [bound]))))

    assert "flyball rebase chat --target engine-0 --reason WHY" == found.remedy


def test_silence_of_agents_and_engines_is_told() -> None:
    """An agent that went silent and engines without telemetry."""
    agents = [AgentStatus(agent="node-07", boot="b", age_s=31.0, stale=True), AgentStatus(agent="node-08", stale=True)]

    found = said(pool("chat", [engine("engine-0", trouble="stale", stale=True)], agents=agents))

    assert [
        ("node-07", "agent silent for 31 s"),
        ("node-08", "agent never heard from"),
        ("engine-0", "stale: no telemetry of it"),
    ] == found


def test_a_pool_that_nobody_decides_for_is_told() -> None:
    """Without a tick for long, or with none ever; and a quarantined policy has its remedy."""
    assert [("chat", "no tick for 1 min 30 s: nobody decides for it")] == said(pool(tick_age_s=90.0))
    fresh = pool()
    fresh.wall_s = 0.0
    assert [("chat", "it had no tick yet")] == said(fresh)
    [found] = concerns(fleet(status(pool(quarantined={"caps-aimd": "ValueError: no"}))))
    assert "flyball policy reset chat caps-aimd" == found.remedy


def test_what_was_ordered_is_no_trouble() -> None:
    """A pause, an override, `observe` with engines that have no receiver."""
    assert [] == said(pool(paused=True, overrides=[override("o-1", 32)]))
    bare = [engine("engine-0", trouble="not attached", attached=False), engine("engine-1", attached=False)]
    assert [] == said(pool("chat", bare, mode=Mode.OBSERVE)) == said(pool("chat", bare, mode=Mode.ADVISE))
    assert ["not attached", "not attached"] == [what for _, what in said(pool("chat", bare))]
    bare[0].phase = bare[1].phase = "relaunching"
    assert [] == said(pool("chat", bare))


def test_what_is_not_as_wanted_is_marked() -> None:
    """Held against wanted, knob by knob, and a directive that was not acknowledged."""
    moving = engine("engine-0", held={BATCH_CAP: 48, VARIANT: "graphs"}, wanted={BATCH_CAP: 32})
    moving.acked.revision = 600

    found = status_document(fleet(status(pool("chat", [moving]))))
    words = "\n".join(status_lines(found))

    settings = {one["knob"]: one for one in found["pools"][0]["engines"][0]["settings"]}
    assert {"knob": BATCH_CAP, "held": 48, "wanted": 32, "as_wanted": False} == settings[BATCH_CAP]
    assert settings[VARIANT]["as_wanted"]
    assert "48 (wanted 32)" in words
    assert "0:5:640, not acknowledged (holds 0:5:600)" in words
    assert found["healthy"]


def test_two_hundred_engines_are_readable() -> None:
    """The troubled first, then those on their way, then some of the others; all if asked for."""
    many = [engine(f"engine-{number:03d}") for number in range(200)]
    many[150] = engine("engine-150", trouble="diverged: max_active_requests is 64")
    many[170] = engine("engine-170", wanted={BATCH_CAP: 32})

    found = status_document(fleet(status(pool("chat", many))))
    lines = status_lines(found)

    shown = [line.split()[0] for line in lines if line.startswith("  engine-")]
    assert ["engine-150", "engine-170", "engine-000"] == shown[:3]
    assert len(lines) < 40
    assert any("and 187 more, all as wanted" in line for line in lines)
    assert 200 < len(status_lines(found, shown=None))


def test_words_tell_of_everything_else() -> None:
    """Overrides with the time left, agents, gateways, the owner and the regime."""
    agents = [AgentStatus(agent="node-00", boot="b", age_s=0.6), AgentStatus(agent="node-07", age_s=31.0, stale=True)]
    troubled = pool(paused=True, overrides=[override("o-1", 32, target="engine-0")], agents=agents)
    words = "\n".join(status_lines(status_document(fleet(status(troubled)))))

    for expected in (
        "pool chat: control, PAUSED, regime interactive (98%) for 5 min 3 s",
        "policy by alice; owner controller-0, partition 0, epoch 5; last tick 0.4 s ago",
        "o-1  max_active_requests of engine-0 at 32  27 min left  alice: incident 4711",
        "agents: 2 agents, newest frames up to 0.6 s old; silent: node-07 (31 s)",
        "4 settings, all as wanted",
        "TPOT 29.9 ms",
    ):
        assert expected in words


def test_an_empty_fleet_says_so() -> None:
    """Nothing has reported yet."""
    assert status_lines(status_document(fleet(status())))[-1].startswith("No pool yet")

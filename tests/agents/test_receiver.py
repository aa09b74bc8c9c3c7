"""The receiver fences, bounds, persists, answers and puts back: one claim at a time."""

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_agents.easing import Phase, ReceiverLimits
from flyball_agents.receiver_store import Held
from flyball_agents.surface import capability_hash
from flyball_core.errors import Rejected
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId, PoolId
from flyball_core.inputs import AckStatus, Attach, TargetKind
from flyball_core.knobs import Value
from receiver_bench import AT_LAUNCH, LOG, POOL, SAFE, SPECS, Bench, FakeEngine, odd, version

APPLIED, NACK, PENDING = AckStatus.APPLIED, AckStatus.NACK, AckStatus.PENDING_RESTART


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench whose receiver starts with nothing held."""
    return Bench(tmp_path)


def on_disk(bench: Bench) -> Held:
    """What another process would find."""
    return type(bench.store)(bench.store.folder).load()


def test_attach_says_who_holds_what_and_can_do_what(bench: Bench) -> None:
    """An attach carries identity, capabilities, the version held and the values read back."""
    bench.offer(5, cap=40)

    assert bench.receiver.attach() == Attach(
        pool=POOL,
        kind=TargetKind.ENGINE,
        target="e1",
        incarnation=Incarnation("i1"),
        capability_hash=capability_hash(SPECS),
        knobs=SPECS,
        held=version(5),
        effective={**SAFE, "cap": 40},
    )


def test_a_newer_version_is_applied_persisted_and_answered(bench: Bench) -> None:
    """The answer repeats the version and echoes all effective values."""
    ack = bench.offer(5, cap=40, margin=0.2)

    assert (ack.status, ack.version, ack.reason) == (APPLIED, version(5), "")
    assert (ack.pool, ack.kind, ack.target, ack.incarnation) == (POOL, TargetKind.ENGINE, "e1", "i1")
    assert ack.effective == {**SAFE, "cap": 40, "margin": 0.2} == bench.engine.values
    assert (
        on_disk(bench)
        == bench.receiver.held
        == Held(
            version=version(5),
            values={"cap": 40, "margin": 0.2},
            incarnation=Incarnation("i1"),
            log_id=LOG,
            wall_s=bench.wall_s,
            renewed=version(5),
        )
    )


def test_values_not_named_keep_their_place(bench: Bench) -> None:
    """What an earlier version set stays held until a later one names it."""
    bench.offer(5, cap=40, margin=0.2)
    bench.offer(6, cap=50)

    assert {"cap": 50, "margin": 0.2} == bench.receiver.held.values == on_disk(bench).values


def test_knobs_that_are_gone_are_not_held_on(bench: Bench) -> None:
    """What no knob carries any more is dropped at the next version."""
    bench.offer(5, cap=40, margin=0.2)
    bench.engine.specs = tuple(spec for spec in SPECS if spec.name != "margin")
    bench.give(replace(bench.make(6, cap=50), capability_hash=None))

    assert {"cap": 50} == bench.receiver.held.values


def test_the_same_version_is_answered_again_and_not_applied_again(bench: Bench) -> None:
    """A repeated version gets its answer with the values as they read now, whatever it carries."""
    first = bench.offer(5, cap=40)
    sets = list(bench.engine.sets)

    assert first == bench.offer(5, cap=40) == bench.offer(5, cap=99)
    assert sets == bench.engine.sets
    bench.engine.values["cap"] = 41
    assert bench.offer(5, cap=40).effective["cap"] == 41


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        (version(4), "stale: 3:10:5 is held"),
        (version(99, epoch=9), "stale: 3:10:5 is held"),
        (version(6, partition=4), "foreign_partition: 3:10:5 is held"),
        (version(6, log_id="log-b"), "foreign_log: log log-a is held; `flyball rebase` changes that"),
    ],
)
def test_a_version_that_is_not_newer_is_refused_in_words(bench: Bench, late: Version, reason: str) -> None:
    """Older versions, other partitions and other logs leave no trace, on disk or in the fence."""
    bench.offer(5, cap=40)
    before = on_disk(bench)
    ack = bench.offer(late, cap=50)

    assert (ack.status, ack.reason, ack.version) == (NACK, reason, late)
    assert bench.engine.values["cap"] == 40
    assert before == on_disk(bench) == bench.receiver.held
    assert bench.offer(6, cap=50).status is APPLIED


def test_a_greater_epoch_is_newer_at_any_revision(bench: Bench) -> None:
    """Epochs are compared before revisions."""
    bench.offer(version(50, epoch=10), cap=40)

    assert bench.offer(version(20, epoch=11), cap=50).status is APPLIED


@pytest.mark.parametrize(
    "wrong",
    [
        replace(version(5), epoch=-1),
        replace(version(5), revision=-1),
        replace(version(5), partition=-1),
        replace(version(5), epoch=True),
        replace(version(5), revision=1 << 63),
        replace(version(5), epoch=odd(math.nan)),
        replace(version(5), revision=odd("5")),
        replace(version(5), log_id=LogId("")),
        replace(version(5), log_id=odd(7)),
        None,
    ],
)
def test_what_is_no_version_is_refused(bench: Bench, wrong: Version | None) -> None:
    """A malformed version is answered, never adopted, and renews nothing."""
    ack = bench.give(replace(bench.make(1, cap=40), version=odd(wrong)))

    assert (ack.status, ack.reason) == (NACK, "malformed version")
    assert bench.receiver.held == Held()
    if wrong is not None:
        assert not bench.beat(wrong)
    assert bench.offer(replace(version(5), epoch=0, revision=0, partition=0), cap=40).status is APPLIED


def test_the_last_position_there_can_be_is_a_version(bench: Bench) -> None:
    """Positions go up to what 63 bits hold."""
    assert bench.offer((1 << 63) - 1, cap=40).status is APPLIED


@pytest.mark.parametrize(("field", "value"), [("pool", PoolId("other")), ("target", "e2")])
def test_what_is_meant_for_another_is_refused_without_a_trace(bench: Bench, field: str, value: str) -> None:
    """Target and pool are inside the message; a misdirected one neither applies nor fences."""
    offer = bench.make(5, cap=40)
    ack = bench.give(replace(offer, **{field: odd(value)}))

    assert ack.status is NACK
    assert ack.reason.endswith("this is e1 of chat")
    assert value in ack.reason
    assert bench.give(offer).status is APPLIED


def test_another_incarnation_is_refused(bench: Bench) -> None:
    """A directive that names an incarnation is for that one only."""
    assert bench.give(replace(bench.make(5, cap=40), incarnation=Incarnation("i1"))).status is APPLIED
    ack = bench.give(replace(bench.make(6, cap=50), incarnation=Incarnation("i0")))

    assert (ack.status, ack.reason) == (NACK, "meant for incarnation i0, this is i1")
    assert bench.engine.values["cap"] == 40


def test_other_capabilities_are_refused(bench: Bench) -> None:
    """A directive decided for other knobs is not applied; a table, which names none, is."""
    ack = bench.give(replace(bench.make(5, cap=40), capability_hash=""))

    assert ack.status is NACK
    assert ack.reason == f"decided for capabilities , these are {capability_hash(SPECS)}"
    assert bench.give(replace(bench.make(6, cap=40), capability_hash=None)).status is APPLIED


def test_what_could_not_be_read_is_refused_for_good(bench: Bench) -> None:
    """An offer whose values did not survive the wire is a Nack, and its version is not taken later."""
    ack = bench.give(replace(bench.make(5), unreadable="a value carries none"))

    assert (ack.status, ack.reason) == (NACK, "cannot be read: a value carries none")
    assert bench.offer(5, cap=40).status is NACK
    assert bench.engine.values["cap"] == SAFE["cap"]


@pytest.mark.parametrize(
    "values",
    [
        {"cap": 0},
        {"cap": 257},
        {"cap": -1},
        {"cap": 40.0},
        {"cap": "40"},
        {"cap": True},
        {"cap": None},
        {"cap": []},
        {"cap": {}},
        {"cap": math.nan},
        {"cap": 10**5000},
        {"cap": 1e308},
        {"margin": math.nan},
        {"margin": math.inf},
        {"margin": -math.inf},
        {"margin": None},
        {"margin": []},
        {"margin": 1.0000001},
        {"margin": "0.5"},
        {"margin": 0.5j},
        {"chunked": 1},
        {"chunked": "true"},
        {"chunked": None},
        {"order": "lifo"},
        {"order": 1},
        {"order": "x" * 257},
        {"speed": 1},
        {"": 1},
        {"cap": 40, "margin": 2.0},
        {"margin": 0.3, "cap": 300},
        {7: 1},
    ],
)
def test_a_value_that_cannot_be_held_is_refused_and_nothing_changes(bench: Bench, values: dict[str, object]) -> None:
    """One wrong value refuses the whole offer: nothing set, the old version held, the reason given."""
    bench.offer(4, cap=40)
    bench.engine.sets.clear()
    ack = bench.give(replace(bench.make(5), values=odd(values)))

    assert (ack.status, ack.version) == (NACK, version(5))
    assert 10 < len(ack.reason) <= 300
    assert ack.effective == bench.engine.values == {**SAFE, "cap": 40}
    assert bench.engine.sets == []
    assert on_disk(bench) == bench.receiver.held
    assert (bench.receiver.held.version, bench.receiver.held.refused) == (version(4), version(5))


@pytest.mark.parametrize("values", [[], None, "cap", 7, [("cap", 40)]])
def test_what_is_no_mapping_is_refused(bench: Bench, values: object) -> None:
    """Only a mapping of names to values is a setting."""
    ack = bench.give(replace(bench.make(5), values=odd(values)))

    assert (ack.status, ack.reason) == (NACK, "the values are no mapping")


def test_the_bounds_themselves_are_within_bounds(bench: Bench) -> None:
    """Minimum and maximum are inclusive, and a whole number will do for a real knob."""
    assert bench.offer(5, cap=1, margin=0).status is APPLIED
    assert bench.offer(6, cap=256, margin=1.0).status is APPLIED
    assert bench.offer(7).status is APPLIED


def test_values_that_do_not_go_together_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The surface may refuse a setting as a whole."""
    monkeypatch.setattr(bench.receiver._surface, "refuse", lambda values: f"no {len(values)}")  # noqa: SLF001
    ack = bench.offer(5, cap=40, margin=0.2)

    assert (ack.status, ack.reason) == (NACK, "no 2")
    assert bench.engine.values["cap"] == 16


def test_a_reason_is_cut_to_a_length_that_travels(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 characters, in the answer and on disk."""
    monkeypatch.setattr(bench.receiver._surface, "refuse", lambda _: "x" * 1000)  # noqa: SLF001

    assert bench.offer(5, cap=40).reason == on_disk(bench).refusal == "x" * 300
    bench.engine.unreadable = True
    assert len(bench.give(replace(bench.make(6), target="y" * 1000)).reason) == 300


def test_an_unknown_knob_is_named(bench: Bench) -> None:
    """The reason tells which name no knob has, cut if it is endless."""
    assert bench.offer(5, speed=1).reason == "there is no knob 'speed'"
    assert len(bench.offer(6, **{"s" * 1000: 1}).reason) < 130


def test_what_is_held_is_what_was_asked_for_not_what_drifted(bench: Bench) -> None:
    """A live value held on from an earlier version stays the one that was ordered."""
    bench.offer(5, cap=40)
    bench.engine.values["cap"] = 41
    bench.offer(6, margin=0.2)

    assert bench.receiver.held.values == {"cap": 40, "margin": 0.2}


def test_a_refusal_is_final_also_after_a_restart(bench: Bench) -> None:
    """A refused version, and any older one, is never taken later; the same reason is given; a newer one is taken."""
    bench.offer(4, cap=40)
    reason = bench.offer(6, cap=999).reason
    for _ in range(2):
        again = bench.offer(6, cap=50)
        assert (again.status, again.reason) == (NACK, reason)
        late = bench.offer(5, cap=50)
        assert (late.status, late.reason) == (NACK, "stale: 3:10:6 was refused since")
        assert bench.offer(4, cap=50).status is APPLIED
        assert bench.engine.values["cap"] == 40
        bench.again(cold=False)
    assert bench.offer(7, cap=50).status is APPLIED
    assert bench.receiver.held.refused is None


def test_a_refusal_with_nothing_held_binds_no_log(bench: Bench) -> None:
    """A refused first version does not keep another log's version out."""
    bench.offer(version(9, log_id="log-b"), cap=999)

    assert bench.offer(version(1, log_id="log-c"), cap=40).status is APPLIED


def test_an_apply_that_raises_is_refused_and_put_back(bench: Bench) -> None:
    """The engine holds its old values, the version is never taken later, and the next one is."""
    bench.offer(4, cap=40, margin=0.2)
    bench.engine.fails.add("margin")
    ack = bench.offer(5, cap=50, margin=0.3)
    bench.engine.fails.clear()

    assert (ack.status, ack.reason) == (NACK, "could not be applied: margin stuck")
    assert bench.engine.values == {**SAFE, "cap": 40, "margin": 0.2} == ack.effective
    assert (bench.receiver.held.version, bench.receiver.held.values) == (version(4), {"cap": 40, "margin": 0.2})
    assert on_disk(bench) == bench.receiver.held
    assert bench.offer(5, cap=50).status is NACK
    assert bench.offer(6, cap=50).status is APPLIED


def test_a_surface_that_does_not_put_back_is_put_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver does not rely on the surface for it: it applies the values read before."""
    bench.offer(4, cap=40, margin=0.2)

    def half(values: dict[str, Value]) -> None:
        bench.engine.values["cap"] = values["cap"]
        if values.get("margin") == 0.3:
            raise RuntimeError("half done")

    monkeypatch.setattr(bench.receiver._surface, "apply", half)  # noqa: SLF001
    ack = bench.offer(5, cap=50, margin=0.3)

    assert (ack.status, bench.engine.values["cap"]) == (NACK, 40)


def test_a_put_back_that_fails_is_told_and_not_raised(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes nothing any more costs an answer, not the receiver."""

    def stuck(values: object) -> None:
        raise RuntimeError("stuck")

    monkeypatch.setattr(bench.receiver._surface, "apply", stuck)  # noqa: SLF001
    ack = bench.offer(5, cap=50)

    assert ack.status is NACK
    assert bench.receiver.trouble == "RuntimeError: stuck"


def test_an_engine_that_cannot_be_read_takes_nothing(bench: Bench) -> None:
    """Without the values before there is nothing to put back, so nothing is set."""
    bench.engine.unreadable = True
    bench.engine.sets.clear()
    ack = bench.offer(5, cap=50)

    assert (ack.status, ack.reason, ack.effective) == (NACK, "cannot be judged: unreadable", {})
    assert bench.receiver.trouble == "cannot be read back: unreadable"
    assert bench.engine.sets == []
    assert bench.receiver.held.refused == version(5) == on_disk(bench).refused


def test_values_that_do_not_read_back_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply whose outcome cannot be read counts as failed."""

    def blind(values: dict[str, Value]) -> None:
        bench.engine.values.update(values)
        bench.engine.unreadable = values["cap"] == 50

    monkeypatch.setattr(bench.receiver._surface, "apply", blind)  # noqa: SLF001
    ack = bench.offer(5, cap=50)

    assert (ack.status, ack.reason) == (NACK, "could not be applied: unreadable")
    assert bench.engine.values["cap"] == 16


def test_an_effective_value_that_differs_is_echoed(bench: Bench) -> None:
    """An engine that acknowledges but does not apply is seen through: the echo is what reads back."""
    bench.engine.ignores.add("cap")
    ack = bench.offer(5, cap=50)

    assert (ack.status, ack.effective["cap"]) == (APPLIED, 16)


def test_the_version_is_on_disk_before_the_engine_sees_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While being applied a version is recorded as refused: an engine that dies of it will not meet it again."""
    bench.offer(4, cap=40)
    seen: list[Held] = []
    monkeypatch.setattr(bench.receiver._surface, "apply", lambda _: seen.append(on_disk(bench)))  # noqa: SLF001
    bench.offer(5, cap=50)

    assert [(version(4), {"cap": 40}, version(5))] == [(h.version, h.values, h.refused) for h in seen]
    assert seen[0].refusal == "died while trying it"


def test_what_cannot_be_persisted_is_not_applied(bench: Bench) -> None:
    """No disk, no change: a version that would be forgotten at a restart is refused, and remembered meanwhile."""
    bench.offer(4, cap=40)
    folder = bench.store.folder
    folder.rename(folder.with_name("gone"))
    folder.write_text("in the way")
    ack = bench.offer(5, cap=50)

    assert ack.status is NACK
    assert ack.reason.startswith("cannot be persisted: ")
    assert bench.engine.values["cap"] == 40
    assert bench.receiver.held.refused == version(5)
    folder.unlink()
    folder.with_name("gone").rename(folder)
    assert bench.offer(5, cap=50).status is NACK
    assert bench.offer(6, cap=50).status is APPLIED


def test_a_record_that_cannot_be_finished_is_put_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails between trying and holding, the engine gets its old values back."""
    bench.offer(4, cap=40)
    save, saved = bench.store.save, []

    def once(held: Held) -> None:
        saved.append(held)
        if len(saved) > 1:
            raise OSError("disk full")
        save(held)

    monkeypatch.setattr(bench.store, "save", once)
    ack = bench.offer(5, cap=50)

    assert (ack.status, ack.reason) == (NACK, "could not be applied: disk full")
    assert bench.engine.values["cap"] == 40
    assert (bench.receiver.held.version, on_disk(bench).version) == (version(4), version(4))
    assert on_disk(bench).refused == bench.receiver.held.refused == version(5)
    assert bench.receiver.trouble == "OSError: disk full"


def test_every_change_is_audited(bench: Bench) -> None:
    """One line for each version taken, easing step, put-back and rebase, with old and new values."""
    bench.offer(4, cap=40, margin=0.1)
    bench.engine.fails.add("margin")
    bench.offer(5, cap=50, margin=0.3)
    bench.engine.fails.clear()
    bench.after(100)
    bench.after(1)
    bench.receiver.rebase(LogId("log-b"), author="ops", wall_s=9.0)
    lines = [json.loads(line) for line in bench.audit()]

    assert [(line["what"], line["changes"]) for line in lines] == [
        ("took 3:10:4 of log-a", {"cap": [16, 40]}),
        ("put back, 3:10:5 failed", {"cap": [50, 40], "margin": [0.3, 0.1]}),
        ("eased: the lease ran out", {"cap": [40, 24]}),
        ("rebase by ops, was log-a", {}),
    ]
    assert {line["target"] for line in lines} == {"e1"}
    assert [line["wall_s"] for line in lines] == [1.7e9, 1.7e9, 1.7e9 + 101, 9.0]


def test_a_change_that_cannot_be_audited_is_put_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No audit, no change; easing goes on without, for it is the safe direction."""

    def full(*_: object) -> None:
        raise OSError("audit full")

    bench.offer(4, cap=40)
    monkeypatch.setattr(bench.store, "audit", full)

    assert bench.offer(5, cap=50).reason == "could not be applied: audit full"
    assert bench.engine.values["cap"] == 40
    with pytest.raises(OSError, match="audit full"):
        bench.receiver.rebase(LogId("log-b"), author="ops", wall_s=0.0)
    assert bench.receiver.held.version == version(4)
    bench.after(100)
    bench.after(1)
    assert bench.engine.values["cap"] == 24
    assert bench.receiver.trouble == "OSError: audit full"


def test_a_restart_class_value_needs_the_present_incarnation(bench: Bench) -> None:
    """Without the incarnation to end, a changed restart-class value is refused; an unchanged one is no restart."""
    ack = bench.offer(5, cap=40, variant="infer")

    assert (ack.status, ack.reason) == (NACK, "variant takes a restart, and the incarnation to end is not named")
    assert (bench.engine.values["cap"], bench.engine.restarts) == (16, [])
    assert bench.offer(6, cap=40, variant="flash").status is APPLIED
    assert bench.engine.restarts == []


def test_a_restart_is_pending_until_the_next_incarnation_shows_it(bench: Bench) -> None:
    """Live values apply at once, the relaunch begins, and the answer turns when the new incarnation runs it."""
    ask = replace(bench.make(5, cap=40, variant="infer"), incarnation=Incarnation("i1"))
    bench.engine.sets.clear()

    pending = bench.give(ask)
    assert (pending.status, pending.reason) == (PENDING, "")
    assert (bench.engine.restarts, bench.engine.sets) == ([{"variant": "infer"}], [("cap", 40)])
    assert bench.give(ask).status is PENDING
    assert bench.engine.restarts == [{"variant": "infer"}]

    bench.again(cold=True)
    bench.engine.values["variant"] = "infer"
    ack = bench.give(ask)
    assert (ack.status, ack.effective["cap"], ack.effective["variant"]) == (APPLIED, 40, "infer")
    assert bench.engine.restarts == [{"variant": "infer"}]


def test_a_restart_that_did_not_bring_its_value_is_said(bench: Bench) -> None:
    """A new incarnation that runs the old variant answers with a Nack and is not restarted by itself."""
    ask = replace(bench.make(5, variant="infer"), incarnation=Incarnation("i1"))
    bench.give(ask)
    bench.again(cold=True)
    ack = bench.give(ask)

    assert (ack.status, ack.reason) == (NACK, "the restart did not bring variant")
    assert bench.offer(6, cap=40).status is APPLIED  # and what was not brought is not waited for
    assert bench.receiver.held.values == {"variant": "flash", "cap": 40}
    assert bench.engine.restarts == [{"variant": "infer"}]


def test_a_pending_restart_is_pending_whatever_else_has_gone(bench: Bench) -> None:
    """A held value whose knob is gone does not hide that a restart is awaited."""
    bench.give(replace(bench.make(5, margin=0.3, variant="infer"), incarnation=Incarnation("i1")))
    bench.engine.specs = tuple(spec for spec in SPECS if spec.name != "margin")

    assert bench.offer(5).status is PENDING


def test_the_record_is_whole_before_a_restart_begins(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relaunch may end this very process, so the version is held on disk by then."""
    seen: list[Held] = []

    def restart(values: object) -> None:
        del values
        seen.append(on_disk(bench))

    monkeypatch.setattr(bench.engine, "restart", restart)
    bench.give(replace(bench.make(5, cap=40, variant="infer"), incarnation=Incarnation("i1")))

    assert [(version(5), {"cap": 40, "variant": "infer"})] == [(h.version, h.values) for h in seen]


def test_a_restart_that_cannot_begin_is_refused_and_put_back(bench: Bench) -> None:
    """The live values of the same offer go back too, and the record says so."""
    bench.offer(4, cap=30)
    bench.engine.no_restart = True
    ack = bench.give(replace(bench.make(5, cap=40, variant="infer"), incarnation=Incarnation("i1")))

    assert (ack.status, ack.reason) == (NACK, "could not be applied: no restart")
    assert bench.engine.values == {**SAFE, "cap": 30}
    assert on_disk(bench) == bench.receiver.held
    assert (bench.receiver.held.version, bench.receiver.held.refused) == (version(4), version(5))


def test_an_engine_that_cannot_say_its_knobs_still_gets_an_answer(bench: Bench) -> None:
    """The version held is answered with what reads back; a new one is refused."""
    bench.offer(4, cap=30)
    bench.engine.knobless = True

    assert bench.offer(4, cap=30).status is APPLIED
    assert bench.offer(5, cap=40).reason == "cannot be judged: no knobs"


def test_the_off_switch_needs_no_network(bench: Bench) -> None:
    """A file in the store's folder refuses offers, eases at once, and its removal lets the next version in."""
    bench.offer(4, cap=40)
    (bench.store.folder / "off").touch()
    ack = bench.offer(5, cap=50)

    assert (ack.status, ack.reason) == (NACK, "switched off locally")
    assert bench.after(0.5) is Phase.EASING
    bench.ease_out()
    assert bench.engine.values["cap"] == 16
    assert any("eased: switched off locally" in line for line in bench.audit())
    (bench.store.folder / "off").unlink()
    assert bench.after(1) is Phase.HOLDING
    assert bench.engine.values["cap"] == 16
    assert bench.offer(5, cap=50).status is NACK
    again = bench.offer(4, cap=40)
    assert (again.status, again.reason) == (APPLIED, "eased to safe values since")
    assert bench.offer(6, cap=50).reason == ""
    assert bench.engine.values["cap"] == 50


def test_a_cold_start_while_off_is_safe(bench: Bench) -> None:
    """The switch outlives the engine."""
    bench.offer(4, cap=40)
    (bench.store.folder / "off").touch()
    bench.again(cold=True)

    assert bench.engine.values == SAFE
    assert bench.receiver.held.version == version(4)


def test_a_rebase_takes_another_log_and_only_that(bench: Bench) -> None:
    """After it any version of the new log is taken first, none of the old, and it survives a restart."""
    bench.offer(50, cap=40)
    bench.offer(60, cap=999)
    bench.receiver.rebase(LogId("log-b"), author="ops", wall_s=bench.wall_s)
    bench.again(cold=False)

    assert bench.receiver.attach().held is None
    assert bench.receiver.held.refused is None
    assert bench.offer(70, cap=50).reason == "foreign_log: log log-b is held; `flyball rebase` changes that"
    assert not bench.beat(version(70))
    assert bench.beat(version(1, epoch=0, log_id="log-b"))
    assert bench.offer(version(2, epoch=0, log_id="log-b"), cap=50).status is APPLIED


@pytest.mark.parametrize(("log_id", "author"), [("", "ops"), ("log-b", "")])
def test_a_rebase_without_log_or_author_is_rejected(bench: Bench, log_id: str, author: str) -> None:
    """An audited act names its author and its object."""
    bench.offer(5, cap=40)
    with pytest.raises(Rejected, match=r"^a rebase names the new log and its author$"):
        bench.receiver.rebase(LogId(log_id), author=author, wall_s=0.0)
    with pytest.raises(Rejected, match=r"^a handover names the new pool and its author$"):
        bench.receiver.release(PoolId(log_id), author=author, wall_s=0.0)

    assert bench.receiver.held.version == version(5)


def test_a_handover_clears_the_version_and_names_the_new_pool(bench: Bench) -> None:
    """The new pool's partition starts afresh; the old pool's directives are no longer for us."""
    bench.offer(50, cap=40)
    bench.receiver.release(PoolId("code"), author="ops", wall_s=1.0)

    assert (bench.receiver.attach().pool, bench.receiver.attach().held) == ("code", None)
    assert bench.offer(60, cap=50).reason == "meant for e1 of chat, this is e1 of code"
    assert bench.beat(version(7, partition=8), pool="code")
    adopted = replace(bench.make(version(8, partition=8), cap=60), pool=PoolId("code"))
    assert bench.give(adopted).status is APPLIED
    assert bench.give(adopted).pool == "code"
    assert "handover to code by ops, was log-a" in bench.audit()[-2]
    assert bench.give(replace(adopted, version=version(99, log_id="log-b"))).status is NACK


def test_a_safe_value_out_of_its_own_bounds_is_rejected_at_the_start(tmp_path: Path) -> None:
    """A receiver that could not ease safely does not start."""
    wrong = replace(SPECS[0], safe=999)
    with pytest.raises(Rejected, match="e1: the safe value is not allowed: cap takes 1 to 256, not 999"):
        Bench(tmp_path, engine=FakeEngine((wrong,), {"cap": 1}))


def test_a_first_start_sets_safe_values_and_holds_nothing(tmp_path: Path) -> None:
    """Without a last-known-good setting the operator's safe values are set at once."""
    bench = Bench(tmp_path)

    assert bench.engine.values == SAFE
    assert bench.receiver.held == Held()
    assert bench.receiver.trouble == ""
    assert bench.after(0) is Phase.EASED


@pytest.mark.parametrize(("age_s", "cap"), [(0.0, 40), (99.999, 40), (100.0, 16), (-0.001, 16), (math.nan, 16)])
def test_a_cold_start_takes_the_last_known_good_if_it_is_young(bench: Bench, age_s: float, cap: int) -> None:
    """Younger than `hold_s` by the wall clock it is set, with safe values beside it; from the future it is old."""
    bench.offer(5, cap=40)
    bench.wall_s += age_s
    bench.again(cold=True)

    assert bench.engine.values == {**SAFE, "cap": cap}
    assert bench.receiver.held.version == version(5)
    assert bench.offer(4, cap=50).status is NACK


def test_a_cold_start_holds_only_what_is_left_of_the_lease(bench: Bench) -> None:
    """The wall clock carries the lease over a restart."""
    bench.offer(5, cap=40)
    bench.wall_s += 60
    bench.again(cold=True)

    assert bench.after(39.9) is Phase.HOLDING
    assert bench.after(0.2) is Phase.EASING


def test_a_short_lease_is_kept_younger(bench: Bench) -> None:
    """A hold of 6 s is worth nothing if its age on disk may be wrong by a minute: a thirtieth of the hold it is."""
    bench.offer(5, cap=40)
    for revision in (6, 7, 8):
        bench.after(1.0)
        bench.beat(revision, hold_s=6.0)
        assert on_disk(bench).wall_s == bench.wall_s
    bench.beat(9, hold_s=6.0)
    assert on_disk(bench).renewed == version(8)


def test_what_a_heartbeat_asked_to_hold_counts_after_a_restart(bench: Bench) -> None:
    """Last-known-good is taken up if younger than the policy's hold time; the receiver's own limit is longer."""
    bench.offer(5, cap=40)
    bench.beat(6, hold_s=20.0)
    bench.after(19.0)
    bench.again(cold=True)

    assert bench.engine.values["cap"] == 40
    assert bench.receiver.lease_s(bench.now_s) == pytest.approx(1.0)

    bench.after(0.5)
    bench.wall_s += 0.6
    bench.again(cold=True)

    assert bench.engine.values["cap"] == SAFE["cap"]


def test_a_record_that_says_nothing_of_hold_times_is_read(bench: Bench) -> None:
    """One that version 0.1 has written: the receiver's own limit counts, as it did then."""
    bench.offer(5, cap=40)
    bench.beat(6, hold_s=20.0)
    for slot in bench.store.folder.glob("held-*.json"):
        body = json.loads(slot.read_bytes()[9:])
        del body["hold_s"]
        plain = json.dumps(body, sort_keys=True).encode()
        slot.write_bytes(b"%08x\n%s\n" % (zlib.crc32(plain), plain))
    bench.wall_s += 50.0
    bench.again(cold=True)

    assert (bench.store.trouble, bench.engine.values["cap"]) == ("", 40)
    assert bench.receiver.lease_s(bench.now_s) == pytest.approx(50.0)


def test_renewals_keep_the_last_known_good_young(tmp_path: Path) -> None:
    """The wall time on disk follows the heartbeats within a minute, without a write for each."""
    bench = Bench(tmp_path, limits=ReceiverLimits(hold_s=1800.0, ease_jitter_s=0.0))
    bench.offer(5, cap=40)
    told = bench.wall_s
    for revision, step_s, wall_s in ((6, 59.5, told), (7, 0.5, told + 60), (8, 59.5, told + 60)):
        bench.after(step_s)
        assert bench.beat(revision)
        assert (on_disk(bench).wall_s, bench.receiver.held.renewed) == (wall_s, version(revision))
    assert on_disk(bench).renewed == version(7)
    generation = bench.store._generation  # noqa: SLF001
    bench.beat(10)
    bench.after(0.5)
    bench.beat(11)
    assert bench.store._generation == generation + 1  # noqa: SLF001 - 60 s have passed: one write
    bench.beat(12)
    bench.after(0.5)
    bench.beat(13)
    assert bench.store._generation == generation + 1  # noqa: SLF001 - at once and soon after: none
    bench.wall_s -= 1000  # a wall clock set back is followed too
    bench.beat(14)
    assert on_disk(bench).wall_s == bench.wall_s


def test_a_touch_that_fails_renews_all_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not cost the lease."""
    bench.offer(5, cap=40)

    def full(held: Held) -> None:
        raise OSError("full")

    monkeypatch.setattr(bench.store, "save", full)
    bench.after(90)

    assert bench.beat(6)
    assert bench.after(99) is Phase.HOLDING
    assert bench.receiver.trouble == "OSError: full"


def test_values_held_that_no_longer_fit_become_safe_at_a_start(bench: Bench) -> None:
    """A new build of the engine with narrower bounds starts within them; knobs that are gone are left out."""
    bench.offer(5, cap=200, margin=0.9, variant="flash")
    bench.engine.specs = (replace(SPECS[0], maximum=128), *SPECS[2:])
    bench.engine.sets.clear()
    bench.again(cold=True)

    assert bench.engine.values == {**AT_LAUNCH, "cap": 16, "chunked": True, "order": "fifo"}
    assert {"cap", "chunked", "order"} == {name for name, _ in bench.engine.sets}


def test_a_last_known_good_that_cannot_be_set_gives_way_to_safe_values(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start tries the held values, then the safe ones, and raises in neither case."""
    bench.offer(5, cap=40)
    plain = bench.engine.set

    def picky(name: str, value: Value) -> None:
        if value == 40:
            raise RuntimeError("not 40")
        plain(name, value)

    monkeypatch.setattr(bench.engine, "set", picky)
    bench.again(cold=True)
    assert bench.engine.values == SAFE
    assert bench.receiver.trouble == "RuntimeError: not 40"

    bench.engine.fails |= {"cap"}
    bench.again(cold=True)
    assert bench.engine.values == AT_LAUNCH


def test_a_receiver_that_restarts_beside_its_engine_sets_what_is_held(bench: Bench) -> None:
    """A warm start puts the held values back and leaves the others alone."""
    bench.offer(5, cap=40)
    bench.engine.values.update(cap=99, margin=0.7)
    bench.again(cold=False)

    assert bench.engine.values == {**SAFE, "cap": 40, "margin": 0.7}


def test_a_warm_start_with_an_old_record_eases_instead_of_jumping(bench: Bench) -> None:
    """The engine is under load: its values go to safe under slew."""
    bench.offer(5, cap=200)
    bench.now_s, bench.wall_s = bench.now_s + 500, bench.wall_s + 500
    bench.again(cold=False)

    assert bench.engine.values["cap"] == 200
    assert bench.after(0) is Phase.EASING
    assert bench.after(1) is Phase.EASING
    assert bench.engine.values["cap"] == 120


def test_a_warm_start_with_a_record_from_the_future_eases_at_once(bench: Bench) -> None:
    """A wall clock that was set back does not lengthen the lease."""
    bench.offer(5, cap=200)
    bench.wall_s -= 50
    bench.again(cold=False)

    assert bench.after(0) is Phase.EASING


def test_a_damaged_store_never_prevents_a_start(bench: Bench) -> None:
    """Both slots unreadable: safe values, nothing held, and the receiver says so."""
    bench.offer(5, cap=40)
    for index in (0, 1):
        (bench.store.folder / f"held-{index}.json").write_bytes(b"\x00" * 40)
    bench.again(cold=True)

    assert bench.engine.values == SAFE
    assert bench.receiver.held == Held()
    assert "cannot be read and was set aside" in bench.receiver.trouble
    assert bench.offer(1, cap=30).status is APPLIED


def test_hold_for_ever_takes_a_record_of_any_age(tmp_path: Path) -> None:
    """With `hold_s=None` the last-known-good never grows old and the lease never ends."""
    bench = Bench(tmp_path, limits=ReceiverLimits(hold_s=None))
    bench.offer(5, cap=40)
    bench.wall_s += 1e9
    bench.again(cold=True)

    assert bench.engine.values["cap"] == 40
    assert bench.after(1e9) is Phase.HOLDING
    assert bench.beat(6, hold_s=1.0)
    assert bench.after(1e9) is Phase.HOLDING
    assert bench.engine.values["cap"] == 40
    assert bench.offer(7, cap=50).status is APPLIED
    assert bench.after(1e9) is Phase.HOLDING

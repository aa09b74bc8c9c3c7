"""The lease: who renews it, when it ends, and how values then go to safe."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_agents.easing import Phase, ReceiverLimits, least_step, slewed
from flyball_core.fencing import Version
from flyball_core.inputs import AckStatus
from flyball_core.knobs import KnobClass, KnobKind
from receiver_bench import CAP, MARGIN, SAFE, SPECS, Bench, FakeEngine, odd, version

HOLDING, EASING, EASED = Phase.HOLDING, Phase.EASING, Phase.EASED


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with a lease of 100 s and no jitter."""
    return Bench(tmp_path)


def test_the_lease_is_held_to_its_end_and_no_longer(bench: Bench) -> None:
    """Values stand until `hold_s` after the last renewal by the receiver's own clock."""
    bench.offer(5, cap=64)

    assert bench.after(99.999) is HOLDING
    assert bench.engine.values["cap"] == 64
    assert bench.after(0.001) is EASING


def test_a_newer_heartbeat_renews(bench: Bench) -> None:
    """Each strictly newer heartbeat starts the lease anew."""
    bench.offer(5, cap=64)
    for revision in range(6, 12):
        assert bench.after(60) is HOLDING
        assert bench.beat(revision)
    assert bench.after(99) is HOLDING
    assert bench.after(1) is EASING


@pytest.mark.parametrize(
    "late",
    [version(6), version(5), version(4), version(99, epoch=9), version(9, partition=4), version(9, log_id="log-b")],
)
def test_what_is_not_newer_does_not_renew(bench: Bench, late: Version) -> None:
    """A repeated, older or foreign heartbeat proves nobody alive."""
    bench.offer(5, cap=64)
    bench.beat(6)
    bench.after(60)

    assert bench.beat(late) is False
    assert bench.receiver.held.renewed == version(6)
    assert bench.after(40) is EASING


def test_another_pools_heartbeat_does_not_renew(bench: Bench) -> None:
    """A lease is the pool's own."""
    bench.offer(5, cap=64)
    bench.after(60)

    assert not bench.beat(6, pool="other")
    assert bench.after(40) is EASING


def test_a_partition_is_known_from_the_version_held_too(bench: Bench) -> None:
    """A heartbeat of another partition than the one held does not renew, even with no renewal on record."""
    bench.offer(5, cap=64)
    bench.receiver.held = replace(bench.receiver.held, renewed=None)

    assert not bench.beat(version(6, partition=4))
    assert bench.beat(version(6))


def test_a_heartbeat_comes_before_the_first_offer(bench: Bench) -> None:
    """With nothing held the first heartbeat starts a lease and persists nothing but that."""
    assert bench.beat(3)
    assert bench.after(99) is HOLDING
    assert bench.receiver.held.version is None
    bench.again(cold=False)
    assert not bench.beat(3)
    assert bench.beat(4)


def test_taking_an_offer_renews_as_a_heartbeat_would(bench: Bench) -> None:
    """A version newer than the last renewal is proof of life; one that is older is taken but proves nothing."""
    bench.offer(5, cap=64)
    bench.beat(9)
    told = bench.wall_s
    bench.after(50)
    assert bench.offer(8, cap=65).status is AckStatus.APPLIED
    bench.after(10)
    assert bench.offer(9, cap=65).status is AckStatus.APPLIED
    assert (bench.receiver.held.renewed, bench.receiver.held.wall_s) == (version(9), told)
    assert bench.after(39) is HOLDING
    assert bench.after(1) is EASING

    assert bench.offer(10, cap=66).status is AckStatus.APPLIED
    assert bench.receiver.held.wall_s == bench.wall_s
    assert bench.after(99) is HOLDING
    assert bench.after(1) is EASING


def test_a_refused_offer_does_not_renew(bench: Bench) -> None:
    """Only what is taken counts."""
    bench.offer(5, cap=64)
    bench.after(60)
    bench.offer(6, cap=999)

    assert bench.after(40) is EASING


@pytest.mark.parametrize(
    ("asked", "end"), [(30.0, 30), (0.5, 0.5), (500.0, 100), (0.0, 100), (-5.0, 100), (math.nan, 100)]
)
def test_a_heartbeat_may_shorten_the_lease_but_not_lengthen_it(bench: Bench, asked: float, end: float) -> None:
    """The operator's local hold is the longest there is; what is no time asks for nothing."""
    bench.offer(5, cap=64)
    assert bench.beat(6, hold_s=asked)

    assert bench.after(end - 0.001) is HOLDING
    assert bench.after(0.002) is EASING


def test_what_is_taken_holds_for_as_long_as_the_last_heartbeat_asked(bench: Bench) -> None:
    """A version renews the lease for the policy's hold time, not for the receiver's own, which is longer."""
    bench.offer(5, cap=64)
    bench.beat(6, hold_s=10.0)
    bench.offer(7, cap=128)

    assert bench.after(9.9) is HOLDING
    assert bench.after(0.2) is EASING


def test_easing_goes_to_safe_under_slew(bench: Bench) -> None:
    """From 256 a cap of safe 16 shrinks by 0.6 a second, never faster, and ends exactly there."""
    bench.offer(5, cap=256, margin=0.1)
    bench.after(100)
    generation = bench.store._generation  # noqa: SLF001
    seen = [bench.engine.values["cap"]]
    while bench.after(1) is not EASED:
        seen.append(bench.engine.values["cap"])

    assert seen == [256, 154, 93, 56, 34, 20, 16]
    assert bench.store._generation == generation  # noqa: SLF001 - that it eases was written when it began


def test_easing_does_not_start_with_a_step(bench: Bench) -> None:
    """The first poll after the lease has ended moves nothing, at the lower bound either."""
    bench.offer(5, cap=1)

    assert bench.after(100) is EASING
    assert bench.engine.values["cap"] == 1


def test_easing_upwards_rounds_down(bench: Bench) -> None:
    """From 2 it grows by a half a second, or by one where that is more."""
    bench.offer(5, cap=2, margin=0.1)
    bench.after(100)
    seen = []
    for _ in range(8):
        bench.after(1)
        seen.append(bench.engine.values["cap"])

    assert seen == [3, 4, 6, 10, 15, 16, 16, 16]


def test_small_steps_add_up(bench: Bench) -> None:
    """Polled ten times a second the value is where polling once a second would have it."""
    bench.offer(5, cap=256, margin=0.1)
    bench.after(100)
    for _ in range(20):
        bench.after(0.1)

    assert bench.engine.values["cap"] == math.ceil(256 * 0.6**2)


def test_a_long_silence_is_not_a_jump(bench: Bench) -> None:
    """However long nobody polled, one poll eases for a second at most; a clock that steps back eases nothing."""
    bench.offer(5, cap=256, margin=0.1)
    bench.after(1000)
    assert bench.engine.values["cap"] == 256
    bench.after(1000)
    assert bench.engine.values["cap"] == 154
    bench.now_s -= 50
    (bench.store.folder / "off").touch()
    bench.after(0)
    assert bench.engine.values["cap"] == 154
    bench.after(1)
    assert bench.engine.values["cap"] == 93


def test_real_knobs_ease_by_a_hundredth_of_their_range_at_least(bench: Bench) -> None:
    """A margin leaves 0 by 0.01 a second, then by a half of itself, and lands on its safe value."""
    bench.offer(5, cap=16, margin=0.0)
    bench.after(100)
    seen = []
    for _ in range(6):
        bench.after(1)
        seen.append(bench.engine.values["margin"])

    assert seen == pytest.approx([0.01, 0.02, 0.03, 0.045, 0.0675, 0.1])
    assert bench.after(1) is EASED
    assert bench.engine.values["margin"] == 0.1


def test_choices_flags_and_variants_are_left_as_they_are(bench: Bench) -> None:
    """They have no half-way; the answer tells that the rest was eased."""
    bench.offer(5, cap=200, chunked=False, order="priority")
    bench.after(100)
    bench.ease_out()

    assert bench.engine.values == {**SAFE, "chunked": False, "order": "priority"}
    assert bench.engine.restarts == []


def test_a_restart_class_number_is_left_as_it_is(tmp_path: Path) -> None:
    """Only live and routing numbers are eased."""
    slots = replace(CAP, name="slots", knob_class=KnobClass.RESTART)
    bench = Bench(tmp_path, engine=FakeEngine((CAP, slots), {"cap": 100, "slots": 100}))
    bench.again(cold=False)
    bench.after(100)

    assert bench.after(1) is EASED
    assert bench.engine.values == {"cap": 16, "slots": 100}


def test_easing_is_remembered(bench: Bench) -> None:
    """The version stays held for fencing, its values no longer stand: a restart does not bring them back."""
    bench.offer(5, cap=200)
    bench.after(100)
    bench.ease_out()
    assert bench.offer(4, cap=20).status is AckStatus.NACK
    assert bench.offer(5, cap=200).reason == "eased to safe values since"
    bench.beat(6)
    bench.again(cold=True)

    assert bench.engine.values == SAFE
    assert (bench.receiver.held.version, bench.receiver.held.eased) == (version(5), True)


def test_a_lease_that_ends_at_safe_values_eases_nothing(bench: Bench) -> None:
    """Where nothing moves, nothing is said to have moved."""
    bench.offer(5, cap=16)

    assert bench.after(100) is EASED
    assert not bench.receiver.held.eased
    assert [line for line in bench.audit() if "eased" in line] == []


def test_a_heartbeat_stops_the_easing_where_it_stands(bench: Bench) -> None:
    """A renewed lease moves nothing back: that takes a decision."""
    bench.offer(5, cap=256)
    bench.after(100)
    bench.after(1)
    bench.beat(6)

    assert bench.after(1) is HOLDING
    assert bench.after(50) is HOLDING
    assert bench.engine.values["cap"] == 154
    assert bench.after(49) is EASING
    assert bench.engine.values["cap"] == 154
    bench.after(1)
    assert bench.engine.values["cap"] == math.ceil(154 * 0.6)


def test_a_newer_version_ends_the_easing(bench: Bench) -> None:
    """Offered while easing it is taken, counts as proof of life, and the next easing sets out from it."""
    bench.offer(5, cap=256)
    bench.after(100)
    bench.after(1)
    assert bench.offer(6, cap=100).reason == ""
    assert not bench.receiver.held.eased

    assert bench.after(99) is HOLDING
    assert bench.engine.values["cap"] == 100
    bench.after(1)
    bench.after(1)
    assert bench.engine.values["cap"] == 60


def test_an_old_version_taken_while_easing_is_eased_from_anew(bench: Bench) -> None:
    """A version older than the last renewal is applied as the fence allows, but holds no lease: easing goes on."""
    bench.offer(5, cap=256)
    bench.beat(9)
    bench.after(100)
    bench.after(1)
    assert bench.offer(7, cap=100).status is AckStatus.APPLIED

    assert bench.after(0.5) is EASING
    assert bench.engine.values["cap"] == 100
    bench.after(1)
    assert bench.engine.values["cap"] == 60


def test_the_start_of_easing_is_spread(tmp_path: Path) -> None:
    """Each target waits a share of the jitter of its own, the same one for the same seed."""
    limits = ReceiverLimits(hold_s=100.0, ease_jitter_s=10.0)

    def start(name: str, seed: int) -> float:
        bench = Bench(tmp_path / name, limits=limits, seed=seed)
        bench.offer(5, cap=200)
        bench.after(99)
        while bench.after(0.1) is HOLDING:
            pass
        return round(bench.now_s - 1100, 1)

    starts = [start(f"{seed}", seed) for seed in range(6)]
    assert len(set(starts)) == 6
    assert all(0 <= late <= 10.1 for late in starts)
    assert max(starts) - min(starts) > 3
    assert start("again", 3) == starts[3]


def test_easing_that_fails_goes_on_later(bench: Bench) -> None:
    """An engine that takes nothing is asked again at each poll, and never jumps when it comes back."""
    bench.offer(5, cap=200)
    bench.after(100)
    bench.engine.fails.add("cap")
    for _ in range(5):
        assert bench.after(1) is EASING
    assert bench.receiver.trouble == "easing failed: cap stuck"
    bench.engine.fails.clear()
    bench.after(1)

    assert bench.engine.values["cap"] == 120


def test_easing_needs_to_read(bench: Bench) -> None:
    """An engine that cannot be read is not moved."""
    bench.offer(5, cap=200)
    bench.engine.unreadable = True

    assert bench.after(100) is EASING
    assert bench.after(1) is EASING
    bench.engine.unreadable = False
    bench.after(1)
    assert bench.engine.values["cap"] == 200


def test_easing_goes_on_if_the_disk_fails(bench: Bench) -> None:
    """A store that cannot be written does not keep an engine from being safe."""
    bench.offer(5, cap=200)
    folder = bench.store.folder
    folder.rename(folder.with_name("gone"))
    folder.write_text("in the way")
    bench.after(100)
    bench.ease_out()

    assert bench.engine.values["cap"] == 16
    assert bench.receiver.trouble != ""


def test_an_engine_that_does_not_take_its_safe_value_is_never_called_eased(bench: Bench) -> None:
    """Arrived is what reads back as safe."""
    bench.offer(5, cap=200)
    bench.engine.ignores.add("cap")
    bench.after(100)

    assert {bench.after(1) for _ in range(20)} == {EASING}
    bench.engine.ignores.clear()
    assert bench.after(1) is EASING
    assert bench.after(1) is EASED


def test_values_out_of_bounds_come_within_them_first(tmp_path: Path) -> None:
    """An engine launched beyond its bounds is brought back to the bound at once, then eased."""
    bench = Bench(tmp_path)
    bench.engine.values.update(cap=900, margin=-3.0)
    bench.after(1)
    assert (bench.engine.values["cap"], bench.engine.values["margin"]) == (256, 0.0)
    bench.ease_out()
    assert bench.engine.values == SAFE


def test_bounds_that_are_no_whole_numbers_bound_whole_numbers(tmp_path: Path) -> None:
    """An integer knob stays within fractional bounds."""
    spec = replace(CAP, minimum=2.5, maximum=20.5, safe=10)
    for start, first in ((90, 20), (0, 3)):
        bench = Bench(tmp_path / str(start), engine=FakeEngine((spec,), {"cap": 10}))
        bench.engine.values["cap"] = start
        bench.after(1)
        assert bench.engine.values["cap"] == first


def test_knobs_without_bounds_ease_too(tmp_path: Path) -> None:
    """A knob with one bound or none moves by its slew and least step, through zero as well."""
    free = replace(CAP, minimum=None, maximum=None, safe=-4)
    real = replace(MARGIN, minimum=None, maximum=None, safe=50.0)
    bench = Bench(tmp_path, engine=FakeEngine((free, real), {"cap": -4, "margin": 50.0}))
    bench.engine.values.update(cap=5, margin=0.0)
    bench.after(0)
    seen = []
    for _ in range(7):
        bench.after(1)
        seen.append((bench.engine.values["cap"], bench.engine.values["margin"]))

    assert [cap for cap, _ in seen] == [3, 2, 1, 0, -1, -2, -3]
    assert [margin for _, margin in seen] == pytest.approx([0.5, 1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375])


@pytest.mark.parametrize("reading", ["many", True, None, math.nan, math.inf])
def test_a_reading_that_is_no_number_is_left_alone(bench: Bench, reading: object) -> None:
    """What does not read back as a number is not slewed from."""
    bench.offer(5, cap=200, margin=0.5)
    bench.engine.values["cap"] = odd(reading)
    bench.after(100)
    bench.ease_out()

    assert bench.engine.values["cap"] is reading
    assert bench.engine.values["margin"] == 0.1


def test_a_choice_that_reads_as_a_number_is_left_alone(bench: Bench) -> None:
    """It does not keep the numbers from being eased."""
    bench.offer(5, cap=200)
    bench.engine.values["order"] = 7
    bench.after(100)
    bench.ease_out()

    assert (bench.engine.values["cap"], bench.engine.values["order"]) == (16, 7)


def test_a_zero_that_means_none_needs_a_maximum_to_stand_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it is eased as the number that it is."""
    bench = Bench(tmp_path, engine=FakeEngine((replace(CAP, minimum=0, maximum=None),), {"cap": 16}))
    monkeypatch.setattr(bench.receiver._surface, "zero_is_none", lambda _: True)  # noqa: SLF001
    bench.engine.values["cap"] = 0
    bench.after(0)
    bench.after(1)

    assert bench.engine.values["cap"] == 1


def test_a_knob_whose_safe_value_has_become_wrong_is_left_alone(bench: Bench) -> None:
    """Nothing is ever eased out of its bounds."""
    bench.offer(5, cap=200, margin=0.5)
    bench.engine.specs = (replace(CAP, minimum=20), *SPECS[1:])
    bench.after(100)
    bench.ease_out()

    assert bench.engine.values["cap"] == 200


def test_a_knob_that_appears_while_easing_sets_out_from_its_own_place(bench: Bench) -> None:
    """Each knob's way begins when it is first seen."""
    bench.offer(5, cap=200)
    extra = replace(CAP, name="extra", safe=10)
    bench.after(100)
    bench.engine.specs = (*SPECS, extra)
    bench.engine.values["extra"] = 100
    bench.after(1)
    assert (bench.engine.values["cap"], bench.engine.values["extra"]) == (120, 100)
    bench.after(1)
    assert (bench.engine.values["cap"], bench.engine.values["extra"]) == (72, 60)


@pytest.mark.parametrize(
    ("at", "goal", "elapsed_s", "reached"),
    [
        (100.0, 10.0, 1.0, 60.0),
        (100.0, 10.0, 0.5, 100 * 0.6**0.5),
        (10.0, 100.0, 1.0, 15.0),
        (10.0, 14.0, 1.0, 14.0),
        (10.0, 15.0, 1.0, 15.0),
        (-100.0, -10.0, 1.0, -60.0),
        (-10.0, -100.0, 1.0, -15.0),
        (10.0, 100.0, 0.5, 10 * 1.5**0.5),
        (5.0, -5.0, 1.0, 3.0),
        (0.0, 5.0, 1.0, 1.0),
        (1.0, -5.0, 1.0, 0.0),
        (5.0, 5.0, 0.0, 5.0),
        (5.0, 9.0, 0.0, 5.0),
    ],
)
def test_slew_is_a_share_of_the_magnitude(at: float, goal: float, elapsed_s: float, reached: float) -> None:
    """Growing and shrinking each have their rate, whatever the sign; a least step always passes."""
    assert slewed(at, goal, elapsed_s, elapsed_s, ReceiverLimits()) == pytest.approx(reached)


def test_slewing_ends_exactly_at_its_goal() -> None:
    """Where the room just reaches the goal it is the goal, not a sum that rounds to something else."""
    assert slewed(1.0, 1e-17, 1.0, 1.0, ReceiverLimits()) == 1e-17


def test_the_lease_says_how_long_it_lasts(tmp_path: Path) -> None:
    """Until easing begins, jitter included; 0 once it has, without end for a receiver that holds for ever."""
    bench = Bench(tmp_path, limits=ReceiverLimits(hold_s=100.0, ease_jitter_s=8.0))
    bench.offer(5, cap=40)
    lease_s = bench.receiver.lease_s(bench.now_s)

    assert 100.0 < lease_s < 108.0
    assert bench.after(lease_s - 0.01) is Phase.HOLDING
    assert bench.receiver.lease_s(bench.now_s) == pytest.approx(0.01)
    assert bench.after(0.02) is Phase.EASING
    assert bench.receiver.lease_s(bench.now_s) == 0.0
    assert Bench(tmp_path / "other", limits=ReceiverLimits(hold_s=None)).receiver.lease_s(0.0) == math.inf


def test_the_least_step_fits_the_knob() -> None:
    """One of a whole number, a hundredth of a range, or of the safe value where there is no range."""
    assert least_step(CAP) == 1.0
    assert least_step(replace(MARGIN, minimum=-1.0, maximum=3.0)) == 0.04
    assert least_step(replace(MARGIN, minimum=None, safe=-300.0)) == 3.0
    assert least_step(replace(MARGIN, maximum=None, safe=0.2)) == 0.01
    assert least_step(replace(MARGIN, kind=KnobKind.INTEGER)) == 1.0


def test_the_defaults_are_the_promised_ones() -> None:
    """Half an hour of hold, 1.5 up and 0.6 down a second, half a second of jitter."""
    assert [phase.value for phase in Phase] == ["holding", "easing", "eased"]
    assert ReceiverLimits() == ReceiverLimits(hold_s=1800.0, slew_up_per_s=1.5, slew_down_per_s=0.6, ease_jitter_s=0.5)

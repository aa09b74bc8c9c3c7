"""`step` as a whole: it never raises, heeds only the claim in force, and time is the log's."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from flyball_controller.machine import Seams, standard_seams
from flyball_core.fencing import Version
from flyball_core.ids import LogId, OwnerId
from flyball_core.inputs import Body, Claim, Malformed, Tick
from flyball_core.outputs import DecisionRecord, Directive, Heartbeat, Output, RoutingTable, TickRecord
from flyball_proto.codec import decode_audit, decode_directive, encode_audit, encode_directive
from harness.any_body import BODIES
from harness.invariants import check
from harness.scripted_pool import PRINT, WALL_S, ScriptedPool, scripted_pool


def encodable(outputs: list[Output]) -> None:
    """What is answered can be published, and reads back as it was."""
    for output in outputs:
        if isinstance(output, (Directive, RoutingTable, Heartbeat)):
            assert output == decode_directive(encode_directive(output))
        elif isinstance(output, (DecisionRecord, TickRecord)):
            # NaN is unequal to itself, so the bytes are compared.
            assert encode_audit(output) == encode_audit(decode_audit(encode_audit(output)))


def seams() -> Seams:
    """The standard parts, and a slow policy that may be answered for."""
    made = standard_seams()
    made.slow = ("slow",)
    return made


@settings(max_examples=250, deadline=None)
@given(bodies=st.lists(BODIES, max_size=25))
def test_it_never_raises_and_answers_only_what_can_be_sent(bodies: list[Body]) -> None:
    """Any inputs of the contract, absurd numbers included: no exception, outputs that fit the wire, bounded motion."""
    pool = scripted_pool(agents=1, seams=seams())
    pool.run(2)
    for body in bodies:
        encodable(pool.put(body))
        if isinstance(body, Tick):
            encodable(pool.second())
    encodable(pool.run(2))

    assert [] == check(pool.log.inputs, pool.log.outputs).motion


@given(value=st.binary(max_size=200))
def test_bytes_that_are_no_input_are_counted(value: bytes) -> None:
    """Whatever bytes stand in the log, `step` goes on."""
    pool = scripted_pool(agents=1)
    before = pool.state.counts.get("malformed", 0)
    pool.put_raw(value)
    malformed = isinstance(pool.log.inputs[-1].body, Malformed)

    assert before + malformed == pool.state.counts.get("malformed", 0)
    assert pool.tick()


class TestClaims:
    """Only the last claim of this log counts, and only its ticks."""

    def test_ticks_of_another_epoch_are_ignored(self) -> None:
        """Earlier, later and absurd epochs move no time and answer nothing."""
        pool = scripted_pool()
        pool.run(3)
        before = pool.state.time_s
        for epoch in (0 if pool.state.epoch else 1, 10**6, 2**63):
            assert [] == pool.put(Tick(epoch=epoch, interval_s=1.0, wall_s=WALL_S))

        assert before == pool.state.time_s
        assert 3 == pool.state.counts["ticks_of_another_epoch"]

    def test_a_predecessors_ticks_end_with_the_claim(self) -> None:
        """After a later claim the earlier owner's ticks decide nothing."""
        pool = scripted_pool()
        pool.run(3)
        earlier = pool.state.epoch
        pool.claim("c2")

        assert [] == pool.put(Tick(epoch=earlier, interval_s=1.0, wall_s=WALL_S))

    def test_claims_of_another_log_are_ignored(self) -> None:
        """An owner of a wiped or exchanged log has nothing to say here."""
        pool = scripted_pool()
        epoch = pool.state.epoch
        pool.put(Claim(owner=OwnerId("c9"), log_id=LogId("another"), fingerprint=PRINT, wall_s=WALL_S))

        assert epoch == pool.state.epoch
        assert 1 == pool.state.counts["claims_of_another_log"]

    def test_without_a_claim_nothing_is_decided(self) -> None:
        """A log that nobody claimed answers no tick."""
        pool = ScriptedPool(engines={}, gateways={})

        assert [] == pool.put(Tick(epoch=0, interval_s=1.0, wall_s=WALL_S))

    def test_versions_are_positions(self) -> None:
        """Epoch is the claim's offset, revision the tick's."""
        pool = scripted_pool()
        outputs = pool.second()
        [beat] = [o for o in outputs if isinstance(o, Heartbeat)]
        offset = next(i.offset for i in reversed(pool.log.inputs) if isinstance(i.body, Tick))

        assert Version(log_id=pool.state.log_id, partition=0, epoch=0, revision=offset) == beat.version


class TestTime:
    """The machine's time is the sum of intervals, each bounded."""

    @pytest.mark.parametrize(
        ("interval_s", "moved"),
        [(1.0, 1.0), (0.1, 0.1), (5.0, 5.0), (3600.0, 5.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 5.0)],
    )
    def test_an_interval_moves_it_by_at_most_5_s(self, interval_s: float, moved: float) -> None:
        """An owner that slept has not lived that time; nonsense moves nothing."""
        pool = scripted_pool()
        pool.run(2)
        before = pool.state.time_s
        pool.put(Tick(epoch=pool.state.epoch, interval_s=interval_s, wall_s=WALL_S + 3))

        assert pytest.approx(before + moved) == pool.state.time_s

    @pytest.mark.parametrize(
        ("away_s", "moved"), [(15.0, 15.0), (60.0, 60.0), (86_400.0, 60.0), (-3600.0, 0.0), (math.nan, 0.0)]
    )
    def test_a_takeover_moves_it_by_the_wall_clock_at_most_60_s(self, away_s: float, moved: float) -> None:
        """Between two owners the wall clock is asked, and clipped."""
        pool = scripted_pool()
        pool.run(2)
        before, wall = pool.state.time_s, pool.state.wall_s
        pool.claim("c2")
        pool.put(Tick(epoch=pool.state.epoch, interval_s=0.0, wall_s=wall + away_s))

        assert pytest.approx(before + moved) == pool.state.time_s

    @pytest.mark.parametrize("wall_s", [math.nan, math.inf, -math.inf])
    def test_a_wall_time_that_is_none_is_not_taken(self, wall_s: float) -> None:
        """Expiry goes by the last wall time that was one."""
        pool = scripted_pool()
        pool.run(2)
        before = pool.state.wall_s
        pool.put(Tick(epoch=pool.state.epoch, interval_s=1.0, wall_s=wall_s))

        assert before == pool.state.wall_s


class TestDigest:
    """The digest of a tick covers every record before it."""

    def test_every_record_counts(self) -> None:
        """Changing the bytes of any one input, ignored ones included, changes the next tick's digest."""
        course = scripted_pool()
        course.run(3)
        course.put(Tick(epoch=99, interval_s=1.0, wall_s=WALL_S))
        course.put_raw(b"no input")
        course.claim("c2")
        raw, digests = list(course.log.raw), set()
        for changed in range(-1, len(raw)):
            pool = ScriptedPool(engines={}, gateways={})
            for i, value in enumerate(raw):
                pool.put_raw(value + b"\xfa\x7f\x00" if i == changed else value)  # an unknown field: read as before
            pool.put(Tick(epoch=len(raw) - 1, interval_s=0.0, wall_s=WALL_S))
            digests.add(next(o.inputs_digest for o in pool.log.outputs[::-1] if isinstance(o, TickRecord)))

        assert len(raw) + 1 == len(digests)

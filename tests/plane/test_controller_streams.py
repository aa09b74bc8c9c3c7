"""Which receivers may attach, and which of two streams of one target stays."""

from dataclasses import replace

import grpc
import pytest

from flyball_controller.serving.outbox import Outbox
from flyball_controller.serving.refusals import Refusal
from flyball_controller.serving.streams import Stream, Streams, check_attach
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import Attach, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec
from flyball_service.tls import NOBODY, Identity

ATTACH = Attach(pool=PoolId("chat"), kind=TargetKind.ENGINE, target="e1", incarnation=Incarnation("i1"))


def stream(attach: Attach = ATTACH) -> Stream:
    """A stream of a receiver."""
    return Stream(attach=attach, outbox=Outbox(lambda: 0.0, lambda _: None))


class TestWhoMayAttach:
    """The certificate says as what; what it says of itself must fit into what it is told."""

    def test_a_certificate_attaches_as_itself(self) -> None:
        """An engine's certificate with the engine's name passes, and so does anybody on plaintext."""
        check_attach(ATTACH, Identity("engine", "e1"))
        check_attach(ATTACH, None)

    @pytest.mark.parametrize(
        ("who", "reason"),
        [
            (Identity("engine", "e2"), "name"),
            (Identity("gateway", "e1"), "role"),
            (Identity("operator", "e1"), "role"),
            (NOBODY, "role"),
        ],
    )
    def test_nobody_attaches_as_another(self, who: Identity, reason: str) -> None:
        """Another name and another role are refused, each under its reason."""
        with pytest.raises(Refusal) as refused:
            check_attach(ATTACH, who)

        assert (grpc.StatusCode.PERMISSION_DENIED, reason) == (refused.value.code, refused.value.reason)

    @pytest.mark.parametrize("wrong", [{"pool": PoolId("")}, {"target": "e" * 201}, {"incarnation": Incarnation("")}])
    def test_names_are_there_and_not_too_long(self, wrong: dict[str, str]) -> None:
        """An empty or an endless name is refused before it reaches the log."""
        with pytest.raises(Refusal, match="need a name of 1 to 200 characters"):
            check_attach(Attach(**{**{name: getattr(ATTACH, name) for name in ATTACH.__slots__}, **wrong}), None)

    def test_more_knobs_than_can_be_said_back_are_refused(self) -> None:
        """An engine that tells 40 KiB of knobs is refused with the reason."""
        knobs = tuple(
            KnobSpec(name=f"{number}-{'k' * 100}", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=True)
            for number in range(400)
        )
        with pytest.raises(Refusal, match="more of its knobs"):
            check_attach(replace(ATTACH, knobs=knobs), None)


class TestTwoOfOneTarget:
    """One target is one process."""

    async def test_another_incarnation_is_refused_with_both_named(self) -> None:
        """The newcomer hears who is there; the incumbent notices nothing."""
        streams, first = Streams(), stream()
        streams.admit(first)
        with pytest.raises(Refusal, match="incarnation i1; this is incarnation i2") as refused:
            streams.admit(stream(replace(ATTACH, incarnation=Incarnation("i2"))))

        assert grpc.StatusCode.ALREADY_EXISTS is refused.value.code
        assert not first.ending.done()

    async def test_the_same_incarnation_replaces_its_old_stream(self) -> None:
        """The old stream ends; its end leaves the new one in place."""
        streams, old, new = Streams(), stream(), stream()
        streams.admit(old)
        streams.admit(new)

        assert grpc.StatusCode.ABORTED is old.ending.result().code
        streams.drop(old)

        assert [new] == list(streams)
        streams.drop(new)

        assert [] == list(streams)

    async def test_once_the_first_is_gone_another_incarnation_may_come(self) -> None:
        """A restarted engine attaches as soon as its old stream has ended."""
        streams, first = Streams(), stream()
        streams.admit(first)
        streams.drop(first)
        streams.admit(stream(replace(ATTACH, incarnation=Incarnation("i2"))))

        assert {"engine": 1} == dict(streams.by_kind())

    async def test_an_engine_and_a_gateway_of_one_name_are_two(self) -> None:
        """Kinds and pools tell targets apart."""
        streams = Streams()
        for attach in (ATTACH, replace(ATTACH, kind=TargetKind.GATEWAY), replace(ATTACH, pool=PoolId("bulk"))):
            streams.admit(stream(attach))

        assert {"engine": 2, "gateway": 1} == dict(streams.by_kind())


class TestHowMany:
    """The number of streams is bounded, in all and for each certificate."""

    def test_one_certificate_cannot_take_all(self) -> None:
        """Beyond its share a certificate is refused, and another one is not."""
        streams = Streams(most=10, most_of_one=2)
        greedy = Identity("engine", "e1")
        streams.enter(greedy)
        streams.enter(greedy)
        with pytest.raises(Refusal, match="try another controller") as refused:
            streams.enter(greedy)

        assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "full") == (refused.value.code, refused.value.reason)
        streams.enter(Identity("engine", "e2"))
        streams.leave(greedy)
        streams.enter(greedy)

    def test_all_together_are_bounded(self) -> None:
        """On plaintext only the whole number counts."""
        streams = Streams(most=3, most_of_one=1)
        for _ in range(3):
            streams.enter(None)
        with pytest.raises(Refusal, match="3 streams are open"):
            streams.enter(None)

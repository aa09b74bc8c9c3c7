"""The attach stream over real sockets: who may open it, what may be said on it, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from flyball_controller.serving import Parts
from flyball_controller.serving.attach_door import AttachTimes
from flyball_core.fencing import Version
from flyball_core.ids import LogId
from flyball_core.inputs import Ack, AckStatus
from flyball_core.knobs import BATCH_CAP, KnobClass, KnobKind, KnobSpec
from flyball_proto.codec import receiver_message
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import channel
from plane_clients import (
    Receiver,
    Running,
    attached,
    config_for,
    engine,
    eventually,
    nack_of,
    pin,
    running,
    target,
)

IMPATIENT = Parts(times=AttachTimes(first_word_s=0.3, answer_s=0.5))
VERSION = Version(log_id=LogId("l"), partition=0, epoch=0, revision=0)


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Running]:
    """A controller that gives receivers half a second."""
    async with running(config_for(tmp_path), parts=IMPATIENT) as one:
        yield one


async def refused(address: str, *words: pb.ReceiverMessage, half_close: bool = False) -> grpc.aio.AioRpcError:
    """How a stream ends on which these words are said."""
    own = channel(address, None)
    try:
        call = cast("Any", rpc.AttachServiceStub(own)).Attach()
        for word in words:
            await call.write(word)
        if half_close:
            await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        return error.value
    finally:
        await own.close(None)


def said_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """Status and words of an end."""
    return error.code(), str(error.details())


class TestTheFirstWord:
    """A stream opens with an attach."""

    async def test_silence_is_ended(self, impatient: Running) -> None:
        """Who opens a stream and says nothing is told what was waited for, and is counted."""
        code, words = said_of(await refused(impatient.addresses.grpc))

        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert "a stream opens with an attach, within 0.3 s" == words
        assert 1 == await impatient.metric("flyball_controller_attaches_refused_total", reason="no_attach")

    @pytest.mark.parametrize("word", ["nothing", "ack", "farewell"])
    async def test_anything_else_is_refused(self, controller: Running, word: str) -> None:
        """An ack, a farewell, or the end of the stream opens nothing."""
        attach = engine().attach()
        ack = Ack(
            pool=attach.pool, kind=attach.kind, target="e1", incarnation=attach.incarnation, version=VERSION,
            status=AckStatus.APPLIED,
        )  # fmt: skip
        words = {
            "nothing": (),
            "ack": (receiver_message(ack),),
            "farewell": (receiver_message(replace(attach, attached=False)),),
        }
        error = await refused(controller.addresses.grpc, *words[word], half_close=True)

        assert grpc.StatusCode.INVALID_ARGUMENT is error.code()

    async def test_an_empty_message_is_refused(self, controller: Running) -> None:
        """A message that carries neither attach nor ack is no message of this contract."""
        error = await refused(controller.addresses.grpc, pb.ReceiverMessage())

        assert "of a kind not known here" in str(error.details())

    async def test_what_is_too_large_is_refused(self, controller: Running) -> None:
        """An attach of 600 KB is refused with the limit, and nothing of it reaches the log."""
        big = receiver_message(engine().attach())
        big.attach.pool = "p" * 600_000
        code, words = said_of(await refused(controller.addresses.grpc, big))

        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert "the most is 524288" in words

    async def test_more_knobs_than_fit_are_refused(self, controller: Running) -> None:
        """An engine whose knobs no directive could carry does not attach."""
        knobs = tuple(
            KnobSpec(name=f"{number}{'k' * 150}", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=True)
            for number in range(300)
        )
        said = replace(engine().attach(), knobs=knobs)

        assert (
            grpc.StatusCode.INVALID_ARGUMENT
            is (await refused(controller.addresses.grpc, receiver_message(said))).code()
        )


class TestOnTheStream:
    """What a receiver says once it is attached."""

    async def test_a_refusal_of_a_directive_is_on_record(self, controller: Running) -> None:
        """A nack is counted for its pool and told in the status, with its reason."""
        address = controller.addresses.grpc
        async with attached(address) as receiver:
            receiver.answers = False
            await pin(address, 40)
            told = await eventually(receiver.directives, bool)
            await receiver.say(nack_of(receiver.engine.attach(), told[0]))
            seen = await eventually(lambda: target(address), lambda one: one.trouble.startswith("nack"))

            assert "nack: not today" == seen.trouble
            assert 1 == await controller.metric("flyball_controller_nacks_total", pool="chat")

    async def test_words_of_another_end_the_stream(self, controller: Running) -> None:
        """A receiver speaks for itself only: another's name on its stream is refused."""
        receiver = Receiver(engine())
        await receiver.attach(controller.addresses.grpc)
        await eventually(lambda: receiver.heard, bool)
        await receiver.say(replace(engine("e2").attach()))
        code, words = said_of(await receiver.end())

        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert "this stream is of e1" in words

    async def test_a_receiver_may_attach_anew(self, controller: Running) -> None:
        """What it says anew of itself on its stream is what counts: here, what it holds."""
        address = controller.addresses.grpc
        async with attached(address) as receiver:
            receiver.engine.setting[BATCH_CAP] = 50
            await receiver.say(receiver.engine.attach())

            assert (
                50
                == (await eventually(lambda: target(address), lambda one: one.effective[BATCH_CAP].integer == 50))
                .effective[BATCH_CAP]
                .integer
            )

    async def test_a_farewell_ends_it_in_good_order(self, controller: Running) -> None:
        """After a farewell the stream ends without an error, and the engine is told of as not attached."""
        address = controller.addresses.grpc
        receiver = Receiver(engine())
        await receiver.attach(address)
        await eventually(lambda: receiver.heard, bool)
        await receiver.say(replace(receiver.engine.attach(), attached=False))
        await receiver.close()

        assert receiver.ended is None
        await eventually(lambda: target(address), lambda one: one.trouble == "not attached")

    async def test_who_goes_without_a_word_is_detached_too(self, controller: Running) -> None:
        """A broken connection is as good as a farewell."""
        address = controller.addresses.grpc
        async with attached(address):
            await eventually(lambda: target(address), lambda one: one.attached)

        await eventually(lambda: target(address), lambda one: one.target and not one.attached)
        assert 0 == await controller.metric("flyball_controller_streams", kind="engine")


class TestTwoOfOneName:
    """A second engine under the first one's name."""

    async def test_another_incarnation_is_refused_while_the_first_is_there(self, controller: Running) -> None:
        """The newcomer hears both incarnations; the incumbent goes on; once it leaves, the newcomer may come."""
        address = controller.addresses.grpc
        async with attached(address) as first:
            second = Receiver(engine(incarnation="i1"))
            await second.attach(address)
            code, words = said_of(await second.end())

            assert grpc.StatusCode.ALREADY_EXISTS is code
            assert "incarnation i0" in words
            assert "incarnation i1" in words
            assert 1 == await controller.metric("flyball_controller_attaches_refused_total", reason="already_attached")
            heard = len(first.heartbeats())
            await eventually(first.heartbeats, lambda beats: len(beats) > heard)
        await eventually(lambda: target(address), lambda one: not one.attached)
        async with attached(address, engine(incarnation="i1")):
            await eventually(lambda: target(address), lambda one: one.incarnation == "i1")

    async def test_the_same_incarnation_replaces_its_own_stream_at_once(self, controller: Running) -> None:
        """An engine whose connection broke without a sign attaches anew; the old stream ends, and it stays attached."""
        address = controller.addresses.grpc
        old = Receiver(engine())
        await old.attach(address)
        await eventually(lambda: old.heard, bool)
        async with attached(address) as new:
            assert grpc.StatusCode.ABORTED is (await old.end()).code()
            heard = len(new.heartbeats())
            await eventually(new.heartbeats, lambda beats: len(beats) > heard + 3)

            assert (await target(address)).attached
            assert 1 == await controller.metric("flyball_controller_streams", kind="engine")


class TestWhoDoesNotListen:
    """A receiver that is slow, frozen or mute holds up nobody, and not for ever."""

    async def test_a_mute_receiver_is_sent_no_second_directive_and_then_ended(self, impatient: Running) -> None:
        """Directives behind an unanswered one give way to the newest; after the patience the stream is ended."""
        address = impatient.addresses.grpc
        mute = Receiver(engine("mute"))
        mute.answers = False
        await mute.attach(address)
        async with attached(address, engine("e1")) as other:
            await pin(address, 16)
            error = await mute.end()

            assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code()
            assert "mute has not taken or answered a message for 0.5 s" == error.details()
            assert 1 == len(mute.directives())
            assert 3 < len(other.directives())
            assert 0 < await impatient.metric("flyball_controller_superseded_total", kind="setting")
            assert 1 == await impatient.metric("flyball_controller_attaches_refused_total", reason="silent")
        await eventually(lambda: target(address, "mute"), lambda one: one.trouble == "not attached")

    async def test_a_receiver_that_reads_nothing_holds_up_nobody(self, impatient: Running) -> None:
        """It is let go after the patience, while its neighbour is told and answers within a few ticks."""
        address = impatient.addresses.grpc
        deaf = Receiver(engine("deaf"))
        await deaf.attach(address, reads=False)
        await eventually(lambda: target(address, "deaf"), lambda one: one.attached)
        async with attached(address, engine("e1")) as other:
            await pin(address, 60)
            await eventually(lambda: other.engine.setting[BATCH_CAP], lambda value: value == 60, within_s=2.0)
            await eventually(lambda: target(address, "deaf"), lambda one: not one.attached)

            assert (await target(address)).attached
        await deaf.leave()


async def test_two_hundred_at_once_are_attached_and_told(controller: Running) -> None:
    """Two hundred engines attach and are told a directive each; every answer comes on record."""
    address = controller.addresses.grpc
    receivers = [Receiver(engine(f"e{number}")) for number in range(200)]
    try:
        await asyncio.gather(*(receiver.attach(address) for receiver in receivers))
        await eventually(lambda: all(receiver.heard for receiver in receivers), bool)
        await pin(address, 62)
        await eventually(lambda: all(one.engine.setting[BATCH_CAP] == 62 for one in receivers), bool)
        acks = await eventually(
            lambda: controller.metric("flyball_controller_acks_total", pool="chat"), lambda number: number >= 200
        )

        assert 200 <= acks
        assert 200 == await controller.metric("flyball_controller_streams", kind="engine")
    finally:
        for receiver in receivers:
            await receiver.leave()

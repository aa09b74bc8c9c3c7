"""What operators ask and order, over real sockets."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyball_controller.serving import write_door
from flyball_controller.serving.read_door import page_of
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import TickRecord
from flyball_log.interface import Record
from flyball_proto.codec import encode_audit
from flyball_proto.v1 import common_pb2, inputs_pb2, services_pb2 as pb, services_pb2_grpc as rpc
from plane_clients import (
    PATIENCE_S,
    POLICY,
    Running,
    append,
    attached,
    config_for,
    eventually,
    frame,
    pin,
    running,
    status,
    stub,
)


@pytest.fixture
async def reader(controller: Running) -> AsyncIterator[Any]:
    """A viewer's stub."""
    async with stub(rpc.OperatorReadServiceStub, controller.addresses.grpc) as one:
        yield one


@pytest.fixture
async def writer(controller: Running) -> AsyncIterator[Any]:
    """An operator's stub."""
    async with stub(rpc.OperatorWriteServiceStub, controller.addresses.grpc) as one:
        yield one


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), str(error.value.details())


def override(**changed: Any) -> inputs_pb2.OverrideSet:
    """A sound override, but for what the test changes."""
    sound: dict[str, Any] = {
        "pool": "chat",
        "override_id": "o1",
        "knob": BATCH_CAP,
        "value": common_pb2.Value(integer=60),
        "expires_wall_s": time.time() + 60.0,
        "author": "ada",
    }
    return inputs_pb2.OverrideSet(**{**sound, **changed})


class TestLooking:
    """Status and policies."""

    async def test_the_status_says_what_is_owned_here(self, reader: Any) -> None:
        """Its name, its log, its partitions with their epochs, and its pools."""
        answer = await reader.Status(pb.StatusRequest())

        assert ("c1", 2, True, []) == (
            answer.controller, answer.partitions, answer.ready, list(answer.waiting_for),
        )  # fmt: skip
        assert answer.log.endswith("/log")
        assert abs(answer.wall_s - time.time()) < 5.0
        assert [0, 1] == [one.partition for one in answer.owned]
        assert ["chat"] == [pool.pool for pool in answer.pools]
        assert ("c1", common_pb2.MODE_CONTROL, "config:chat.yaml") == (
            answer.pools[0].owner, answer.pools[0].mode, answer.pools[0].policy_author,
        )  # fmt: skip

    async def test_one_pool_can_be_asked_for(self, controller: Running, reader: Any) -> None:
        """Of two pools only the one asked for is told; one that does not exist is refused with those that do."""
        await append(controller.addresses.grpc, [frame(1, pool="bulk")])
        await eventually(lambda: status(controller.addresses.grpc), lambda answer: len(answer.pools) == 2)

        assert ["bulk"] == [one.pool for one in (await reader.Status(pb.StatusRequest(pool="bulk"))).pools]
        code, words = await refusal(reader.Status(pb.StatusRequest(pool="chta")))

        assert grpc.StatusCode.NOT_FOUND is code
        assert "there is no pool 'chta'; known: bulk, chat" in words

    async def test_the_policy_in_force_is_as_its_author_wrote_it(self, reader: Any) -> None:
        """The text comes back to the letter, with its author."""
        answer = await reader.GetPolicy(pb.GetPolicyRequest(pool="chat"))

        assert (POLICY, "config:chat.yaml", True) == (answer.text, answer.author, answer.owned)
        assert grpc.StatusCode.NOT_FOUND is (await refusal(reader.GetPolicy(pb.GetPolicyRequest(pool="x"))))[0]


class TestTheAudit:
    """Pages of decisions, and following them."""

    @staticmethod
    async def read(reader: Any, **request: Any) -> list[pb.DecisionsPage]:
        """Every page of a request that ends."""
        return [page async for page in reader.Decisions(pb.DecisionsRequest(**request))]

    async def test_a_pool_s_audit_is_read_from_the_log(self, controller: Running, reader: Any) -> None:
        """Records of the pool only, in order, from the first or from where a reader left off."""
        await append(controller.addresses.grpc, [frame(1, pool="bulk")])
        await eventually(lambda: status(controller.addresses.grpc), lambda answer: len(answer.pools) == 2)
        pages = await self.read(reader, pool="chat")
        entries = [entry for page in pages for entry in page.entries]
        offsets = [entry.offset for entry in entries]

        assert offsets == sorted(offsets)
        assert {"chat"} == {
            entry.record.tick.pool if entry.record.HasField("tick") else entry.record.decision.pool for entry in entries
        }
        assert "policy of config:chat.yaml in force, mode control" in [
            entry.record.decision.summary for entry in entries
        ]
        later = await self.read(reader, pool="chat", from_offset=pages[-1].next_offset)

        assert all(entry.offset >= pages[-1].next_offset for page in later for entry in page.entries)

    def test_a_damaged_record_hides_no_other(self) -> None:
        """It is left out and counted; what stands around it is read."""
        version = Version(log_id=LogId("log"), partition=0, epoch=1, revision=2)
        tick = TickRecord(
            pool=PoolId("chat"),
            version=version,
            time_s=1.0,
            wall_s=1.0,
            inputs_digest=0,
            mode="advise",
            regime="idle",
            confidence=1.0,
            alarm=False,
        )
        values = [encode_audit(tick), b"\xff\xff\xff", encode_audit(tick)]
        records = [Record(5 + number, b"chat", value) for number, value in enumerate(values)]
        page, at = page_of(records, pb.DecisionsRequest(pool="chat"), 5)

        assert (1, [5, 7], 8) == (page.unreadable, [entry.offset for entry in page.entries], at)

    async def test_pages_are_bounded(self, controller: Running, reader: Any) -> None:
        """More than 500 records come in several pages that join without hole or overlap."""
        await append(controller.addresses.grpc, [frame(1, pool=f"p{number}") for number in range(60)])
        await eventually(
            lambda: self.read(reader, partition=0),
            lambda pages: sum(len(page.entries) for page in pages) > 600,
        )
        pages = await self.read(reader, partition=0)
        offsets = [entry.offset for page in pages for entry in page.entries]

        assert 1 < len(pages)
        assert list(range(offsets[0], offsets[-1] + 1)) == offsets

    async def test_the_end_is_read_alone_and_without_ticks(self, controller: Running, reader: Any) -> None:
        """The last so many offsets, and those before them, join; ticks' records are left out if asked for."""
        await eventually(
            lambda: self.read(reader, partition=0, last=2_000),
            lambda pages: sum(len(page.entries) for page in pages) > 40,
        )
        await pin(controller.addresses.grpc, 60)
        everything = [entry for page in await self.read(reader, pool="chat") for entry in page.entries]
        end = everything[-1].offset

        newer = await self.read(reader, pool="chat", last=10, before_offset=end)
        older = await self.read(reader, pool="chat", last=10_000, before_offset=newer[0].from_offset)
        lean = await self.read(reader, pool="chat", without_ticks=True, before_offset=end)

        assert (end - 10, end) == (newer[0].from_offset, newer[-1].next_offset)
        assert everything[0].offset >= older[0].from_offset
        assert [one.offset for one in everything if one.offset < end] == [
            one.offset for page in (*older, *newer) for one in page.entries
        ]
        assert [one for one in everything if one.offset < end and not one.record.HasField("tick")] == [
            one for page in lean for one in page.entries
        ]

    async def test_before_the_oldest_there_is_nothing(self, reader: Any) -> None:
        """One empty page, which says so by beginning where it was to end; whoever follows cannot ask for it."""
        await eventually(
            lambda: self.read(reader, pool="chat"), lambda pages: sum(len(page.entries) for page in pages) > 5
        )
        [page] = await self.read(reader, pool="chat", last=2**63, before_offset=1)
        begin = page.from_offset
        [nothing] = await self.read(reader, pool="chat", last=2**64 - 1, before_offset=begin or 1)
        code, words = await refusal(reader.Decisions(pb.DecisionsRequest(pool="chat", follow=True, last=5)).read())

        assert (0, 0) == (begin, nothing.from_offset)
        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert "`follow` goes with neither" in words

    async def test_following_goes_on_from_the_end(self, controller: Running, reader: Any) -> None:
        """With `follow` and `from_end` only what comes from now on is told, as it comes, until the caller leaves."""
        before = (await self.read(reader, pool="chat"))[-1].next_offset
        call = reader.Decisions(pb.DecisionsRequest(pool="chat", follow=True, from_end=True))
        first = await call.read()
        seen: list[str] = []
        await pin(controller.addresses.grpc, 60)
        while not any("ada" in summary for summary in seen):
            page = await asyncio.wait_for(call.read(), PATIENCE_S)
            seen += [entry.record.decision.summary for entry in page.entries]
        call.cancel()

        assert before <= first.next_offset
        assert grpc.StatusCode.CANCELLED is await call.code()
        assert not any("config:chat.yaml" in summary for summary in seen)

    async def test_a_partition_that_is_not_there_is_refused(self, reader: Any) -> None:
        """The refusal names those that are."""
        code, words = await refusal(reader.Decisions(pb.DecisionsRequest(partition=7)).read())

        assert (grpc.StatusCode.INVALID_ARGUMENT, "there are partitions 0 to 1") == (code, words)


class TestOrdering:
    """Orders come back with their owner's answer."""

    async def test_an_override_beyond_the_bounds_is_refused_with_the_bounds(self, controller: Running) -> None:
        """The owner's words name what would be right; nothing is pinned."""
        async with attached(controller.addresses.grpc):
            answer = await pin(controller.addresses.grpc, 500)

        assert pb.WRITE_OUTCOME_REFUSED == answer.outcome
        assert f"{BATCH_CAP} must be 4 to 128, not 500" in answer.summary
        assert [] == list((await status(controller.addresses.grpc, "chat")).pools[0].overrides)
        assert 1 == await controller.metric("flyball_controller_orders_total", outcome="refused")

    @pytest.mark.parametrize(
        ("give", "summary"),
        [
            (
                lambda writer: writer.GiveOrder(inputs_pb2.Order(pool="chat", author="ada", paused=True, reason="x")),
                "ada: paused: x",
            ),
            (
                lambda writer: writer.GiveOrder(
                    inputs_pb2.Order(pool="chat", author="ada", mode=common_pb2.MODE_OBSERVE)
                ),
                "ada: mode observe",
            ),
            (
                lambda writer: writer.ApplyPolicy(
                    inputs_pb2.PolicyText(pool="chat", author="ada", text="version: 1\nmode: advise\n")
                ),
                "policy of ada in force, mode advise",
            ),
            (
                lambda writer: writer.GiveRebase(inputs_pb2.Rebase(pool="chat", author="ada")),
                "ada rebases every receiver of another log",
            ),
        ],
    )
    async def test_orders_are_taken(self, writer: Any, give: Callable[[Any], Any], summary: str) -> None:
        """The answer is the owner's, within a tick or two, and names the author."""
        answer = await give(writer)

        assert (pb.WRITE_OUTCOME_TAKEN, summary, "ada") == (answer.outcome, answer.summary, answer.author)

    @pytest.mark.parametrize(
        ("give", "summary"),
        [
            (
                lambda writer: writer.ApplyPolicy(
                    inputs_pb2.PolicyText(pool="chat", author="ada", text="version: 1\nmoed: advise\n")
                ),
                "policy document:2:1: unknown key 'moed'",
            ),
            (
                lambda writer: writer.ClearOverride(
                    inputs_pb2.OverrideClear(pool="chat", author="ada", override_id="o7")
                ),
                "lifts override o7, which there is none of",
            ),
            (
                lambda writer: writer.GiveRebase(inputs_pb2.Rebase(pool="chat", author="ada", target="e9")),
                "rebase refused: there is no 'e9' in this pool",
            ),
        ],
    )
    async def test_orders_are_refused_by_the_owner(self, writer: Any, give: Callable[[Any], Any], summary: str) -> None:
        """A refusal is on record, flagged, and says why."""
        answer = await give(writer)

        assert pb.WRITE_OUTCOME_REFUSED == answer.outcome
        assert summary in answer.summary

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"author": ""}, "names its author"),
            ({"value": common_pb2.Value(real=math.nan)}, "cannot be pinned at nan"),
            ({"value": common_pb2.Value()}, "carries none of"),
            ({"expires_wall_s": 1.0}, "expired already"),
            ({"knob": "k" * 201}, "201 characters"),
        ],
    )
    async def test_what_no_owner_could_follow_is_refused_at_the_door(
        self, controller: Running, writer: Any, wrong: dict[str, Any], words: str
    ) -> None:
        """It is refused with what would be right, and nothing reaches the log."""
        code, said = await refusal(writer.SetOverride(override(**wrong)))

        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert words in said
        assert 1 == await controller.metric("flyball_controller_orders_total", outcome="invalid")

    @pytest.mark.parametrize(
        "give",
        [
            lambda writer: writer.SetOverride(override(pool="chta")),
            lambda writer: writer.ApplyPolicy(inputs_pb2.PolicyText(pool="chta", author="ada", text="version: 1\n")),
            lambda writer: writer.GiveOrder(inputs_pb2.Order(pool="chta", author="ada", paused=True)),
        ],
    )
    async def test_a_slip_in_a_pool_s_name_makes_no_pool(
        self, controller: Running, writer: Any, give: Callable[[Any], Any]
    ) -> None:
        """An order for a pool that nobody has heard of is refused with those that there are."""
        code, words = await refusal(give(writer))

        assert grpc.StatusCode.NOT_FOUND is code
        assert "there is no pool 'chta'; known: chat." in words
        assert ["chat"] == [pool.pool for pool in (await status(controller.addresses.grpc)).pools]

    async def test_without_an_owner_s_answer_the_order_is_on_record(
        self, writer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In good time before the caller's deadline it is told that the order stands and nobody has answered."""
        monkeypatch.setattr(write_door, "MARGIN_S", 2 * PATIENCE_S)
        answer = await writer.GiveOrder(inputs_pb2.Order(pool="chat", author="ada", paused=True), timeout=PATIENCE_S)

        assert pb.WRITE_OUTCOME_ON_RECORD == answer.outcome
        assert "its owner has not answered" in answer.summary


async def test_a_policy_of_the_file_is_put_on_record_once(tmp_path: Path) -> None:
    """A second start leaves an operator's policy in force, and one that was never changed is not repeated."""
    config = config_for(tmp_path)
    async with running(config) as first, stub(rpc.OperatorWriteServiceStub, first.addresses.grpc) as writer:
        await writer.ApplyPolicy(inputs_pb2.PolicyText(pool="chat", author="ada", text="version: 1\nmode: observe\n"))
    async with running(config) as second:
        [pool] = (await status(second.addresses.grpc)).pools

        assert ("ada", common_pb2.MODE_OBSERVE) == (pool.policy_author, pool.mode)

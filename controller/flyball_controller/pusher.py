"""The pusher: brings what was decided to the engines and gateways attached here.

It reads the compacted directives topic of every partition, folds it by the greatest
version, and pushes to whoever is attached, whichever controller owns the pool. It never
reads telemetry, and it decides nothing.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from flyball_controller.farewells import farewell
from flyball_core.errors import OffsetGone, Rejected
from flyball_core.fencing import Fence, Version
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.outputs import Directive, Heartbeat, RebaseNotice, RoutingTable
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import decode_directive, encode_input

Message = Directive | RoutingTable | Heartbeat | RebaseNotice

BEATS_AT_ONCE = 8
"""Heartbeats handed over before others have a turn: acks of what was just pushed are not to wait for all of them."""


class Link(Protocol):
    """One attached receiver, as a stream or in the process."""

    async def send(self, message: Message) -> None:
        """Hand a message over without waiting for its answer, which comes as `Pusher.acked`."""
        ...


@dataclass(slots=True)
class _Linked:
    link: Link
    attach: Attach
    sent: Version | None
    offset: int
    """Where its attach stands in the inputs."""


_Target = tuple[TargetKind, str, str]


def _target(said: Attach | Ack) -> _Target:
    return said.kind, str(said.pool), said.target


@dataclass(slots=True)
class _News:
    """What records just read have changed."""

    targets: set[_Target] = field(default_factory=set)
    beaten: set[str] = field(default_factory=set)
    rebased: set[tuple[str, str]] = field(default_factory=set)


class Pusher:
    """Pushes one log's directives, tables and leases. One task drives it, or one for each partition."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = dict.fromkeys(range(log.partitions), 0)
        self._wanted: dict[_Target, tuple[str, Directive | RoutingTable]] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._rebases: dict[tuple[str, str], RebaseNotice] = {}
        self._links: dict[_Target, _Linked] = {}
        self._in_order: dict[str, list[_Linked]] = {}
        """The links of each pool in the order of their targets, until one comes or goes."""
        self._refused: dict[_Target, Version] = {}
        self.ignored = 0
        """Records of an older epoch, of another log, or unreadable."""

    @property
    def beats(self) -> Mapping[str, Heartbeat]:
        """The newest heartbeat of every pool of the log, whoever owns it."""
        return MappingProxyType(self._beats)

    async def poll(self) -> int:
        """Read what is new in every partition and push it; the number of messages sent."""
        return sum([await self.follow(partition) for partition in self._next])

    async def follow(self, partition: int, wait_s: float = 0.0) -> int:
        """Read what is new in one partition, waiting up to `wait_s` for it, and push it; the number of messages sent.

        Raises as `Log.read`.
        """
        news = _News()
        while True:
            try:
                records = await self._log.read(Topic.DIRECTIVES, partition, self._next[partition], wait_s=wait_s)
            except OffsetGone as gone:  # what stood there was replaced or ended, and the rest stands further on
                self._next[partition] = gone.first
                continue
            if not records:
                break
            self._next[partition] = records[-1].offset + 1
            for record in records:
                self._take(record.key.decode(errors="replace"), record.value, news)
            wait_s = 0.0
            await asyncio.sleep(0)  # a long topic must not keep others waiting
        return await self._push_news(news)

    async def _push_news(self, news: _News) -> int:
        sent = 0
        for target in sorted(news.targets, key=str):
            sent += await self._push(target)
        for pool in sorted(news.beaten):
            sent += await self._renew(pool)
        for pool, name in sorted(news.rebased):
            for linked in self._linked_to(pool, name):
                sent += await self._rebase(self._rebases[pool, name], linked)
        return sent

    async def attached(self, link: Link, attach: Attach) -> None:
        """A receiver came: put it on record, and tell it what it should hold if that is newer."""
        target = _target(attach)
        offset = await self._append(attach)
        linked = self._links[target] = _Linked(link, attach, attach.held, offset)
        self._in_order.clear()
        await self._push(target)
        beat = self._beats.get(attach.pool)
        if beat is not None:
            await link.send(beat)
        for notice in [self._rebases.get((str(attach.pool), name)) for name in ("", attach.target)]:
            if notice is not None:
                await self._rebase(notice, linked)

    def unlink(self, link: Link, attach: Attach) -> Attach | None:
        """A receiver left: push it nothing more; its farewell, to be given to `parted`.

        None if another link of the same target has taken its place.
        """
        target = _target(attach)
        known = self._links.get(target)
        if known is None or known.link is not link:
            return None
        del self._links[target]
        self._in_order.clear()
        return farewell(attach, known.offset)

    async def parted(self, said: Attach) -> None:
        """Put a farewell on record; however late, it ends no later attach."""
        await self._append(said)

    async def detached(self, link: Link, attach: Attach) -> None:
        """A receiver left; ignored if another link of the same target has taken its place."""
        said = self.unlink(link, attach)
        if said is not None:
            await self.parted(said)

    async def acked(self, *acks: Ack) -> None:
        """Receivers answered: put it on record in this order; what one refused is not sent to it again."""
        for ack in acks:
            if ack.status is AckStatus.NACK:
                self._refused[_target(ack)] = ack.version
        await self._append(*acks)

    async def _append(self, *bodies: Attach | Ack) -> int:
        """Append them in order within each partition; the offset of the last."""
        by_partition: dict[int, list[Entry]] = {}
        for body in bodies:
            entry = Entry(body.pool.encode(), encode_input(body))
            by_partition.setdefault(self._log.partition_of(body.pool), []).append(entry)
        last = -1
        for partition, entries in sorted(by_partition.items()):
            last = (await self._log.append(Topic.INPUTS, partition, entries))[-1]
        return last

    def _take(self, key: str, value: bytes | None, news: _News) -> None:
        if value is None:
            for target in [target for target, (kept, _) in self._wanted.items() if kept == key]:
                del self._wanted[target]
                self._refused.pop(target, None)
            return
        try:
            message = decode_directive(value)
        except Rejected:
            self.ignored += 1
            return
        if message.version.log_id != self._log.log_id:
            self.ignored += 1
        elif isinstance(message, Heartbeat):
            known = self._beats.get(message.pool)
            if message.version.against(known.version if known else None) is Fence.NEWER:
                self._beats[message.pool] = message
                news.beaten.add(message.pool)
        elif isinstance(message, RebaseNotice):
            place = (str(message.pool), message.target)
            standing = self._rebases.get(place)
            if message.version.against(standing.version if standing else None) is Fence.NEWER:
                self._rebases[place] = message
                news.rebased.add(place)
        else:
            engine = isinstance(message, Directive)
            name = message.engine if isinstance(message, Directive) else message.gateway
            target = (TargetKind.ENGINE if engine else TargetKind.GATEWAY, str(message.pool), str(name))
            held = self._wanted.get(target)
            if message.version.against(held[1].version if held else None) is Fence.NEWER:
                self._wanted[target] = (key, message)
                news.targets.add(target)
            else:
                self.ignored += 1

    async def _push(self, target: _Target) -> int:
        linked, wanted = self._links.get(target), self._wanted.get(target)
        if linked is None or wanted is None:
            return 0
        message = wanted[1]
        if message.version == self._refused.get(target) or message.version.against(linked.sent) in (
            Fence.SAME,
            Fence.STALE,
        ):
            return 0
        linked.sent = message.version
        await linked.link.send(message)
        return 1

    async def _renew(self, pool: str) -> int:
        links = self._linked_to(pool)
        for number, linked in enumerate(links, 1):
            await linked.link.send(self._beats[pool])
            if number % BEATS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return len(links)

    def _linked_to(self, pool: str, name: str = "") -> list[_Linked]:
        """Who is linked of a pool, or whoever bears this name there."""
        linked = self._in_order.get(pool)
        if linked is None:
            targets = sorted((target for target in self._links if target[1] == pool), key=str)
            linked = self._in_order[pool] = [self._links[target] for target in targets]
        return [one for one in linked if name in ("", one.attach.target)]

    async def _rebase(self, notice: RebaseNotice, linked: _Linked) -> int:
        """Hand a notice to a receiver that it may concern, while it counts.

        One without a version may be bound to another log all the same: by a refusal. It knows best.
        """
        beat, held = self._beats.get(str(notice.pool)), linked.attach.held
        expired = beat is not None and beat.wall_s > notice.expires_wall_s
        if expired or (held is not None and held.log_id == self._log.log_id):
            return 0
        await linked.link.send(notice)
        return 1

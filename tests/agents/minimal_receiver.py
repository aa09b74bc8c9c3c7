"""A receiver written from docs/receiver.md alone, with grpc and the generated messages: nothing of `flyball_agents`.

    python minimal_receiver.py HOST:PORT FOLDER [BREAK]

It governs one number, `batch`, of an engine that is a dictionary. BREAK makes it forget one rule, so
that a check of the contract can be seen to notice: every one of `BREAKS` is a way to be wrong.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import grpc

from flyball_proto.v1 import common_pb2 as words, inputs_pb2 as inputs, outputs_pb2 as outputs, services_pb2 as doors
from flyball_proto.v1.services_pb2_grpc import AttachServiceStub

POOL, TARGET, SAFE, LOW, HIGH, KNOBS = "chat", "mini", 16, 1, 256, "mini-1"
HOLD_S, SILENT_S = 1800.0, 2.0
BREAKS = (
    "stale",
    "same",
    "log",
    "partition",
    "target",
    "trace",
    "version",
    "unknown",
    "bounds",
    "type",
    "half",
    "capabilities",
    "incarnation",
    "refusal",
    "beat",
    "drop",
    "never",
    "old-beat",
    "restore",
    "forget",
    "silent",
    "rebase",
    "mute",
    "echo",
    "lie",
)


class Receiver:
    """State, fence, bounds and lease. One thread calls it at a time."""

    def __init__(self, folder: Path, broken: str = "") -> None:
        self.broken, self.file = broken, folder / "held.json"
        self.incarnation = f"mini-{os.getpid()}"
        self.lock = threading.Lock()
        kept = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.held: list[int] | None = kept.get("held")  # partition, epoch, revision
        self.log: str = kept.get("log", "")
        self.refused: list[int] = kept.get("refused", [])
        self.batch: int = kept.get("batch", SAFE)
        self.renewed: list[int] = []
        self.kept = self.batch  # what the version held left it at, wherever it has eased to
        self.hold_s: float = kept.get("hold_s", HOLD_S)
        self.until_s = time.monotonic() + self.hold_s
        self.eased = self.easing = False

    def keep(self, batch: int) -> None:
        """Durably, before anything is set or answered: R26."""
        fresh = self.file.with_suffix(".new")
        with fresh.open("w") as file:
            kept = {"held": self.held, "log": self.log, "refused": self.refused, "batch": batch, "hold_s": self.hold_s}
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.file)
        self.kept = batch

    def attach(self) -> doors.ReceiverMessage:
        """Who it is, what it can do, what it holds: R1, R2."""
        said = inputs.Attach(
            pool=POOL, kind=words.TARGET_KIND_ENGINE, target=TARGET, incarnation=self.incarnation, attached=True
        )
        said.capability_hash = KNOBS
        said.knobs.add(
            name="batch",
            knob_class=words.KNOB_CLASS_LIVE,
            kind=words.KNOB_KIND_INTEGER,
            safe=words.Value(integer=SAFE),
            minimum=LOW,
            maximum=HIGH,
            unit="requests",
        )
        if self.held and self.broken != "forget":
            said.held.CopyFrom(self.version(self.held))
        said.effective["batch"].integer = self.batch
        return doors.ReceiverMessage(attach=said)

    def version(self, place: list[int]) -> words.Version:
        """A place in the log that is held."""
        return words.Version(log_id=self.log, partition=place[0], epoch=place[1], revision=place[2])

    def judge(self, offer: outputs.Directive) -> str:
        """Why the offer is refused; empty if it may be taken. The order of these questions is the contract's."""
        v, held, broken = offer.version, self.held, self.broken
        if (offer.pool, offer.engine) != (POOL, TARGET) and broken != "target":
            return f"this is {TARGET} of {POOL}"
        if not v.log_id and broken != "version":
            return "no version"
        if self.log not in ("", v.log_id) and broken != "log":
            return f"foreign_log: log {self.log} is held"
        if held and v.partition != held[0] and broken != "partition":
            return f"foreign_partition: partition {held[0]} is held"
        if held and [v.epoch, v.revision] <= held[1:] and broken != "stale":
            return f"stale: {held} is held"
        if self.refused and [v.epoch, v.revision] <= self.refused[1:] and broken != "refusal":
            return f"stale: {self.refused} was refused"
        if offer.capability_hash != KNOBS and broken != "capabilities":
            return f"decided for {offer.capability_hash}, this is {KNOBS}"
        if offer.incarnation not in ("", self.incarnation) and broken != "incarnation":
            return f"this is incarnation {self.incarnation}"
        return self.judge_values(offer)

    def judge_values(self, offer: outputs.Directive) -> str:
        """Why one of the values is refused: then all of them are."""
        for name, value in offer.values.items():
            if name != "batch":
                if self.broken != "unknown":
                    return f"there is no knob {name}"
            elif value.WhichOneof("kind") != "integer" and self.broken != "type":
                return "batch takes a whole number"
            elif not LOW <= value.integer <= HIGH and value.WhichOneof("kind") == "integer" and self.broken != "bounds":
                return f"batch takes {LOW} to {HIGH}"
        return ""

    def offer(self, offer: outputs.Directive) -> doors.ReceiverMessage:
        """Take it or refuse it, and answer."""
        v = offer.version
        place = [v.partition, v.epoch, v.revision]
        known = self.held == place and self.log == v.log_id and (offer.pool, offer.engine) == (POOL, TARGET)
        if known and self.broken != "same":
            return self.answer(v, "")
        mine = self.broken == "trace" or ((offer.pool, offer.engine) == (POOL, TARGET) and v.log_id)
        newer = self.log in ("", v.log_id) and (not self.held or (v.partition == self.held[0] and place > self.held))
        if why := self.judge(offer):
            if mine and newer:
                self.refused = max(self.refused, place)  # also what is right of a version that was wrong once
                self.keep(self.batch)
            if self.broken == "half" and "batch" in offer.values and len(offer.values) > 1:
                self.batch = offer.values["batch"].integer
            return self.answer(v, why)
        batch = offer.values["batch"].integer if "batch" in offer.values else self.batch
        self.held, self.log, self.refused, self.renewed = place, v.log_id, [], place
        self.keep(batch)
        self.batch = self.batch if self.broken == "lie" else batch  # and here a real one sets the engine's
        self.until_s = time.monotonic() + self.hold_s
        self.eased = False
        return self.answer(v, "")

    def answer(self, version: words.Version, why: str) -> doors.ReceiverMessage:
        """An ack: by name, with the version as it came and the values as they are."""
        status = inputs.ACK_STATUS_NACK if why else inputs.ACK_STATUS_APPLIED
        said = inputs.Ack(
            pool=POOL, kind=words.TARGET_KIND_ENGINE, target=TARGET, incarnation=self.incarnation, status=status
        )
        said.version.CopyFrom(self.version(self.held) if self.broken == "echo" and self.held else version)
        said.reason = why
        said.effective["batch"].integer = self.batch
        return doors.ReceiverMessage(ack=said)

    def beat(self, beat: outputs.Heartbeat) -> list[doors.ReceiverMessage]:
        """A heartbeat renews the lease only if it is newer than what renewed it last."""
        v, place = beat.version, [beat.version.partition, beat.version.epoch, beat.version.revision]
        newer = place > self.renewed or self.broken == "old-beat"
        if beat.pool == POOL and self.log in ("", v.log_id) and newer:
            self.renewed = place
            was, self.hold_s = self.hold_s, min(beat.hold_s or HOLD_S, HOLD_S)
            if was != self.hold_s:
                self.keep(self.kept)
            self.until_s = time.monotonic() + self.hold_s
        return [self.answer(v, "")] if self.broken == "beat" else []

    def rebase(self, notice: outputs.RebaseNotice) -> list[doors.ReceiverMessage]:
        """Forget the version, take the notice's log, and say so; only if another log's is held."""
        if notice.pool != POOL or notice.target not in ("", TARGET) or self.log in ("", notice.version.log_id):
            return []
        if self.broken == "rebase":
            return []
        self.held, self.log, self.refused, self.renewed = None, notice.version.log_id, [], []
        self.keep(self.batch)
        return [self.attach()]

    def look(self) -> list[doors.ReceiverMessage]:
        """Ease by what has come due; once a second. What begins or ends is told by an attach."""
        was, self.easing = self.easing, time.monotonic() > self.until_s and self.broken != "never"
        if was and not self.easing and self.broken == "restore":
            self.batch = json.loads(self.file.read_text())["batch"]
        if was and self.easing:  # not at the first look, so that the way begins where it is told
            slower = self.batch * 6 // 10 if self.batch > SAFE else self.batch * 3 // 2 + 1
            self.batch = max(slower, SAFE) if self.batch > SAFE else min(slower, SAFE)
            self.eased = True
        if self.easing and self.broken == "drop":
            self.batch = SAFE
        return [self.attach()] if was is not self.easing else []

    def hear(self, message: doors.PusherMessage) -> list[doors.ReceiverMessage]:
        """What there is to say to a message."""
        kind = message.WhichOneof("body")
        if kind == "directive":
            return [] if self.broken == "mute" else [self.offer(message.directive)]
        if kind == "heartbeat":
            return self.beat(message.heartbeat)
        return self.rebase(message.rebase) if kind == "rebase" else []


def attend(receiver: Receiver, address: str) -> None:
    """One stream, until it ends or falls silent."""
    says: Queue[doors.ReceiverMessage | None] = Queue(100)
    heard = [time.monotonic()]
    says.put(receiver.attach())

    def saying() -> Iterator[doors.ReceiverMessage]:
        while (message := says.get()) is not None:
            yield message

    with grpc.insecure_channel(address) as channel:
        stream = AttachServiceStub(channel).Attach(saying())

        def hearing() -> None:
            try:
                for message in stream:
                    heard[0] = time.monotonic()
                    with receiver.lock:
                        for said in receiver.hear(message):
                            says.put(said)
            except grpc.RpcError:
                pass
            ended.put(None)

        ended: Queue[None] = Queue()
        threading.Thread(target=hearing, daemon=True).start()
        while time.monotonic() - heard[0] < SILENT_S or receiver.broken == "silent":
            try:
                ended.get(timeout=0.2)
                break
            except Empty:
                with receiver.lock:
                    for said in receiver.look():
                        says.put(said)
        says.put(None)  # closing the channel ends the stream


def main() -> None:
    """Attach for ever; a real one shuffles addresses and waits with jitter."""
    address, folder, broken = sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    receiver = Receiver(folder, broken)
    while True:
        attend(receiver, address)
        time.sleep(0.1)


if __name__ == "__main__":
    main()

"""A real controller on loopback with an engine attached, for tests that call commands from outside its loop."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.knobs import BATCH_CAP, Value
from flyball_core.outputs import Directive
from flyball_proto.codec import read_pusher_message, receiver_message
from flyball_proto.v1.services_pb2 import PusherMessage, ReceiverMessage
from flyball_proto.v1.services_pb2_grpc import AttachServiceStub
from operator_examples import CAP

POOL = "chat"
START_S = 20.0


@contextmanager
def live_controller(folder: Path, policy: str, *, tls: str = "none") -> Iterator[str]:
    """`flyball controller` with an embedded log in `folder`, in a process of its own; gives HOST:PORT."""
    (folder / "policy.yaml").write_text(policy)
    file = folder / "flyball.yaml"
    file.write_text(
        f"tls: {tls}\n"
        "logs: {format: json}\n"
        "controller:\n"
        "  {name: live, listen: '127.0.0.1:0', http: '127.0.0.1:0', tick: 100ms, policies: {chat: policy.yaml}}\n"
    )
    command = [str(Path(sys.executable).with_name("flyball")), "controller", "--config", str(file)]
    with (
        (folder / "controller.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as running,
    ):
        try:
            yield f"127.0.0.1:{_port(folder / 'controller.log', running)}"
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(START_S)


def _port(log: Path, running: subprocess.Popen[bytes]) -> int:
    """The port of its gRPC door, once the controller says that it waits for nothing any more."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and running.poll() is None:
        said = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if any(one.get("has") == "partition 0" for one in said):
            return next(int(one["grpc"]) for one in said if one["event"] == "doors_open")
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@dataclass(slots=True)
class ScriptedReceiver:
    """An engine's receiver that holds whatever it is told, and can hold a version of another log."""

    engine: str
    held: Version | None = None
    cap: int = 48

    def _attach(self) -> Attach:
        return Attach(
            pool=PoolId(POOL),
            kind=TargetKind.ENGINE,
            target=self.engine,
            incarnation=Incarnation("i-1"),
            capability_hash="h",
            knobs=(CAP,),
            held=self.held,
            effective={BATCH_CAP: self.cap},
        )

    def answer(self, message: PusherMessage) -> ReceiverMessage | None:
        """The ack of a directive; None for what asks for no answer."""
        told = read_pusher_message(message)
        if not isinstance(told, Directive):
            return None
        effective: dict[str, Value] = dict(told.values)
        return receiver_message(
            Ack(
                pool=PoolId(POOL),
                kind=TargetKind.ENGINE,
                target=self.engine,
                incarnation=Incarnation("i-1"),
                version=told.version,
                status=AckStatus.APPLIED,
                effective=effective,
            )
        )

    @contextmanager
    def attached(self, address: str) -> Iterator[None]:
        """Stay attached to a controller until the end."""
        outgoing: queue.Queue[ReceiverMessage | None] = queue.Queue()
        outgoing.put(receiver_message(self._attach()))
        channel = grpc.insecure_channel(address)
        call = AttachServiceStub(channel).Attach(iter(outgoing.get, None))

        def listen() -> None:
            try:
                for message in call:
                    answer = self.answer(message)
                    if answer is not None:
                        outgoing.put(answer)
            except grpc.RpcError:
                return  # the end of the test, or of the controller

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            outgoing.put(None)
            channel.close()
            thread.join(START_S)

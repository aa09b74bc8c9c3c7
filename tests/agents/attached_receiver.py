"""Flyball's own receivers in a process of their own: `python attached_receiver.py engine|gateway HOST:PORT FOLDER`."""

import random
import sys
from pathlib import Path

from flyball_agents.attach_stream import grpc_streams
from flyball_agents.attached import AttachedReceiver
from flyball_agents.attaching import Attacher, AttachLimits, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import TableDefaults, TableSurface
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.surface import Surface
from flyball_core.ids import Incarnation
from flyball_core.inputs import TargetKind
from receiver_bench import POOL, FakeEngine, FakeGateway

LIMITS = AttachLimits(poll_s=0.1, silent_s=2.0, most_pause_s=0.3)


def attacher(kind: str, address: str, folder: Path) -> Attacher:
    """A receiver over an engine or a gateway in memory."""
    around = Surroundings(rng=random.Random(1))
    surface: Surface = SettingsSurface(FakeEngine())
    if kind == "gateway":
        surface = TableSurface(FakeGateway(), TableDefaults())
    receiver = Receiver(
        Target(pool=POOL, kind=TargetKind(kind), name=f"{kind}-1", incarnation=Incarnation("i1")),
        surface,
        ReceiverStore(folder),
        ReceiverLimits(ease_jitter_s=0.2),
        seed=1,
        now_s=around.clock(),
        wall_s=around.wall_clock(),
    )
    return Attacher(receiver, [address], grpc_streams(None), around, LIMITS)


def main() -> None:
    """Stay attached until standard input ends."""
    attached = AttachedReceiver(attacher(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
    attached.start()
    sys.stdin.read()
    attached.stop()


if __name__ == "__main__":
    main()

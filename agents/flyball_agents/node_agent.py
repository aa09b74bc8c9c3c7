"""The node agent: at each tick one frame per pool, numbered without a hole, spooled and ready to send.

It never waits: not for a sampler, not for the log, not for the disk to sync. It knows no clock and
draws no randomness; a tick is told the time, so a simulated agent is this one.
"""

from collections.abc import Callable, Sequence

from flyball_agents.sampling import Sampler, Sampling
from flyball_agents.shipper import Shipper
from flyball_agents.spool import Spool
from flyball_core.frames import Frame
from flyball_core.ids import AgentId, BootId, PoolId

Encode = Callable[[Frame], tuple[bytes, bytes]]
"""How a frame is written for the log: as it is sent while it is young, and as backlog."""


class NodeAgent:
    """One agent's life. `boot` must never have been used before with the same spool."""

    def __init__(
        self,
        *,
        agent: AgentId,
        boot: BootId,
        samplers: Sequence[Sampler],
        spool: Spool,
        shipper: Shipper,
        encode: Encode,
        most_age_s: float = 2.0,
    ) -> None:
        self.agent = agent
        self.boot = boot
        self.sampling = Sampling(samplers, most_age_s=most_age_s)
        self.ticks = 0
        self._spool = spool
        self._shipper = shipper
        self._encode = encode
        self._next_seq: dict[PoolId, int] = {}

    def tick(self, now_s: float, wall_s: float) -> tuple[Frame, ...]:
        """Sample everything and spool a frame for each pool of which something was read.

        On disk lies the frame as backlog, for that is what it is when it is read from there.
        """
        self.ticks += 1
        frames = tuple(
            Frame(
                agent=self.agent,
                boot=self.boot,
                pool=pool,
                seq=self._next_seq.get(pool, 0),
                wall_s=wall_s,
                monotonic_s=now_s,
                backlog=False,
                gpus=view.gpus,
                engines=view.engines,
                gateways=view.gateways,
            )
            for pool, view in self.sampling.take(now_s).items()
        )
        for frame in frames:
            live, backlog = self._encode(frame)
            ticket = self._spool.append(
                boot=self.boot,
                pool=frame.pool,
                seq=frame.seq,
                now_s=now_s,
                wall_s=wall_s,
                payload=backlog,
                live=live,
            )
            self._next_seq[frame.pool] = frame.seq + 1
            self._shipper.add(ticket)
        self._spool.expire(self.boot, now_s, wall_s)
        return frames

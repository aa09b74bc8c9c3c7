"""What one frame costs its reader: as much as its samples, never that squared, whatever they are named."""

import time
from collections.abc import Callable

from flyball_controller.machine.filing import MAX_SAMPLES, file_frame, release_frames
from flyball_controller.machine.state import PoolState
from flyball_core.frames import EngineSample, Frame
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId


def frame(samples: int, *, ranks: int, named: str = "e") -> Frame:
    """A frame of so many samples, of engines of so many ranks each."""
    first = EngineSample(EngineId(""), Incarnation("i"), 0, (0, 1), "", requests_running=1.0)
    return Frame(
        agent=AgentId("a0"),
        boot=BootId("b0"),
        pool=PoolId("chat"),
        seq=0,
        wall_s=0.0,
        monotonic_s=0.0,
        backlog=False,
        gpus=(),
        engines=tuple(
            first._replace(engine=EngineId(f"{named}{at // ranks}"), rank=at % ranks) for at in range(samples)
        ),
    )


def cpu_s(act: Callable[[], object]) -> float:
    """CPU seconds that it takes."""
    began_s = time.process_time()
    act()
    return time.process_time() - began_s


def filed(one: Frame) -> Callable[[], None]:
    """Filing and reading this frame in a new pool."""

    def act() -> None:
        pool = PoolState(pool="chat")
        file_frame(pool, one, 0.0)
        release_frames(pool, 10.0, 1.0)

    return act


def test_a_frame_of_many_ranks_costs_what_its_samples_do() -> None:
    """Four times the samples cost some four times as much: a frame of 20,000 once took five seconds of a tick."""
    for ranks in (2, MAX_SAMPLES):
        small, large = (filed(frame(samples, ranks=ranks)) for samples in (MAX_SAMPLES // 4, MAX_SAMPLES))

        assert min(cpu_s(large) for _ in range(3)) < 9 * max(min(cpu_s(small) for _ in range(3)), 0.002)


def test_names_that_there_is_no_room_for_cost_no_more_than_those_there_is() -> None:
    """A pool that is full by the length of its names is not measured anew for each that it refuses."""
    pool = PoolState(pool="chat")
    file_frame(pool, frame(1024, ranks=1, named="x" * 190), 0.0)
    release_frames(pool, 10.0, 1.0)
    more = frame(1024, ranks=1, named="y" * 190)._replace(agent=AgentId("a1"))
    file_frame(pool, more, 10.0)
    took_s = cpu_s(lambda: release_frames(pool, 20.0, 1.0))

    assert pool.counts["samples_rejected_too_many_engines"] > 500
    assert took_s < 0.1

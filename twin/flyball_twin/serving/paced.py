"""An engine on a clock that runs: what its steps come to is told as each of them ends.

The engine's time never runs ahead of the clock, and never drifts behind it: what came due while
the process was busy is settled in order, each step at the time at which it ended, before anything
new is taken. Changes and aborts happen between two steps. The clock and the alarm are handed in, so
that a test may move time by hand; this module waits for nothing and refuses to know of sockets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from flyball_core.errors import Retryable
from flyball_core.ids import Incarnation
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.sequences import Sequence
from flyball_twin.serving.streams import Stream
from flyball_twin.serving.tallies import Tallies
from flyball_twin.workload import Request

MOST_REQUESTS = 4096
"""Requests that one engine holds, waiting ones included; more are refused, as a server that is full refuses them."""


@dataclass(slots=True)
class Lateness:
    """How far behind their ends steps were settled, over all incarnations: the price of a busy process."""

    steps: int = 0
    total_s: float = 0.0
    worst_s: float = 0.0


class PacedEngine:
    """One engine at the time of `clock` (monotonic seconds). `wall_clock` gives Unix seconds, to be shown.

    `alarm` takes a time and what to call at it, in place of what it took before; `changed` is called after
    each loss and each start of an incarnation.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float],
        alarm: Callable[[float, Callable[[], object]], None],
        wall_clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        # Each token is told when it comes out, so no step is leapt over.
        engine.stepped = True
        self.tallies = Tallies()
        self.late = Lateness()
        self.started_wall_s = wall_clock()
        """When the incarnation began to serve, Unix seconds."""
        self.lost = 0
        """Requests that relaunches have cut off, over all incarnations."""
        self._clock, self._alarm, self._wall_clock, self._changed = clock, alarm, wall_clock, changed
        self._streams: dict[Sequence, Stream] = {}
        self._leaving: list[Stream] = []
        self._ids = 0

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.engine.ready

    @property
    def incarnation(self) -> Incarnation:
        """The incarnation that runs, or ran last."""
        return self.engine.incarnation

    def submit(self, prompt_tokens: int, output_tokens: int, finish: str) -> Stream:
        """Take a request; its tokens come out of the stream.

        Raises `Rejected` if it can never fit, `Retryable` while the engine is down or full.
        """
        now_s = self.advance()
        if not self.engine.ready:
            raise Retryable(f"{self.engine.id} is being relaunched")
        if len(self._streams) >= MOST_REQUESTS:
            raise Retryable(f"{self.engine.id} holds {MOST_REQUESTS} requests already")
        self._ids += 1
        request = Request(
            id=self._ids, arrival_s=now_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens, lane=""
        )
        sequence = self.engine.submit(request, now_s)
        stream = self._streams[sequence] = Stream(sequence, finish)
        self._begin(now_s)
        self._alarm(self.next_s, self.advance)
        return stream

    def abort(self, stream: Stream) -> None:
        """Its reader is gone: forget the request, at the end of the step under way. Harmless if it is over."""
        now_s = self.advance()
        if stream.ended:
            return
        stream.fail("aborted")
        self._leaving.append(stream)
        if self.engine.step_end_s == NEVER:
            self._let_go()
            self._begin(now_s)
            self._alarm(self.next_s, self.advance)

    def knobs(self) -> tuple[KnobSpec, ...]:
        """Its knobs, as `EngineControls` has them."""
        return self.engine.knobs()

    def read(self) -> Setting:
        """The effective values."""
        return self.engine.settings()

    def set(self, name: str, value: Value) -> None:
        """Set a live knob; the step under way ends as it was planned, the next obeys. Raises `Rejected`."""
        now_s = self.advance()
        self.engine.set_live(name, value)
        self._begin(now_s)
        self._alarm(self.next_s, self.advance)

    def restart(self, values: Setting) -> None:
        """Relaunch now; what still runs is cut off. Raises `Rejected`, and changes nothing, for what cannot be."""
        now_s = self.advance()
        self.engine.restart(values, now_s)
        self.cut_off(f"{self.engine.id} is being relaunched")
        self._streams.clear()
        self._leaving.clear()
        self._alarm(self.next_s, self.advance)
        self._changed()

    def cut_off(self, why: str) -> None:
        """End every stream early; the engine itself does not notice."""
        for stream in self._streams.values():
            if not stream.ended:
                self.lost += 1
                stream.fail(why)

    @property
    def next_s(self) -> float:
        """When something is due next; infinity if nothing is."""
        return min(self.engine.step_end_s, self.engine.ready_at_s)

    def advance(self) -> float:
        """Settle everything that is due; returns the time."""
        now_s = self._clock()
        while (due_s := self.next_s) <= now_s:
            if due_s == self.engine.step_end_s:
                self._finish_step(due_s, now_s)
            else:
                self._relaunch()
        # Also if nothing was due: an alarm may ring a hair early, and must ring again.
        self._alarm(due_s, self.advance)
        return now_s

    def _finish_step(self, end_s: float, now_s: float) -> None:
        finished = self.engine.finish_step()
        late_s = now_s - end_s
        self.late.steps += 1
        self.late.total_s += late_s
        self.late.worst_s = max(self.late.worst_s, late_s)
        self._deliver(end_s, finished)
        if self._leaving:
            self._let_go()
        self._begin(end_s)

    def _begin(self, now_s: float) -> None:
        """Start the next step, and note who left the queue with it."""
        if self.engine.step_end_s != NEVER:
            return
        self.engine.begin(now_s)
        if self.engine.step_end_s == NEVER:
            return
        for sequence, _ in self.engine.batch.chunks:
            stream = self._streams[sequence]
            if not stream.scheduled and sequence.scheduled_s is not None:
                stream.scheduled = True
                self.tallies.queue.observe(sequence.scheduled_s - sequence.arrived_s)

    def _deliver(self, now_s: float, finished: list[Sequence]) -> None:
        """Tell each stream of its new token, if it has one."""
        batch, streams, tallies = self.engine.batch, self._streams, self.tallies
        tick = batch.tick
        for sequence in islice(batch, batch.running):
            generated = sequence.generated_at(tick)
            stream = streams[sequence]
            if generated != stream.delivered:
                self._put_out(stream, generated, now_s)
        for sequence in finished:
            stream = streams.pop(sequence)
            self._put_out(stream, sequence.generated, now_s)
            tallies.e2e.observe(now_s - sequence.arrived_s)
            tallies.finished[stream.finish] += 1

    def _put_out(self, stream: Stream, generated: int, now_s: float) -> None:
        if stream.delivered:
            self.tallies.itl.observe(now_s - stream.last_token_s)
        else:
            self.tallies.ttft.observe(now_s - stream.sequence.arrived_s)
        stream.delivered, stream.last_token_s = generated, now_s
        stream.news.set()

    def _let_go(self) -> None:
        for stream in self._leaving:
            if self._streams.pop(stream.sequence, None) is not None and self.engine.abort(stream.sequence):
                self.tallies.finished["abort"] += 1
        self._leaving.clear()

    def _relaunch(self) -> None:
        self.engine.relaunch()
        self.started_wall_s, self.tallies = self._wall_clock(), Tallies()
        self._changed()

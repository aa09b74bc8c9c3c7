"""Many steps at once: what a stretch of like steps costs, in closed form.

While the same sequences decode, a step costs a fixed time and a little more per token of context,
and the context grows alike at each step. So the time of n steps is quadratic in n, and how many steps
end by a time is the root of that. Where the cost bends, the line ends: lines are found by halving a range
of contexts until its quarters lie on it, so a cost that consists of straight pieces, as those of kernel tables
do, is met to a millionth, and any other as well as the shortest lines do. They are kept, because a fleet
comes by the same batch sizes and contexts again and again. This module refuses to know why a
stretch ends.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

from flyball_twin.physics import Chunk, StepCost

STRAIGHT = 1e-6
"""How far a step may lie off its line, as a share of what it takes."""

SMALL_CONTEXT_BITS = 12
"""Contexts below 4096 tokens are first tried as one line, larger ones from each power of two to the next."""

SHORTEST_BITS = 6
"""Lines of 64 tokens are not halved further: so close to a bend, nothing comes of it in one step."""


class Line:
    """What steps cost from the context `start` up to `end`: each at `start`, and its rise per token of context."""

    __slots__ = (
        "end",
        "flops",
        "flops_rise",
        "overhead_rise",
        "overhead_s",
        "read_bytes",
        "read_rise",
        "start",
        "step_rise",
        "step_s",
    )

    def __init__(self, start: int, step_s: float, overhead_s: float, read_bytes: float, flops: float) -> None:
        """A point: it ends where it starts."""
        self.start = self.end = start
        self.step_s, self.overhead_s, self.read_bytes, self.flops = step_s, overhead_s, read_bytes, flops
        self.step_rise = self.overhead_rise = self.read_rise = self.flops_rise = 0.0


def point(cost: StepCost, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> Line:
    """What one step costs."""
    return Line(
        context,
        cost.step_s(decodes, context, chunks),
        cost.overhead_s(decodes, chunks),
        cost.read_bytes(decodes, context, chunks),
        cost.flops(decodes, context, chunks),
    )


class DecodeLines:
    """The lines of one step cost, drawn when they are first wanted."""

    __slots__ = ("_cost", "_lines")

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._lines: dict[tuple[int, int, int], Line | None] = {}
        """By batch size, and by the range of contexts from `cell << bits` on; None: it is halved."""

    def at(self, decodes: int, context: int) -> Line:
        """The line on which a step with this context lies."""
        bits = max(SMALL_CONTEXT_BITS, context.bit_length() - 1)
        lines = self._lines
        while True:
            key = decodes, bits, context >> bits
            line = lines.get(key)
            if line is not None:
                return line
            if key not in lines:
                lines[key] = self._drawn(*key)
            else:
                bits -= 1

    def _drawn(self, decodes: int, bits: int, cell: int) -> Line | None:
        """The line of such a range, or None if it is none."""
        start, end = max(decodes, cell << bits), (cell + 1) << bits
        line, there = point(self._cost, decodes, start), point(self._cost, decodes, end)
        width = end - start
        line.end = end
        line.step_rise = (there.step_s - line.step_s) / width
        if bits > SHORTEST_BITS:
            for quarter in (1, 2, 3):
                offset = width * quarter // 4
                step_s = self._cost.step_s(decodes, start + offset)
                if abs(line.step_s + line.step_rise * offset - step_s) > STRAIGHT * step_s:
                    return None
        line.overhead_rise = (there.overhead_s - line.overhead_s) / width
        line.read_rise = (there.read_bytes - line.read_bytes) / width
        line.flops_rise = (there.flops - line.flops) / width
        return line


@lru_cache(maxsize=64)
def lines_of(cost: StepCost) -> DecodeLines:
    """The lines of a step cost; engines that share the one share the other."""
    return DecodeLines(cost)


class Stretch:
    """The steps under way: how many, since when, and on which line; none while `steps` is 0."""

    __slots__ = ("grow", "line", "offset", "span_s", "start_s", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.start_s = 0.0
        self.span_s = 0.0
        """What all of them take."""
        self.line = Line(0, 0.0, 0.0, 0.0, 0.0)
        self.offset = 0
        """Tokens of context from the line's start to the first step."""
        self.grow = 0.0
        """Tokens by which the context grows from step to step."""

    def alone(self, start_s: float, line: Line) -> None:
        """One step, at the line's start."""
        self.start_s, self.line, self.steps = start_s, line, 1
        self.offset, self.span_s = 0, line.step_s

    def leap(self, start_s: float, line: Line, context: int, grow: float, steps: int) -> None:
        """As many of `steps` as lie on the line, the first of them with this context."""
        self.start_s, self.line = start_s, line
        self.offset = context - line.start
        self.grow = grow
        if steps > 1 and context + grow * (steps - 1) > line.end:
            steps = int((line.end - context) / grow) + 1
        self.steps = steps
        self.span_s = self.after_s(steps)

    def cut(self, steps: int) -> None:
        """End after so many of the steps, if there are more."""
        if steps < self.steps:
            self.steps = steps
            self.span_s = self.after_s(steps)

    def last_began_s(self, steps: int) -> float:
        """When the last of so many steps began."""
        return self.start_s + self.after_s(steps - 1)

    def offsets(self, steps: int) -> float:
        """Tokens from the line's start, summed up over so many steps."""
        return steps * self.offset + self.grow * (steps * (steps - 1) / 2) if steps > 1 else self.offset * steps

    def after_s(self, steps: int) -> float:
        """Seconds that so many steps take."""
        line = self.line
        return steps * line.step_s + line.step_rise * self.offsets(steps)

    def waiting_s(self, steps: int) -> float:
        """Seconds of them in which the GPU waits for its host."""
        line = self.line
        return steps * line.overhead_s + line.overhead_rise * self.offsets(steps)

    def read_bytes(self, steps: int) -> float:
        """Bytes that they read."""
        line = self.line
        return steps * line.read_bytes + line.read_rise * self.offsets(steps)

    def ended_by(self, now_s: float) -> int:
        """Steps that have ended by `now_s`, the last one apart: that is for who settles it."""
        most = self.steps - 1
        elapsed_s = now_s - self.start_s
        if most < 1 or elapsed_s <= 0.0:
            return 0
        line = self.line
        steps = _steps_within(elapsed_s, line.step_s + line.step_rise * self.offset, line.step_rise * self.grow)
        steps = min(steps, most)
        # By the ends as they will be settled, not by the root of a polynomial.
        while steps < most and self.start_s + self.after_s(steps + 1) <= now_s:
            steps += 1
        while steps and self.start_s + self.after_s(steps) > now_s:
            steps -= 1
        return steps

    def share_by(self, now_s: float) -> tuple[int, float]:
        """Steps that have ended by `now_s`, and the elapsed share of the next."""
        ended = self.ended_by(now_s)
        before_s = self.after_s(ended)
        length_s = self.after_s(ended + 1) - before_s
        return ended, min(1.0, max(0.0, (now_s - self.start_s - before_s) / length_s))


def _steps_within(elapsed_s: float, first_s: float, rise_s: float) -> int:
    """How many steps fit a time, of which the first takes `first_s` and each later one `rise_s` more."""
    base = first_s - 0.5 * rise_s
    return int(2.0 * elapsed_s / (base + sqrt(max(0.0, base * base + 2.0 * rise_s * elapsed_s))))

"""Sources that wait for nothing: each an endless or ending run of drafts, in order of arrival, on its own clock.

A draft is a request that has no id, pool or lane yet. A source is a function of its description and a seeded
generator; the same pair gives the same drafts on every machine, and only the next one is ever held.

Methods: a Markov-modulated Poisson process is played state by state, with exponential gaps within a state; a
swinging Poisson process by thinning (P. Lewis and G. Shedler, "Simulation of nonhomogeneous Poisson processes by
thinning", 1979).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, pi, sin
from random import Random

from flyball_core.errors import Rejected
from flyball_twin.scenario.model import DiurnalSource, MmppSource, TraceSource
from flyball_twin.traffic.seam import NEVER
from flyball_twin.traffic.traces import Row, Trace
from flyball_twin.workload import PREFIX_TOKENS

Draft = Row
"""Arrival in seconds of the stream's clock, prompt and output tokens, session, turn, names of the prefix."""

ROUND_BITS = 32
"""Names of prefixes below this many bits are the trace's own; above them stands which stretch it is, so that what is
played twice does not find its own cache from the first time."""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths or times whose logarithm is normal, cut off at `longest` and not below `least`."""

    median: float
    spread: float
    longest: float = float("inf")
    least: float = 1.0

    def draw(self, rng: Random) -> float:
        """The next."""
        drawn = exp(log(self.median) + self.spread * rng.gauss(0.0, 1.0)) if self.spread else self.median
        return min(max(drawn, self.least), self.longest)

    def tokens(self, rng: Random) -> int:
        """The next, as a whole number."""
        return int(self.draw(rng) + 0.5)


class Lengths:
    """Prompts and answers, together no longer than `longest`."""

    def __init__(self, prompt: tuple[float, float], output: tuple[float, float], longest: int) -> None:
        """Each: median, and standard deviation of the logarithm."""
        self._prompt = LogNormal(*prompt, longest=longest - 1)
        self._output = LogNormal(*output, longest=longest)
        self._longest = longest

    def draw(self, rng: Random) -> tuple[int, int]:
        """The next prompt and its answer, in tokens."""
        prompt = self._prompt.tokens(rng)
        return prompt, min(self._output.tokens(rng), self._longest - prompt)


def play_trace(source: TraceSource, trace: Trace, rng: Random, until_s: float = NEVER) -> Iterator[Draft]:
    """A cut of the trace as recorded, repeated, or spliced from random places; no stretch begins at `until_s` or later.

    Thinning keeps an exact share, evenly spread; sessions are thinned like any request. Raises `Rejected` at once for
    a cut that holds nothing.
    """
    to_s = min(source.to_s, trace.end_s)
    if not 0.0 <= source.from_s < to_s or next(trace.between(source.from_s, to_s), None) is None:
        raise Rejected(
            f"trace {source.trace} has nothing from {source.from_s:g} s to {to_s:g} s; it goes up to {trace.last_s:g} s"
        )
    if source.splice_s is not None and not 0.0 < source.splice_s <= to_s - source.from_s:
        raise Rejected(
            f"stretches of {source.splice_s:g} s do not fit a cut of {to_s - source.from_s:g} s of trace {source.trace}"
        )
    return _play(source, trace, to_s, rng, until_s)


def _play(source: TraceSource, trace: Trace, to_s: float, rng: Random, until_s: float) -> Iterator[Draft]:
    offset_s, seen, keep, speed = 0.0, 0, source.keep, source.speed
    for stretch, (start_s, end_s) in enumerate(_stretches(source, to_s, rng)):
        if offset_s >= until_s:
            return
        name = stretch << ROUND_BITS
        for arrival, prompt, output, session, turn, prefix in trace.between(start_s, end_s):
            seen += 1
            if keep < 1.0 and int(seen * keep) == int((seen - 1) * keep):
                continue
            yield (
                offset_s + (arrival - start_s) / speed,
                prompt,
                output,
                f"{session}.{stretch}" if session and stretch else session,
                turn,
                # Only whole runs can be shared; the name of a last part stands for fewer tokens.
                tuple([name + block for block in prefix[: prompt // PREFIX_TOKENS]]) if prefix else prefix,
            )
        offset_s += (end_s - start_s) / speed


def _stretches(source: TraceSource, to_s: float, rng: Random) -> Iterator[tuple[float, float]]:
    if source.splice_s is None:
        yield source.from_s, to_s
        while source.repeat:
            yield source.from_s, to_s
        return
    while True:
        start_s = source.from_s + rng.random() * (to_s - source.from_s - source.splice_s)
        yield start_s, start_s + source.splice_s


def play_mmpp(source: MmppSource, rng: Random, until_s: float = NEVER) -> Iterator[Draft]:
    """Poisson arrivals whose rate jumps, up to `until_s`.

    It begins in a state drawn by how much of the time each holds; what follows a state is drawn evenly from the others.
    """
    lengths = Lengths(source.prompt_tokens, source.output_tokens, source.longest_tokens)
    states = range(len(source.rates_rps))
    state = rng.choices(states, source.mean_stay_s)[0]
    now_s, jump_s = 0.0, rng.expovariate(1.0 / source.mean_stay_s[state])
    while now_s < until_s:
        rate = source.rates_rps[state]
        now_s = now_s + rng.expovariate(rate) if rate > 0.0 else jump_s
        if now_s < jump_s or len(states) == 1:
            yield now_s, *lengths.draw(rng), "", 0, ()
            continue
        # Gaps have no memory, so the one that reached over the jump is drawn anew from there.
        now_s = jump_s
        state = rng.choice([other for other in states if other != state])
        jump_s = now_s + rng.expovariate(1.0 / source.mean_stay_s[state])


def play_diurnal(source: DiurnalSource, rng: Random) -> Iterator[Draft]:
    """Poisson arrivals whose rate swings."""
    lengths = Lengths(source.prompt_tokens, source.output_tokens, source.longest_tokens)
    peak, now_s = 1.0 + source.swing, 0.0
    while True:
        now_s += rng.expovariate(source.mean_rps * peak)
        rate = 1.0 + source.swing * sin(2.0 * pi * (now_s - source.shift_s) / source.period_s)
        if rng.random() * peak < rate:
            yield now_s, *lengths.draw(rng), "", 0, ()

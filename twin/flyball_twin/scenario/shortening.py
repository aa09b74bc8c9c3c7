"""A scenario cut off early, for a look at its beginning. What is left is as it was."""

from dataclasses import replace

from flyball_core.errors import Rejected
from flyball_twin.scenario.model import Scenario


def shortened(scenario: Scenario, duration_s: float) -> Scenario:
    """The same scenario, but that requests cease to arrive after `duration_s`.

    Raises `Rejected` unless `duration_s` is above 0 and something is asked by then.
    """
    if not duration_s > 0.0:
        raise Rejected(f"nothing can be played in {duration_s:g} s: say more than 0")
    if duration_s >= scenario.duration_s:
        return scenario
    streams = tuple(
        replace(stream, to_s=min(stream.to_s, duration_s)) for stream in scenario.streams if stream.from_s < duration_s
    )
    if not streams:
        raise Rejected(f"nothing is asked of {scenario.name} in its first {duration_s:g} s")
    phases = tuple(
        replace(phase, to_s=min(phase.to_s, duration_s)) for phase in scenario.phases if phase.from_s < duration_s
    )
    faults = tuple(fault for fault in scenario.faults if fault.from_s < duration_s)
    return replace(scenario, duration_s=duration_s, streams=streams, phases=phases, faults=faults)

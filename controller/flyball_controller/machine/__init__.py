"""The pure machine: `step(state, input) -> outputs`, and everything it consists of.

No clock, no randomness, no I/O, no logging. It may change the state it is given and
nothing else, so a pool's decisions are a function of its log.
"""

from flyball_controller.machine.seams import Seams, standard_seams
from flyball_controller.machine.state import PartitionState
from flyball_controller.machine.step import step

__all__ = ["PartitionState", "Seams", "standard_seams", "step"]

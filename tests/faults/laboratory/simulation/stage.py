"""What all parts of one simulated world share."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from flyball_core.ids import PoolId
from laboratory.record import Happened, Record
from laboratory.simulation.faulty_log import Brokers
from laboratory.simulation.kernel import Kernel

POOL = PoolId("chat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Time, the log, the record, a folder for what parts keep on disk, and the seed of everybody's chances."""

    kernel: Kernel
    brokers: Brokers
    record: Record
    folder: Path
    seed: str

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self.kernel.now_s

    def random(self, name: str) -> Random:
        """The chances of one part, which those of no other disturb."""
        return Random(f"{self.seed} {name}")

    def happened(self, event: str, target: str, detail: str = "") -> None:
        """Put something on record."""
        self.record.add(Happened(at_s=self.now_s, event=event, target=target, detail=detail))


def change_byte(paths: list[Path], place: float, random: Random) -> tuple[Path, int, bytes] | None:
    """Change one bit at this place, 0 to 1, of the files together; which file and byte, and what it held before."""
    contents = [path.read_bytes() for path in paths]
    at = int(place * sum(map(len, contents)))
    for path, before in zip(paths, contents, strict=True):
        if at < len(before):
            data = bytearray(before)
            data[at] ^= 1 << random.randrange(8)
            path.write_bytes(data)
            return path, at, before
        at -= len(before)
    return None

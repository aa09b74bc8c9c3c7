"""Writing the audit: decision records with everything that stands in every one of them."""

from collections.abc import Mapping, Sequence

from flyball_controller.machine.state import PartitionState, PoolState
from flyball_core.fencing import Version
from flyball_core.ids import PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import Setting
from flyball_core.outputs import DecisionRecord, RecordKind, Verdict

PAGE_BYTES = 160 * 1024
"""Most that verdicts and keys take up in one record; the log takes records of 256 KiB."""

Page = tuple[tuple[Verdict, ...], tuple[str, ...]]


def pages(verdicts: Sequence[Verdict], keys: Sequence[str]) -> list[Page]:
    """Verdicts and published keys shared out over as many records as they need; always at least one."""
    made: list[tuple[list[Verdict], list[str]]] = [([], [])]
    left = PAGE_BYTES
    items: list[Verdict | str] = [*verdicts, *keys]
    for item in items:
        size = _most_bytes(item)
        if size > left and left < PAGE_BYTES:
            made.append(([], []))
            left = PAGE_BYTES
        left -= size
        if isinstance(item, str):
            made[-1][1].append(item)
        else:
            made[-1][0].append(item)
    return [(tuple(those), tuple(names)) for those, names in made]


def _most_bytes(item: Verdict | str) -> int:
    """What it takes up at most in a record, its line in the summary included."""
    if isinstance(item, str):
        return 4 * len(item) + 8
    asked = item.proposal
    named = len(asked.target) + len(asked.knob) + len(str(asked.value)) + len(str(item.before)) + len(str(item.allowed))
    return 4 * (2 * named + len(asked.policy) + len(asked.reason) + len(item.reason)) + 128


class Recorder:
    """Makes records of one pool as of one input, and keeps them for the next tick to publish."""

    def __init__(self, partition: PartitionState, pool: PoolState, revision: int) -> None:
        self._partition = partition
        self._pool = pool
        self.version: Version = partition.version(revision)
        self.decision = f"{pool.pool}@{revision}"

    def note(  # noqa: PLR0913 - one keyword per field of the record
        self,
        kind: RecordKind,
        decision: str,
        summary: str,
        *,
        target_kind: TargetKind | None = TargetKind.ENGINE,
        target: str = "",
        features: Mapping[str, float] | None = None,
        verdicts: tuple[Verdict, ...] = (),
        published: tuple[str, ...] = (),
        effective: Setting | None = None,
        refused: bool = False,
    ) -> None:
        """Keep one record; it is published at this tick, or at the next one."""
        pool = self._pool
        pool.notes.append(
            DecisionRecord(
                pool=PoolId(pool.pool),
                kind=kind,
                version=self.version,
                decision=decision,
                time_s=self._partition.time_s,
                wall_s=self._partition.wall_s,
                mode=pool.mode.value,
                regime=pool.regime.name,
                confidence=pool.regime.confidence,
                summary=summary,
                target_kind=target_kind if target else None,
                target=target,
                features=dict(features or {}),
                verdicts=verdicts,
                published=published,
                effective=dict(effective or {}),
                refused=refused,
            )
        )

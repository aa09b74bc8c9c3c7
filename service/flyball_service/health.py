"""What a service says of itself: whether it is alive, and what it still waits for.

*Ready* means that nothing is waited for; *live* that every loop that promised a beat gave it
in time. Knows no clock: times are the caller's, all of one monotonic clock. Decides nothing:
a service that is not ready goes on trying.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

log = structlog.get_logger()


@dataclass(slots=True)
class Health:
    """What is waited for, and when each loop has to be heard of again."""

    _waiting: dict[str, str] = field(default_factory=dict)
    _due_s: dict[str, float] = field(default_factory=dict)

    def waits_for(self, what: str, why: str) -> None:
        """Not ready from now on, for `what` (a constant such as `log`) is missing; logged once per change of `why`."""
        if self._waiting.get(what) != why:
            self._waiting[what] = why
            log.warning("waiting", waiting_for=what, why=why)

    def has(self, what: str) -> None:
        """`what` is there: it is no longer waited for."""
        if self._waiting.pop(what, None) is not None:
            log.info("going_on", has=what)

    @property
    def waiting(self) -> Mapping[str, str]:
        """What is waited for, and why it is not there yet."""
        return MappingProxyType(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether nothing is waited for."""
        return not self._waiting

    def beat(self, loop: str, now_s: float, within_s: float) -> None:
        """`loop` is alive, and promises its next beat within `within_s` seconds."""
        self._due_s[loop] = now_s + within_s

    def ended(self, loop: str) -> None:
        """`loop` ended on purpose and promises nothing any more."""
        self._due_s.pop(loop, None)

    def live(self, now_s: float) -> dict[str, float]:
        """The loops that are overdue, and by how many seconds; empty: live."""
        return {loop: now_s - due_s for loop, due_s in self._due_s.items() if now_s > due_s}

"""What a receiver governs: a flat mapping of names to values, behind one small protocol.

An engine's settings and a gateway's routing table are both surfaces, so one library
fences and bounds both. A surface judges no version, keeps no lease and persists
nothing: it sets, reads back, and says what it has.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Protocol

from flyball_core.knobs import KnobSpec, Setting


class Surface(Protocol):
    """The knobs of one engine or gateway. Anything may raise; the receiver turns that into a Nack."""

    def specs(self) -> tuple[KnobSpec, ...]:
        """The knobs present now, each with bounds and safe value; may change with a gateway's engines."""
        ...

    def spec(self, name: str) -> KnobSpec | None:
        """The knob of that name, also one that a value may wait for; None if there can be none."""
        ...

    def refuse(self, values: Setting) -> str | None:
        """Why these values, each fine by itself, must not be held together; None if they may."""
        ...

    def apply(self, values: Setting) -> None:
        """Set the named live and routing knobs between two steps; the others keep their values.

        Raises if any of them could not be set; then as many as possible were put back.
        """
        ...

    def read(self) -> Setting:
        """The effective values of all knobs that can be read, as read back and never as remembered."""
        ...

    def restart(self, values: Setting) -> None:
        """Begin the relaunch with these restart-class values; may end this process."""
        ...

    def settle(self, values: Setting) -> None:
        """Of the values held, set those of whatever has appeared since the last call; called at each poll."""
        ...

    def zero_is_none(self, name: str) -> bool:
        """Whether 0 of this knob means "no limit", which stands above its maximum, not below its minimum."""
        ...


def capability_hash(specs: Iterable[KnobSpec]) -> str:
    """A short digest of what a target can do; a directive made for other capabilities is refused."""
    rows = sorted(
        [s.name, s.knob_class.value, s.kind.value, repr(s.safe), s.minimum, s.maximum, list(s.choices), s.unit]
        for s in specs
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

"""The alarm before certificates expire: a number for `/metrics`, and a warning in the log.

Renews nothing and ends nothing: whoever issues certificates does the one, and a connection that stands outlives
its certificate. A folder whose files cannot be read is silent here; those who use it say what is wrong with it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flyball_core.errors import Rejected
from flyball_core.file_marks import Marks, marks_of
from flyball_service.certificate_files import CA_FILE, CERT_FILE, Validity, validities

WARN_BEFORE_S = 7 * 86_400.0
"""A certificate that expires within so long is warned of, or within a third of its life if that is shorter."""
WARN_EVERY_S = 86_400.0
"""At most so often."""

# Not structlog: a receiver in an inference engine's environment has none. Warnings reach a service's log all the same.
log = logging.getLogger("flyball.tls")


class Expires(NamedTuple):
    """When what a folder holds ceases to hold, in seconds of unix time; None where there is nothing."""

    own_s: float | None
    """The first of the certificates that are shown."""
    authority_s: float | None
    """The last of the authorities that are trusted: of an old and a new one, the new one's."""


class Expiry:
    """Watches one folder in cert-manager's layout. `clock` gives unix seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._seen: Marks | None = None
        self._own: Validity | None = None
        self._authority: Validity | None = None
        self._warned_s = float("-inf")

    def now(self) -> Expires:
        """When they expire, by the files as they are now; warns if that is near."""
        files = (self.folder / CERT_FILE, self.folder / CA_FILE)
        marks = marks_of(files)
        if marks != self._seen:
            self._seen = marks
            own, authorities = (_validities_in(file) for file in files)
            self._own = min(own, key=_end, default=None)
            self._authority = max(authorities, key=_end, default=None)
        self._warn()
        return Expires(*(None if one is None else one.ends_s for one in (self._own, self._authority)))

    def _warn(self) -> None:
        """Say once a day what is about to expire; at once again when something was renewed and then comes near."""
        now_s = self._clock()
        near = {
            file: one.ends_s - now_s
            for file, one in ((CERT_FILE, self._own), (CA_FILE, self._authority))
            if one is not None and one.ends_s - now_s < min(WARN_BEFORE_S, (one.ends_s - one.begins_s) / 3.0)
        }
        if not near:
            self._warned_s = float("-inf")
        elif now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            for file, left_s in near.items():
                said = f"expires in {left_s / 3600.0:.1f} h" if left_s > 0 else "has expired"
                log.warning("certificate_expires: %s %s; it was not renewed", self.folder / file, said)


def _end(validity: Validity) -> float:
    return validity.ends_s


def _validities_in(file: Path) -> list[Validity]:
    try:
        return validities(file.read_bytes())
    except (OSError, Rejected):
        return []

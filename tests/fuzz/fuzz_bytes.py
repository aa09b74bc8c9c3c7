"""Making structure of plain bytes, so that one input serves a property test, the corpus and a coverage-guided run.

A target reads its choices from the front of the bytes and what it feeds from the rest. Whatever the
bytes are, there is an answer: past their end every choice is the first one, and every piece is empty.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

MOST_EDITS = 16


class Draw:
    """Reads choices and pieces from bytes, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes, or what is left of them."""
        found = self._data[self._at : self._at + count]
        self._at += len(found)
        return found

    def byte(self) -> int:
        """The next byte; 0 past the end."""
        found = self.take(1)
        return found[0] if found else 0

    def whole(self) -> int:
        """The next two bytes as a number."""
        return self.byte() << 8 | self.byte()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.byte() % len(options)]

    def piece(self) -> bytes:
        """The next piece: its length in two bytes, then that many."""
        return self.take(self.whole())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)


def says(error: Exception) -> None:
    """The error says what is wrong."""
    assert str(error)


def framed(*pieces: bytes) -> bytes:
    """Pieces as `Draw.piece` reads them."""
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)


def edited(base: bytes, draw: Draw, *, burst: int = 64) -> bytes:
    """`base` with edits that the bytes tell: overwritten by at most `burst` bytes, cut off, cut out, inserted into."""
    made = bytearray(base)
    for _ in range(MOST_EDITS):
        if not draw.left:
            break
        edit, at = draw.byte() % 5, draw.whole() % (len(made) + 1)
        length = draw.byte() % burst + 1
        if edit == 0:
            made[at : at + length] = draw.take(min(length, len(made) - at))
        elif edit == 1:
            del made[at:]
        elif edit == 2:
            del made[at : at + length]
        elif edit == 3:
            made[at:at] = draw.take(length)
        else:
            made[at:at] = made[at : at + length]
    return bytes(made)


def damaged(base: bytes, draw: Draw) -> bytes:
    """`base` with damage that a CRC-32 notices for certain: up to 4 bytes in a row changed, or the end gone."""
    if draw.byte() % 4 == 0:
        return base[: draw.whole() % (len(base) + 1)]
    at = draw.whole() % (len(base) + 1)
    change = draw.take(min(4, len(base) - at))
    return base[:at] + bytes(old ^ new for old, new in zip(base[at:], change, strict=False)) + base[at + len(change) :]

"""What the checker answers: per promise what was lost, what came that nobody expected, and what was recovered.

It holds findings and prints them; it looks for none.
"""

import textwrap
from dataclasses import dataclass, field
from enum import Enum

_WIDTH = 100
_MOST_SHOWN = 8


class Promise(Enum):
    """What is judged; the value is how a verdict names it."""

    ORDER = "2: an engine never applies an older version"
    LIVES = "2: over all of a receiver's lives"
    EASING = "3: held for the lease, then eased"
    MOTION = "4: no knob leaves its bounds, slew, dwell"
    ACCOUNTS = "5: every sample is accounted for"
    REPLAY = "7: replay gives the same decisions"


@dataclass(slots=True)
class Answer:
    """Findings under one promise, each a sentence with its evidence."""

    lost: list[str] = field(default_factory=list)
    """What should have come about and did not."""
    unexpected: list[str] = field(default_factory=list)
    """What came about and should not have."""
    recovered: list[str] = field(default_factory=list)
    """What went wrong on its way and was made good: no fault."""


@dataclass(slots=True)
class Verdict:
    """What the checker found. Nothing is broken unless something was lost or unexpected."""

    answers: dict[Promise, Answer] = field(default_factory=lambda: {promise: Answer() for promise in Promise})
    looked_at: dict[str, int] = field(default_factory=dict)
    """How much there was to judge, by name; a verdict over nothing says nothing."""

    def __getitem__(self, promise: Promise) -> Answer:
        return self.answers[promise]

    @property
    def lost(self) -> list[str]:
        """Everything lost, each with its promise."""
        return [f"{name.value}: lost: {text}" for name, found in self.answers.items() for text in found.lost]

    @property
    def unexpected(self) -> list[str]:
        """Everything unexpected, each with its promise."""
        return [
            f"{name.value}: unexpected: {text}" for name, found in self.answers.items() for text in found.unexpected
        ]

    @property
    def recovered(self) -> list[str]:
        """Everything made good, each with its promise."""
        return [f"{name.value}: recovered: {text}" for name, found in self.answers.items() for text in found.recovered]

    @property
    def broken(self) -> list[str]:
        """All that breaks a promise."""
        return [*self.lost, *self.unexpected]

    def __str__(self) -> str:
        """For a terminal of 100 columns: one line per promise, and the first findings under it."""
        lines = ["looked at " + ", ".join(f"{number} {what}" for what, number in self.looked_at.items())]
        for promise, found in self.answers.items():
            numbers = f"lost {len(found.lost)}, unexpected {len(found.unexpected)}, recovered {len(found.recovered)}"
            lines.append(f"{'BROKEN' if found.lost or found.unexpected else 'kept  '} {promise.value}: {numbers}")
            for kind, texts in (("lost", found.lost), ("unexpected", found.unexpected), ("recovered", found.recovered)):
                lines.extend(line for text in texts[:_MOST_SHOWN] for line in _wrapped(f"{kind}: {text}"))
                if len(texts) > _MOST_SHOWN:
                    lines.append(f"    {kind}: and {len(texts) - _MOST_SHOWN} more")
        return "\n".join(line for text in lines for line in textwrap.wrap(text, _WIDTH, drop_whitespace=False))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="      ")

"""What can go wrong, by what the caller should do about it.

FlyballError
├── Retryable        try again later, with back-off; nothing was done
│   └── LogUnavailable
├── Rejected         this input will never be taken; say why and go on
│   ├── InvalidDocument   (file, line, column, hint)
│   └── OffsetGone        (asked for, first kept)
└── Fatal            this process cannot go on; an operator must act
    ├── LogCorrupt        (where, what was found)
    ├── LogExchanged
    └── NotALog
"""


class FlyballError(Exception):
    """Base of every error Flyball raises on purpose; its text is one clear sentence."""


class Retryable(FlyballError):
    """Nothing was done; the same call may succeed later."""


class LogUnavailable(Retryable):
    """The log cannot be reached or did not answer in time."""


class Rejected(FlyballError):
    """The input is wrong and will stay wrong; the message says what would be right."""


class InvalidDocument(Rejected):
    """A document that does not fit its schema, with the place of the fault.

    `line` and `column` count from 1; `hint` names the nearest right answer, or is empty.
    """

    def __init__(self, problem: str, *, file: str, line: int, column: int = 1, hint: str = "") -> None:
        self.problem = problem
        self.file = file
        self.line = line
        self.column = column
        self.hint = hint
        super().__init__(f"{file}:{line}:{column}: {problem}" + (f" ({hint})" if hint else ""))


class OffsetGone(Rejected):
    """The offset asked for has passed out of retention; `first` is the first one kept."""

    def __init__(self, asked: int, first: int) -> None:
        self.asked = asked
        self.first = first
        super().__init__(f"offset {asked} is no longer kept; the first kept is {first}")


class Fatal(FlyballError):
    """The process cannot go on safely; an operator has to act."""


class LogCorrupt(Fatal):
    """A record that was once synced no longer reads back as it was written.

    `offset` is the first record that cannot be read; everything before it can.
    """

    def __init__(self, where: str, offset: int, found: str) -> None:
        self.where = where
        self.offset = offset
        super().__init__(f"{where}: record {offset} is damaged: {found}")


class LogExchanged(Fatal):
    """Where the open log was there is another one now, or none: what was read no longer counts."""


class NotALog(Fatal):
    """The place named as a log holds none."""

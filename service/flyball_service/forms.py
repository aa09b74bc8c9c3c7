"""What a text or a number of the configuration file means, said beside its type.

Only names the forms: `flyball_service.reading` holds values to them.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated


class Form(Enum):
    """A text with a meaning; the value is how it is called for people."""

    NAME = "name"
    """A name of the operator's own: printable, at most 200 characters."""
    ADDRESS = "HOST:PORT"
    """An address that may be plain on loopback only, because what comes through it is believed."""
    HTTP_ADDRESS = "HOST:PORT (HTTP)"
    """An address for numbers and signs of life, which takes nothing in."""
    URL = "URL"
    """http or https, without credentials."""
    LOG = "folder, or kafka://HOST:PORT[,HOST:PORT...]/PREFIX"
    """A log."""


@dataclass(frozen=True, slots=True)
class Within:
    """A number from `low` to `high`, in the field's unit."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    options: tuple[str, ...]


Mark = Form | Within | OneOf

Name = Annotated[str, Form.NAME]
Address = Annotated[str, Form.ADDRESS]
HttpAddress = Annotated[str, Form.HTTP_ADDRESS]
Url = Annotated[str, Form.URL]
LogName = Annotated[str, Form.LOG]

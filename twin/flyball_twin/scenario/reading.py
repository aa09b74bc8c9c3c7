"""Reading a scenario: one YAML file, or one of the library by its name.

Every mistake is told with file, line, column and what would be right, all of a document at once. Reading opens the
policy documents that a scenario names, and looks whether its traces are there; what traces say comes out when they
are played.
"""

from pathlib import Path

from flyball_core.errors import InvalidDocument, Rejected
from flyball_policies.strict_yaml import compose
from flyball_twin.scenario.forms import Entry, ScenarioReader, Value
from flyball_twin.scenario.keys import SCENARIO
from flyball_twin.scenario.library import find_scenario
from flyball_twin.scenario.meaning import meaning
from flyball_twin.scenario.model import Scenario

MAX_BYTES = 256 * 1024
"""Largest document taken."""


class InvalidScenario(InvalidDocument):
    """Everything that is wrong with a scenario, in the order of the document; its own place is the first fault's."""

    def __init__(self, faults: list[InvalidDocument]) -> None:
        """`faults`: at least one."""
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.column)))
        first = self.faults[0]
        more = len(self.faults) - 1
        said = f"{first.problem}; and {more} more, see `flyball twin check`" if more else first.problem
        super().__init__(said, file=first.file, line=first.line, column=first.column, hint=first.hint)


def load_scenario(name: str | Path) -> Scenario:
    """The scenario in a file, or that of the library by its name; raises as `find_scenario` and `read_scenario`."""
    return read_scenario(find_scenario(name))


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises `Rejected` if it cannot be read, `InvalidScenario` if it is none."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Rejected(f"{path}: cannot be read: {error.strerror or error}") from error
    return scenario_of(text, path)


def scenario_of(text: str, path: Path) -> Scenario:
    """The scenario that `text` declares; `path` is for its name, errors and what it names. Raises `InvalidScenario`."""
    try:
        root = compose(text, str(path), MAX_BYTES)
        reader = ScenarioReader(path)
        entry: Value = SCENARIO.read(reader, root)
    except InvalidDocument as error:
        raise InvalidScenario([error]) from error
    found = None
    if isinstance(entry, Entry) and not reader.faults:
        found = meaning(reader, entry, path.name.removesuffix(".yaml"))
    if found is None or reader.faults:
        raise InvalidScenario(reader.faults)
    return found

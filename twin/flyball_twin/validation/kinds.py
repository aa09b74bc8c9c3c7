"""The kinds of measured tables that `flyball twin validate` reads. A new one is a line here."""

from collections.abc import Sequence

from flyball_twin.validation.fleet_section import FLEETS
from flyball_twin.validation.request_section import REQUESTS
from flyball_twin.validation.seam import TableKind
from flyball_twin.validation.silicon import SILICON
from flyball_twin.validation.splitwise import SPLITWISE

KINDS: Sequence[TableKind] = (SILICON, REQUESTS, FLEETS, SPLITWISE)

"""The kinds of measured tables that `flyball twin validate` reads. A new one is a line here."""

from collections.abc import Sequence

from flyball_twin.validation.seam import TableKind
from flyball_twin.validation.silicon import SILICON

KINDS: Sequence[TableKind] = (SILICON,)

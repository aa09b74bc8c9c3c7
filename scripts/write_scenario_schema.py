"""Write what follows from the keys of a scenario: the JSON schema of the library, and the tables of its page.

Run as `.venv/bin/python scripts/write_scenario_schema.py` after a key in `flyball_twin.scenario.keys` has changed. It
touches the schema and the marked part of the page, nothing else; whether they are up to date the suite says.
"""

import json
import re
from pathlib import Path

from flyball_twin.scenario.schema import schema, tables

REPOSITORY = Path(__file__).resolve().parent.parent
SCHEMA = REPOSITORY / "twin" / "scenarios" / "scenario.schema.json"
PAGE = REPOSITORY / "docs" / "scenarios.md"
MARKED = re.compile(r"(<!-- keys: begin -->\n\n).*?(<!-- keys: end -->\n)", re.DOTALL)

if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda found: f"{found[1]}{tables()}\n{found[2]}", page), encoding="utf-8")

"""Writes what `flyball config explain` prints into docs/configuration.md again: run it by hand after a key has changed.

It touches the blocks of that command and nothing else; whether the page is up to date the suite says, not this.
"""

import re
import subprocess
import sys
from pathlib import Path

from doc_blocks import ROOT

PAGE = ROOT / "docs" / "configuration.md"
BLOCK = re.compile(r"(```console\n\$ flyball (config explain \w+)\n).*?(```)", re.DOTALL)


def printed(found: re.Match[str]) -> str:
    """The block with what its command prints now."""
    command = [str(Path(sys.executable).with_name("flyball")), *found[2].split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{found[1]}{done.stdout}{found[3]}"


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(printed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")

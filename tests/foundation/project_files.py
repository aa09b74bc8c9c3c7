"""Where the project's own files are, for tests that read them."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@cache
def pyproject() -> dict[str, Any]:
    """The project's `pyproject.toml`, parsed."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages() -> tuple[Path, ...]:
    """The packages that exist, each a folder in a folder of the root."""
    return tuple(sorted(made.parent for made in ROOT.glob("*/flyball_*/__init__.py")))


def modules(*folders: Path) -> tuple[Path, ...]:
    """The hand-written Python modules under these folders."""
    found = (path for folder in folders for path in folder.rglob("*.py"))
    return tuple(sorted(path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc"))))

"""The library of scenarios: where it lies, in a checkout and in an installed package, and what is in it."""

from difflib import get_close_matches
from pathlib import Path

from flyball_core.errors import Rejected

_PACKAGE = Path(__file__).parent.parent
_SUFFIX = ".yaml"


def folder() -> Path:
    """Where the library lies. Raises `Rejected` if this installation has none."""
    for place in (_PACKAGE / "scenarios", _PACKAGE.parent / "scenarios"):
        if place.is_dir():
            return place
    raise Rejected("this installation has no library of scenarios; name a file")


def names() -> tuple[str, ...]:
    """The names of the library's scenarios."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in folder().glob(f"*{_SUFFIX}")))


def find_scenario(name: str | Path) -> Path:
    """The file of a scenario: a path, or a name of the library. Raises `Rejected`, with the nearest name."""
    path = Path(name)
    if path.suffix in (_SUFFIX, ".yml") or path.is_file():
        if not path.is_file():
            raise Rejected(f"there is no file {path}")
        return path
    known = names()
    if str(name) in known:
        return folder() / f"{name}{_SUFFIX}"
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    right = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise Rejected(f"no file and no scenario of the library is called {str(name)!r}; {right}")

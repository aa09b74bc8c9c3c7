"""Policy documents that come with Flyball, by name."""

from importlib.resources import files

from flyball_core.errors import Rejected


def preset(name: str) -> str:
    """The text of a preset. Raises `Rejected` if there is none of that name."""
    found = files(__name__) / f"{name}.yaml"
    if not found.is_file():
        known = sorted(
            entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
        )
        raise Rejected(f"no policy preset {name!r}; there is {', '.join(known)}")
    return found.read_text(encoding="utf-8")

"""A policy document in a file: its text, once it has been found to be one."""

from pathlib import Path

from flyball_core.errors import Rejected
from flyball_policies.reading import read_document


def read_policy(file: Path) -> str:
    """The text of a policy document that has been found to be one. Raises `Rejected`, with line and nearest key."""
    text = read_text(file)
    read_document(text, str(file))
    return text


def read_text(file: Path) -> str:
    """The text of a file, not judged. Raises `Rejected` if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Rejected(f"cannot read the policy document {file}: {why}") from error

"""`flyball completions`: the script that lets a shell complete `flyball`'s commands and options."""

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from flyball_core.errors import Rejected

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}
_VARIABLE = "_FLYBALL_COMPLETE"


@click.command(
    epilog="""\b
Examples:
  flyball completions bash > /etc/bash_completion.d/flyball
  flyball completions zsh > "${fpath[1]}/_flyball"
  flyball completions fish > ~/.config/fish/completions/flyball.fish
"""
)
@click.argument("shell", type=click.Choice(sorted(_SHELLS)))
def completions(*, shell: str) -> int:
    """Print the completion script for SHELL (bash 4.4 or later)."""
    root = click.get_current_context().find_root().command
    made = _SHELLS[shell](root, {}, "flyball", _VARIABLE)
    try:
        # `source` of bash asks the bash of this machine for its version, which need not be the one that reads this.
        click.echo(made.source_template % made.source_vars())
    except KeyError as error:  # a newer click wants a variable that it gives itself
        raise Rejected(f"this version of click cannot print it: {error}") from error
    return 0

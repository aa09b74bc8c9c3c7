"""The command's root: its sub-commands, and how errors end it.

Exit codes: 0 done; 1 done, and the answer is no (a replay differs, a check found faults);
2 bad input, in one line; 3 a replay agrees within tolerance under another fingerprint;
130 interrupted.
"""

import logging
import sys

import click

from flyball_core.errors import FlyballError
from flyball_core.version import __version__

BAD_INPUT = 2
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Sub-commands are imported when they are called: `flyball --help` loads no numpy."""

    def __init__(self, commands: dict[str, tuple[str, str]]) -> None:
        super().__init__(help="Flyball: an adaptive control plane for fleets of LLM inference engines.")
        self._where = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All sub-commands, by name."""
        del ctx
        return sorted(self._where)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The sub-command of that name."""
        del ctx
        if cmd_name not in self._where:
            return None
        module, attribute = self._where[cmd_name]
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        return found if isinstance(found, click.Command) else None


cli = click.version_option(__version__, prog_name="flyball")(
    LazyGroup(
        {
            "bench": ("flyball_cli.bench", "bench"),
            "demo": ("flyball_cli.demo", "demo"),
            "explain": ("flyball_cli.explain", "explain"),
            "replay": ("flyball_cli.replay", "replay"),
            "topics": ("flyball_cli.topics", "topics"),
        }
    )
)


def main() -> None:
    """Run the command; a Flyball error ends it with one line and exit code 2."""
    # What went wrong is said once, by us: libraries' own log lines would only surround it.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FlyballError as error:
        click.echo(f"flyball: {error}", err=True)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        click.echo("flyball: interrupted", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)

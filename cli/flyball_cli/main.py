"""The command's root: its sub-commands, and how errors end it.

Exit codes: 0 done; 1 done, and the answer is no (a replay differs, a check found faults, an
order was refused); 2 bad input or nobody reachable, in one line; 3 a replay agrees within
tolerance under another fingerprint; 130 interrupted.
"""

import io
import logging
import os
import sys

import click
from click.shell_completion import CompletionItem

from flyball_core.errors import FlyballError
from flyball_core.version import __version__

BAD_INPUT = 2
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Sub-commands are imported when they are called: neither `flyball --help` nor a completion loads numpy."""

    def __init__(self, commands: dict[str, tuple[str, str, str]]) -> None:
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
        module, attribute, _ = self._where[cmd_name]
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All sub-commands, each with its line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._where[name][2]) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The sub-commands and options that begin so."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=self._where[name][2]) for name in names]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


_OPERATING = "flyball_cli.operating"

COMMANDS: dict[str, tuple[str, str, str]] = {
    "agent": ("flyball_cli.agent_command", "agent", "Read a node's GPUs and engines; say what can be read there."),
    "bench": ("flyball_cli.bench", "bench", "Measure on this machine."),
    "certs": ("flyball_cli.certs", "certs", "Make certificates for trying out mutual TLS."),
    "completions": (f"{_OPERATING}.completions", "completions", "Print a shell's completion script."),
    "config": ("flyball_cli.config_command", "config", "Check, explain or begin a configuration file."),
    "controller": ("flyball_cli.services", "controller", "Run a controller: decide, push, serve operators."),
    "demo": ("flyball_cli.demo", "demo", "Two fleets on the same real requests, one static, one governed."),
    "explain": ("flyball_cli.explain", "explain", "Why an engine or gateway is set as it is; what a decision was."),
    "gateway": ("flyball_cli.gateway_command", "gateway", "Spread requests over a pool's engines, as it is told."),
    "mode": (f"{_OPERATING}.orders", "mode", "Say how far a pool is governed: observe, advise, control."),
    "override": (f"{_OPERATING}.overrides", "override", "Pin a knob for a while; list and lift what is pinned."),
    "pause": (f"{_OPERATING}.orders", "pause", "Hold every setting of a pool where it is."),
    "policy": (f"{_OPERATING}.policies", "policy", "Show, check, compare and apply policy documents."),
    "rebase": (f"{_OPERATING}.orders", "rebase", "Let receivers that hold another log's version take this log's."),
    "receiver": ("flyball_cli.receiver_command", "receiver", "Try a receiver of your own against its contract."),
    "replay": ("flyball_cli.replay", "replay", "Whether a log gives the same decisions again; or what if."),
    "resume": (f"{_OPERATING}.orders", "resume", "Let a paused pool be governed again."),
    "status": (f"{_OPERATING}.status", "status", "What a fleet is doing, and whether anything needs attention."),
    "topics": ("flyball_cli.topics", "topics", "Make or check the topics of a log in Kafka."),
    "twin": ("flyball_cli.twin_command", "twin", "Simulated fleets: scenarios, measurements, small engines."),
    "up": ("flyball_cli.up", "up", "Run every service of a configuration file in one process."),
    "watch": (f"{_OPERATING}.watch", "watch", "A fleet as it goes, and its decisions as they come."),
}
"""Module, attribute and one line of each sub-command."""

cli = click.version_option(__version__, prog_name="flyball")(LazyGroup(COMMANDS))


def main() -> None:
    """Run the command; a Flyball error ends it with one line and exit code 2."""
    # What went wrong is said once, by us: libraries' own log lines would only surround it.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A name need not be text that the terminal's encoding has: it is shown escaped, not as a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FlyballError as error:
        click.echo(f"flyball: {error}", err=True)
        sys.exit(BAD_INPUT)
    except UnicodeEncodeError as error:
        # A path may be any bytes; what goes to a controller is text.
        click.echo(f"flyball: {error.object!r} is not UTF-8", err=True)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        click.echo("flyball: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Who read our output has read enough, as `head` does; flushing it at exit would only complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)

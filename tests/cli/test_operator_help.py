"""Help and completions of every command: there, with examples, and quick."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from cli_calls import Answer, installed
from flyball_cli.main import COMMANDS, cli

Flyball = Callable[..., Answer]

OPERATORS = ("explain", "mode", "override", "pause", "policy", "rebase", "resume", "status", "watch", "completions")
HEAVY = ("numpy", "grpc", "aiohttp", "aiokafka", "matplotlib", "rich", "yaml")


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def test_every_command_has_help() -> None:
    """A line in its group, words of its own, and words for each option."""
    for path, command in _commands(cli):
        assert command.help, path
        assert command.get_short_help_str(), path
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (path, option.name)


def test_operators_commands_show_examples(flyball: Flyball) -> None:
    """Each is shown how it is called, by name."""
    for path, command in _commands(cli):
        if path[0] in OPERATORS and not isinstance(command, click.Group):
            text = flyball(*path, "--help").out
            assert f"flyball {' '.join(path)}" in text.partition("Example")[2], path


def test_every_line_of_the_root_fits(flyball: Flyball) -> None:
    """One line a command, none of them cut."""
    text = flyball("--help").out

    for name, (_, _, line) in COMMANDS.items():
        assert name in text
        assert line in text


def test_help_of_the_root_loads_nothing_heavy() -> None:
    """Neither numpy nor gRPC is imported to print the list of commands."""
    script = (
        "import sys; sys.argv = ['flyball', '--help']\n"
        "from flyball_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert "[]" == done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("shell", "said"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete ")])
def test_completions_are_printed(flyball: Flyball, shell: str, said: str) -> None:
    """For each shell, its script; its words come from the command itself."""
    found = flyball("completions", shell)

    assert 0 == found.code
    assert said in found.out
    assert "_FLYBALL_COMPLETE" in found.out


def test_completions_complete(tmp_path: Path) -> None:
    """What the shell asks is answered: commands, their sub-commands, their options."""
    command = Path(sys.executable).with_name("flyball")

    def asked(*words: str) -> list[str]:
        environment = {
            **os.environ,
            "_FLYBALL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("flyball", *words)),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run([command], env=environment, capture_output=True, text=True, check=False, timeout=60)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert ["pause", "policy"] == asked("p")
    assert ["set"] == asked("override", "s")
    assert "--controller" in asked("status", "--c")
    assert ["observe"] == asked("mode", "chat", "o")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_script_of_bash_is_one(tmp_path: Path) -> None:
    """Bash reads it without a word."""
    file = tmp_path / "flyball.bash"
    file.write_text(installed("completions", "bash").out)

    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True, check=False, timeout=30)

    assert (0, "") == (done.returncode, done.stderr)

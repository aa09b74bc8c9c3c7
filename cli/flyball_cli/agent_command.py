"""`flyball agent`: the agent of one node as a service, or a look at what it could read there.

Reads one file and nothing of the environment. `--check` starts nothing and writes nothing.
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball_core.errors import Rejected
from flyball_service.config import AgentConfig, Config
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config
from flyball_service.running import run_until_signal

if TYPE_CHECKING:
    from flyball_agents.node.checking import AgentFound, GpuFound, PageFound

SCHEMA = "flyball.agent-check/1"
SOMETHING_MISSING = 1


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="Configuration file with a section `agent`.")
@click.option("--check", is_flag=True, help="Say what can be read on this node, and why not the rest; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON document (docs/commands.md).")
def agent(*, file: Path | None, check: bool, as_json: bool) -> int:
    """Read this node's GPUs and engines, and append what was read to the log.

    --check without a file looks at the GPUs alone. Its exit code is 1 if anything is missing.
    """
    if check:
        return _check(file, as_json=as_json)
    if as_json:
        raise click.UsageError("--json goes with --check")
    if file is None:
        raise click.UsageError("an agent needs --config FILE; only --check can do without")
    config = read_config(file)
    _section(config)
    configure_logs(config.logs, "agent")
    from flyball_agents.node.service import run_agent_service

    asyncio.run(run_until_signal(lambda stop: run_agent_service(config, stop)))
    return 0


def _section(config: Config) -> AgentConfig:
    if config.agent is None:
        raise Rejected(f"{config.file}: there is no section `agent`")
    return config.agent


def _check(file: Path | None, *, as_json: bool) -> int:
    from flyball_agents.node.checking import check_agent

    section = AgentConfig() if file is None else _section(read_config(file))
    with _quiet():
        found = asyncio.run(check_agent(section))
    click.echo(json.dumps(_document(found), indent=2) if as_json else "\n".join(_lines(found)))
    return 0 if found.ok else SOMETHING_MISSING
'''

"""`flyball up`: every service that a configuration file describes, in one process.

For a laptop, a test bench or a small node. Each service is what it is alone, with its own addresses, so that
it can be moved into a process of its own by starting it there. What one of them cannot survive ends all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import structlog

from flyball_core.errors import FlyballError, Rejected
from flyball_service.config import Config
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config
from flyball_service.running import refusal_in, run_until_signal

Run = Callable[[Config, asyncio.Event], Awaitable[None]]


async def _controller(config: Config, stop: asyncio.Event) -> None:
    from flyball_controller.serving import run_controller

    await run_controller(config, stop)


async def _agent(config: Config, stop: asyncio.Event) -> None:
    from flyball_agents.node.service import run_agent_service

    await run_agent_service(config, stop)


async def _gateway(config: Config, stop: asyncio.Event) -> None:
    from flyball_agents.gateway.serving import run_gateway_service

    await run_gateway_service(config, stop)


async def _twin(config: Config, stop: asyncio.Event) -> None:
    from flyball_twin.serving.service import run_twin

    await run_twin(config, stop)


def services_of(config: Config) -> dict[str, Run]:
    """The services that the file has sections for, by section. Raises `Rejected` if there is none."""
    every: dict[str, tuple[object, Run]] = {
        "controller": (config.controller, _controller),
        "twin": (config.twin, _twin),
        "agent": (config.agent, _agent),
        "gateway": (config.gateway, _gateway),
    }
    found = {name: run for name, (section, run) in every.items() if section is not None}
    if not found:
        raise Rejected(f"{config.file} has none of the sections {', '.join(every)}: there is nothing to start")
    return found


async def run_up(config: Config, stop: asyncio.Event) -> None:
    """Run them all until `stop` is set. Raises the `FlyballError` of the first that cannot go on."""
    services = services_of(config)
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, run in services.items():
                tasks.create_task(_run(name, run, config, stop))
    except BaseExceptionGroup as group:
        if (refusal := refusal_in(group)) is None:
            raise
        raise refusal from group


async def _run(name: str, run: Run, config: Config, stop: asyncio.Event) -> None:
    """One service; its log lines say which it is, and its error too."""
    structlog.contextvars.bind_contextvars(service=name)  # a task's context is its own
    try:
        await run(config, stop)
    except FlyballError as error:
        error.add_note(name)
        raise


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="Configuration file.")
def up(*, file: Path) -> int:
    r"""Run every service of a configuration file in one process, until interrupted.

    \b
    Example:
      flyball up --config flyball.yaml
    """
    config = read_config(file)
    services_of(config)
    configure_logs(config.logs, "up")
    asyncio.run(run_until_signal(lambda stop: run_up(config, stop)))
    return 0

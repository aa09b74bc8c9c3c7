"""`flyball gateway`: the small gateway as a service, until it is told to stop.

Reads one file and nothing of the environment. It serves whether or not a controller can be reached;
what is wrong in the file ends it at once.
"""

import asyncio
from pathlib import Path

import click

from flyball_cli.beginning import configured
from flyball_service.running import run_until_signal


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="Configuration file.")
def gateway(*, file: Path) -> int:
    """Spread OpenAI-compatible requests over a pool's engines, by weight, cap and lane."""
    config = configured(file, "gateway")
    from flyball_agents.gateway.serving import run_gateway_service

    asyncio.run(run_until_signal(lambda stop: run_gateway_service(config, stop)))
    return 0

"""`flyball controller`: the controller as a service, until it is told to stop.

Reads one file and nothing of the environment. Waits for whatever is not there yet, and says so; what is
wrong in the file ends it at once.
"""

import asyncio
from pathlib import Path

import click

from flyball_cli.beginning import configured
from flyball_service.running import run_until_signal


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="Configuration file.")
def controller(*, file: Path) -> int:
    """Decide, push, and serve operators; with an embedded log also take what agents append."""
    config = configured(file, "controller")
    from flyball_controller.serving import run_controller

    asyncio.run(run_until_signal(lambda stop: run_controller(config, stop)))
    return 0

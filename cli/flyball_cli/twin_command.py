"""`flyball twin`: simulated fleets, and small engines with real doors, to develop against without a GPU."""

import asyncio
from pathlib import Path

import click
from click.core import ParameterSource

from flyball_cli.twin_calibrate import calibrate
from flyball_cli.twin_check import check
from flyball_cli.twin_run import run
from flyball_cli.twin_validate import validate
from flyball_core.errors import Rejected
from flyball_service.config import Config, LogFormat, LogsConfig, TwinConfig, TwinEngineConfig
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config
from flyball_service.running import run_until_signal

MOST_ENGINES = 16
"""Engines of a try-out: one process carries no more at real time."""
LAST_PORT = 65_535


@click.group()
def twin() -> None:
    """Simulated fleets: play scenarios and check them, hold the twin against measurements, serve small engines."""


twin.add_command(check)
twin.add_command(calibrate)
twin.add_command(run)
twin.add_command(validate)


@twin.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="Configuration file with a section `twin`.")
@click.option("--engines", type=click.IntRange(1, MOST_ENGINES), default=2, show_default=True, help="How many engines.")
@click.option(
    "--port", type=click.IntRange(0, LAST_PORT), default=8100, show_default=True, help="Of the first; 0: any."
)
@click.option("--pool", default="demo", show_default=True, help="The pool that they serve.")
@click.option(
    "--controllers",
    default="127.0.0.1:7460",
    show_default=True,
    metavar="HOST:PORT[,HOST:PORT...]",
    help="Controllers to attach to, on this machine; the engines serve without any.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path(".flyball") / "twin",
    show_default=True,
    help="Folder that keeps what receivers hold.",
)
@click.pass_context
def serve(
    context: click.Context, *, file: Path | None, engines: int, port: int, pool: str, controllers: str, state: Path
) -> int:
    """Serve small engines until interrupted: those of a configuration file, or a few on loopback to try things out."""
    if file is None:
        config = _try_out(engines, port, pool, controllers, state)
    else:
        _refuse_both(context)
        config = read_config(file)
    configure_logs(config.logs, "twin")
    asyncio.run(_serve(config, quiet=file is not None))
    return 0


async def _serve(config: Config, *, quiet: bool) -> None:
    from flyball_twin.serving.service import TwinAddresses, run_twin

    def say(addresses: TwinAddresses) -> None:
        if not quiet:
            for engine, address in addresses.engines.items():
                click.echo(f"{engine}: http://{address}/v1  metrics: http://{address}/metrics")

    await run_until_signal(lambda stop: run_twin(config, stop, started=say))


def _refuse_both(context: click.Context) -> None:
    """Raise `Rejected` if options of a try-out stand beside a file that says the same."""
    for name in ("engines", "port", "pool", "controllers", "state"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise Rejected(f"--{name} is for a try-out without a file; with --config the file says it")


def _try_out(engines: int, port: int, pool: str, controllers: str, state: Path) -> Config:
    if port and port + engines - 1 > LAST_PORT:
        raise Rejected(f"{engines} engines from port {port} on go beyond the last port, {LAST_PORT}")
    places = [port + index if port else 0 for index in range(engines)]
    return Config(
        file=Path("the command line"),
        state=state,
        logs=LogsConfig(format=LogFormat.TEXT),
        twin=TwinConfig(
            pool=pool,
            controllers=tuple(address for address in controllers.split(",") if address),
            engines=tuple(
                TwinEngineConfig(engine=f"engine-{index}", listen=f"127.0.0.1:{place}")
                for index, place in enumerate(places)
            ),
        ),
    )

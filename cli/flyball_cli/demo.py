"""`flyball demo`: two identical fleets serve the same requests, one of them governed."""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

import click
from click.core import ParameterSource
from rich.console import Console

from flyball_cli.demo_report import DemoResult, FleetResult, document, print_tables
from flyball_cli.live import PlainLines, Screen, Silent, View
from flyball_core.errors import Rejected
from flyball_log import Log, open_log
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings
from flyball_policies.presets import preset
from flyball_policies.reading import read_document
from flyball_twin.demo_scenario import DEMO, Scenario
from flyball_twin.fleet import Fleet
from flyball_twin.life import GOVERNED, Frames, Life
from flyball_twin.scoring import score, timeline

PARTITIONS = 1
"""Two small pools need no more, and one partition makes both fleets one story."""


class VirtualOptions(TypedDict):
    """The options of the demo in virtual time; the first goes with both."""

    as_json: bool
    log_where: str
    out: Path | None
    policy: Path | None
    until: float | None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option(
    "--log",
    "log_where",
    default="embedded",
    metavar="embedded|kafka://HOST:PORT[/PREFIX]",
    help="Where the log goes: the embedded log in the output folder, or a Kafka broker on loopback.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; default: .flyball/demo-DATE-TIME.")
@click.option("--policy", type=click.Path(path_type=Path), help="A policy document instead of the demo's own.")
@click.option("--until", type=float, metavar="SECONDS", help="Play only so much of the scenario (1056 s).")
@click.option("--live", is_flag=True, help="Instead: real processes, real time, real sockets, for --seconds.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="With --live: how long clients send.")
@click.option("--keep", type=click.Path(path_type=Path), help="With --live: keep configuration, log and lines here.")
@click.pass_context
def demo(
    context: click.Context, /, *, live: bool, seconds: float, keep: Path | None, **virtual: Unpack[VirtualOptions]
) -> int:
    """Two identical fleets of simulated engines serve the same real traffic; one is governed."""
    if not live:
        _refuse(context, ("seconds", "keep"), "goes with --live only")
        return _play_virtual(virtual)
    from flyball_cli.live_demo import run_live

    _refuse(context, ("log_where", "out", "policy", "until"), "does not go with --live")
    return run_live(seconds, keep, as_json=virtual["as_json"])


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Raise `Rejected` for an option of the other kind of demo that was given."""
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise Rejected(f"{option.opts[0]} {why}")


def _play_virtual(options: VirtualOptions) -> int:
    """Play the scenario in virtual time and print what came of it."""
    as_json, until = options["as_json"], options["until"]
    scenario = DEMO if until is None else DEMO.shortened(until)
    text = _policy_text(options["policy"])
    folder = _output_folder(options["out"])
    console = Console(stderr=as_json)
    result = asyncio.run(_run(scenario, text, folder, options["log_where"], console, as_json=as_json))
    _keep(result, folder)
    if as_json:
        click.echo(json.dumps(document(result), indent=2))
    else:
        print_tables(console, result)
        _say(console, f"Picture: {result.picture}\nLog: {result.log}")
        _say(console, f"Try: {sys.argv[0]} replay {result.log}\n     {sys.argv[0]} explain engine-1 --log {result.log}")
    return 0


def _policy_text(policy: Path | None) -> str:
    if policy is None:
        return preset("demo")
    try:
        text = policy.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot read the policy document {policy}: {error}") from error
    read_document(text, str(policy))
    return text


def _output_folder(out: Path | None) -> Path:
    folder = out or Path(".flyball") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Rejected(f"the output folder {folder} is not empty; name another with --out")
    except OSError as error:
        raise Rejected(f"cannot write to the output folder {folder}: {error.strerror or error}") from error
    return folder


async def _open_log(where: str, folder: Path) -> Log:
    """A new log: embedded, or fresh topics on a broker."""
    if where == "embedded":
        # A simulation that loses power is run again; it need not wait for the disk.
        settings = EmbeddedSettings(durability=Durability.OS)
        return EmbeddedLog.create(folder / "log", partitions=PARTITIONS, settings=settings)
    if not where.startswith("kafka://"):
        raise Rejected(f"--log {where}: say embedded, or kafka://HOST:PORT")
    from flyball_log.kafka import create_topics, settings_for

    if where.count("/") == 2:
        where = f"{where}/demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-{time.monotonic_ns() % 100_000:05d}"
    await create_topics(settings_for(where), partitions=PARTITIONS, replication=1, dev=True)
    return await open_log(where)


def _view(console: Console, *, as_json: bool) -> View:
    if as_json:
        return Silent()
    return Screen(console) if console.is_terminal and sys.stdout.isatty() else PlainLines(console)


async def _run(
    scenario: Scenario, text: str, folder: Path, log_where: str, console: Console, *, as_json: bool
) -> DemoResult:
    began = time.monotonic()
    log = await _open_log(log_where, folder)
    if not as_json:
        _say(console, f"Playing {scenario.end_s:.0f} s of traffic on two fleets; the log: {log.where}")
    view = _view(console, as_json=as_json)
    try:
        life = Life(log, scenario, text, folder)
        frames = await _play(life, scenario, view)
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.close()
        _say(console, f"\nStopped. The log up to here: {log.where}")
        raise
    finally:
        view.close()
        await log.close()
    return DemoResult(
        scenario=scenario,
        fleets={str(pool): _scored(life, fleet, scenario) for pool, fleet in life.fleets.items()},
        observed=life.observed,
        governed=str(GOVERNED),
        frames=frames,
        log=log.where,
        picture=str(folder / "timeline.png"),
        wall_s=time.monotonic() - began,
    )


async def _play(life: Life, scenario: Scenario, view: View) -> Frames:
    """Beat by beat to the scenario's end."""
    await life.start()
    while life.clock.now_s < scenario.end_s:
        scene, news = await life.beat()
        view.show(scene, news)
        await asyncio.sleep(0)  # let an interrupt through between two beats
    return await life.finish()


def _scored(life: Life, fleet: Fleet, scenario: Scenario) -> FleetResult:
    """One fleet's figures: of all requests, by lane, by phase, by minute."""
    requests, outcomes, slos, end_s = life.requests, fleet.outcomes, scenario.slos, scenario.duration_s
    by_lane = {slo.lane: [request for request in requests if request.lane == slo.lane] for slo in slos}
    return FleetResult(
        score=score(requests, outcomes, slos, to_s=end_s),
        lanes={lane: score(mine, outcomes, slos, to_s=end_s) for lane, mine in by_lane.items()},
        phases={
            phase.name: score(requests, outcomes, slos, from_s=phase.from_s, to_s=phase.to_s)
            for phase in scenario.phases
        },
        timeline=timeline(requests, outcomes, slos, to_s=end_s),
    )


def _say(console: Console, line: str) -> None:
    """A line with a path in it: never wrapped, never coloured."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _keep(result: DemoResult, folder: Path) -> None:
    """Write picture and document beside the log."""
    from flyball_cli.picture import draw

    draw(result, folder / "timeline.png")
    (folder / "result.json").write_text(json.dumps(document(result), indent=2) + "\n", encoding="utf-8")

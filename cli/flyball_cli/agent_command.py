"""`flyball agent`: the agent of one node as a service, or a look at what it could read there.

Reads one file and nothing of the environment. `--check` starts nothing and writes nothing.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball_cli.beginning import configured
from flyball_core.errors import Rejected
from flyball_service.config import AgentConfig, Config, GpuSource, LogFormat, LogsConfig
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
    config = configured(file, "agent")
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
    # What went wrong is what is printed; log lines of warnings would only say it twice.
    configure_logs(LogsConfig(level="error", format=LogFormat.TEXT), "agent")
    found = asyncio.run(check_agent(section))
    click.echo(json.dumps(_document(found), indent=2) if as_json else "\n".join(_lines(found)))
    return 0 if found.ok else SOMETHING_MISSING


def _document(found: "AgentFound") -> dict[str, Any]:
    gpus = found.gpus
    return {
        "schema": SCHEMA,
        "agent": found.agent,
        "ok": found.ok,
        "gpus": {
            "source": gpus.source.value,
            "trouble": gpus.trouble,
            "remedy": gpus.remedy,
            "absent": [{"gpu": index, "why": why} for index, why in gpus.absent],
            "read": [_gpu_document(gpu) for gpu in gpus.gpus],
        },
        "pages": [_page_document(page) for page in found.pages],
    }


def _gpu_document(gpu: "GpuFound") -> dict[str, Any]:
    values = [
        {
            "value": one.value,
            "source": one.source,
            "number": one.number,
            "missing": one.missing,
            "remedy": one.remedy,
        }
        for one in gpu.values
    ]
    return {"gpu": gpu.gpu, "uuid": gpu.uuid, "model": gpu.model, "mig": gpu.mig, "values": values}


def _page_document(page: "PageFound") -> dict[str, Any]:
    return {
        "kind": page.kind,
        "id": page.id,
        "url": page.url,
        "trouble": page.trouble,
        "seconds": round(page.seconds, 6),
        "bytes": page.bytes,
        "parts": page.parts,
        "incarnation": page.incarnation,
        "found": list(page.found),
        "missing": [{"value": value, "why": why} for value, why in page.missing],
        "renamed": [{"value": value, "name": name} for value, name in page.renamed],
    }


def _lines(found: "AgentFound") -> Iterator[str]:
    gpus = found.gpus
    if gpus.source is not GpuSource.NVML:
        yield "GPUs: not to be read"
    elif gpus.trouble:
        yield _with_remedy(f"GPUs: none can be read: {gpus.trouble}", gpus.remedy)
    elif not gpus.gpus:
        yield "GPUs: none"
    for index, why in gpus.absent:
        yield f"GPU {index}: not read: {why}"
    for gpu in gpus.gpus:
        yield from _of_gpu(gpu)
    for page in found.pages:
        yield from _of_page(page)
    yield "nothing is missing" if found.ok else "something is missing"


def _of_gpu(gpu: "GpuFound") -> Iterator[str]:
    yield f"GPU {gpu.gpu}: {gpu.model or 'of unknown model'}, {gpu.uuid or 'without UUID'}{', MIG' if gpu.mig else ''}"
    for one in gpu.values:
        if one.missing:
            yield _with_remedy(f"  {one.value:<22} missing: {one.missing}  ({one.source})", one.remedy)
        else:
            yield f"  {one.value:<22} {one.number:<16g} ({one.source})"


def _of_page(page: "PageFound") -> Iterator[str]:
    who = f"{page.kind} {page.id}: {page.url}"
    if page.trouble:
        yield f"{who}: nothing is taken: {page.trouble} ({page.seconds * 1e3:.0f} ms)"
        return
    parts = f"{page.parts} {'ranks' if page.kind == 'engine' else 'lanes'}"
    yield f"{who}: {page.bytes / 1e3:.1f} kB in {page.seconds * 1e3:.0f} ms, {parts}, {len(page.found)} values"
    for value, why in page.missing:
        yield f"  {value:<22} missing: {why}"
    for value, name in page.renamed:
        yield f"  {value:<22} under an older name: {name}"


def _with_remedy(line: str, remedy: str) -> str:
    return f"{line}\n    {remedy}" if remedy else line

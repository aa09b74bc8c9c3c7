"""One node's agent with a driver that stands in, as a process of its own: what `flyball bench plane` measures.

The service, pynvml and all of Flyball are the real ones; only libnvidia-ml is in memory, for a machine to measure
on need not have eight GPUs. Takes the configuration file and the number of GPUs.
"""

import asyncio
import sys
from pathlib import Path

from flyball_agents.node.service import run_agent_service
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config
from flyball_service.running import run_until_signal
from flyball_twin.stand_ins.nvml import StandInGpu, StandInNvml, installed


def main() -> None:
    """Run the agent until a signal ends it."""
    config, count = read_config(Path(sys.argv[1])), int(sys.argv[2])
    configure_logs(config.logs, "agent")
    library = StandInNvml(*(StandInGpu(uuid=b"GPU-%08x" % number) for number in range(count)))
    with installed(library):
        asyncio.run(run_until_signal(lambda stop: run_agent_service(config, stop)))

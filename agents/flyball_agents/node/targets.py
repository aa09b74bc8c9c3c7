"""Which pages an agent reads, and what reads each of them."""

from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.gateway_page import GatewayReader
from flyball_agents.node.scraping import PageReader
from flyball_core.errors import Rejected
from flyball_core.ids import BootId
from flyball_service.config import AgentConfig


def page_readers(section: AgentConfig, boot: BootId) -> list[tuple[str, PageReader]]:
    """What reads the page of each engine and gateway, with the page's URL. Raises `Rejected` for a name used twice."""
    for what, names in (
        ("engine", [one.engine for one in section.engines]),
        ("gateway", [one.gateway for one in section.gateways]),
    ):
        if twice := {name for name in names if names.count(name) > 1}:
            raise Rejected(f"agent: {what} {', '.join(sorted(twice))} is there more than once")
    return [
        *((engine.metrics, EngineReader(engine, boot)) for engine in section.engines),
        *((gateway.metrics, GatewayReader(gateway, boot)) for gateway in section.gateways),
    ]

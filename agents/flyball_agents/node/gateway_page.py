"""From a gateway's page to samples, one per lane.

The names are those of Flyball's own small gateway. A gateway that does not tell lanes apart gives
one sample without a lane.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from prometheus_client.samples import Sample

from flyball_agents.node.engine_names import PROCESS_START
from flyball_agents.node.incarnations import Incarnations
from flyball_agents.node.pages import (
    ABSENT,
    FOREIGN,
    WRONG_GATEWAY,
    PageParser,
    PageRefused,
    number_fault,
    number_of,
    process_start,
)
from flyball_agents.sampling import PooledGateway, Reading
from flyball_core.frames import GATEWAY_NUMBERS, GatewaySample
from flyball_core.ids import BootId, GatewayId, PoolId
from flyball_service.config import ScrapedGateway

MOST_LANES = 64
"""A page with more lanes is not believed."""

INFO = "flyball_gateway_info"
NAMES = {
    "flyball_gateway_requests_queued": "requests_queued",
    "flyball_gateway_requests_in_flight": "requests_in_flight",
    "flyball_gateway_requests_total": "requests_total",
    "flyball_gateway_queue_seconds_sum": "queue_s_sum",
    "flyball_gateway_queue_seconds_count": "queue_count",
}
"""Values of a gateway sample by their names on the page; `lane` tells lanes apart."""

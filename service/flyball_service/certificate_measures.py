"""When certificates expire, for `/metrics`: of what a service shows and trusts, towards controllers and brokers."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball_log.opening import is_kafka
from flyball_service.config import Config
from flyball_service.expiry import Expiry
from flyball_service.tls import Tls

LOOK_EVERY_S = 3600.0
"""How often certificates are looked at where nothing else does."""


def expiries_of(config: Config, tls: Tls | None) -> dict[str, Expiry]:
    """What a service has certificates for: `grpc`, `kafka`."""
    found = {} if tls is None else {"grpc": tls.expiry}
    folder = config.kafka.tls_folder if config.kafka is not None and is_kafka(config.log) else None
    if folder is not None:
        found["kafka"] = Expiry(folder)
    return found


async def watch_expiry(expiries: Iterable[Expiry]) -> None:
    """Warn in time, until cancelled."""
    watched = list(expiries)
    while True:
        for one in watched:
            one.now()
        await asyncio.sleep(LOOK_EVERY_S)


class CertificateMeasures(Collector):
    """The moments of expiry of one service (`controller`, `agent`, ...); register it with its registry."""

    def __init__(self, service: str, expiries: Mapping[str, Expiry]) -> None:
        self._service = service
        self._expiries = expiries

    def collect(self) -> Iterator[Metric]:
        """The gauge, by the files as they are now; empty without certificates."""
        gauge = GaugeMetricFamily(
            f"flyball_{self._service}_certificate_expires_seconds",
            "Unix time at which a certificate that is shown, or the authority that is trusted, expires.",
            labels=("used_for", "certificate"),
        )
        for used_for, expiry in self._expiries.items():
            own_s, authority_s = expiry.now()
            for certificate, ends_s in (("own", own_s), ("authority", authority_s)):
                if ends_s is not None:
                    gauge.add_metric((used_for, certificate), ends_s)
        yield gauge

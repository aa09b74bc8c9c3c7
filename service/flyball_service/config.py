"""The configuration of a service: one YAML file, as frozen dataclasses.

Each key is a field, and each field's docstring is what `flyball config explain` prints, so
the file's documentation cannot drift from what is read. A section that is absent is None: that
service cannot be started from this file. Nothing is read from the environment.

In a field's metadata, `example` is what `flyball config example` writes for a key that must be
given; `shown` makes it write a list that need not be.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

from flyball_service.forms import Address, HttpAddress, LogName, Name, OneOf, Url, Within

TRUST_DOMAIN = "flyball"
"""The SPIFFE trust domain of certificates, unless another one is configured."""


class LogFormat(Enum):
    """How log lines are written."""

    JSON = "json"
    TEXT = "text"


class GpuSource(Enum):
    """Where an agent reads GPUs."""

    NVML = "nvml"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Certificate files in cert-manager's layout. `tls: none` stands for plaintext, which loopback alone may have."""

    folder: Path = field(metadata={"example": "certs"})
    """Folder that holds `tls.crt`, `tls.key` and `ca.crt` (PEM), relative to this file; where several services
    share the file, the folder ROLE-NAME in it, such as `agent-node-7`, goes before the folder itself."""
    trust_domain: Name = TRUST_DOMAIN
    """The trust domain of the SPIFFE ids (`spiffe://DOMAIN/ROLE/NAME`) that certificates carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig:
    """What a service says of itself, on standard error."""

    level: Annotated[str, OneOf(("debug", "info", "warning", "error"))] = "info"
    """Least level written: `debug`, `info`, `warning` or `error`."""
    format: LogFormat = LogFormat.JSON
    """`json`, one object a line, or `text` for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """How to connect to the brokers that `log` names; without it the connection is plain, on loopback only."""

    tls_folder: Path | None = None
    """Folder that holds `tls.crt`, `tls.key` and `ca.crt` for the brokers; only `ca.crt` where SASL says who we are."""
    sasl_mechanism: Annotated[str, OneOf(("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))] = ""
    """`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty for none."""
    sasl_username: Name = ""
    """User name for SASL."""
    sasl_password_file: Path | None = None
    """File that holds the password for SASL, so that no secret stands in this file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """`flyball controller`: steps, pushes, serves operators and, with an embedded log, appends."""

    name: Name = ""
    """Name of this controller in claims, unique among controllers; the host's name if empty."""
    listen: Address = "127.0.0.1:7460"
    """HOST:PORT of the gRPC door for agents, receivers and operators."""
    http: HttpAddress = "127.0.0.1:7461"
    """HOST:PORT of `/metrics`, `/live` and `/ready`."""
    tick_s: Annotated[float, Within(0.1, 5.0)] = 1.0
    """Seconds between the owner's ticks, written as a duration (`1s`)."""
    partitions: Annotated[int, Within(1, 1024)] = 1
    """Partitions of an embedded log that is made at the first start; frozen from then on."""
    create_log: bool = True
    """Make the embedded log at the first start if its folder holds none. Kafka's topics are never made here:
    `flyball topics create` does that."""
    policies: dict[str, Path] = field(default_factory=dict)
    """Policy document by pool, put on record at a start if the pool has none in force yet; later changes are
    `flyball policy apply`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolConfig:
    """Where an agent keeps what it could not send yet."""

    megabytes: Annotated[float, Within(1, 1_000_000)] = 64.0
    """Most megabytes on disk; beyond it the oldest frames are dropped, and counted."""
    age_s: Annotated[float, Within(1.0, 31_622_400.0)] = 86_400.0
    """Frames older than this are dropped, and counted; written as a duration (`24h`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapedEngine:
    """One engine whose Prometheus page an agent reads."""

    engine: Name = field(metadata={"example": "engine-0"})
    """The engine's id: stable over restarts, never a pod's random name."""
    pool: Name = field(metadata={"example": "chat"})
    """The pool that it belongs to."""
    metrics: Url = field(metadata={"example": "http://127.0.0.1:8000/metrics"})
    """URL of its Prometheus page, such as `http://127.0.0.1:8000/metrics`."""
    gpus: tuple[Annotated[int, Within(0, 1023)], ...] = ()
    """NVML indices of the GPUs that it runs on."""
    variant: Name = ""
    """The restart-class configuration that it runs, as the policy document names it."""
    model: Name = ""
    """The `model_name` its page must carry; another one is a page of another engine, and is not taken. Empty: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapedGateway:
    """One gateway whose Prometheus page an agent reads."""

    gateway: Name = field(metadata={"example": "gateway-0"})
    """The gateway's id."""
    pool: Name = field(metadata={"example": "chat"})
    """The pool that it spreads work of."""
    metrics: Url = field(metadata={"example": "http://127.0.0.1:7465/metrics"})
    """URL of its Prometheus page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`flyball agent`: reads this node's GPUs and engines and appends what it read to the log."""

    name: Name = ""
    """Name of this agent, stable over restarts; the host's name if empty."""
    http: HttpAddress = "127.0.0.1:7463"
    """HOST:PORT of `/metrics`, `/live` and `/ready`."""
    period_s: Annotated[float, Within(0.1, 60.0)] = 1.0
    """Seconds between samples, written as a duration (`1s`)."""
    scrape_timeout_s: Annotated[float, Within(0.01, 60.0)] = 1.0
    """Longest time for one page, written as a duration; a slower one counts as missing."""
    controllers: tuple[Address, ...] = ("127.0.0.1:7460",)
    """HOST:PORT of controllers that take appends, where `log` is no Kafka; unused with Kafka."""
    gpus: GpuSource = GpuSource.NVML
    """`nvml`, or `none` on a node whose GPUs are not to be read."""
    spool: SpoolConfig = field(default_factory=SpoolConfig)
    """What is kept while the log cannot be reached."""
    engines: tuple[ScrapedEngine, ...] = field(default=(), metadata={"shown": True})
    """The engines of this node."""
    gateways: tuple[ScrapedGateway, ...] = ()
    """Gateways that this agent watches; each is watched by one agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedEngine:
    """One engine behind the small gateway."""

    engine: Name = field(metadata={"example": "engine-0"})
    """The engine's id, as its receiver attaches."""
    url: Url = field(metadata={"example": "http://127.0.0.1:8000"})
    """Base URL of its OpenAI-compatible server, such as `http://127.0.0.1:8000`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneConfig:
    """A lane's place in the gateway's queue until a routing table says otherwise."""

    lane: Name = field(metadata={"example": "realtime"})
    """The lane's name, as requests declare it."""
    priority: Annotated[int, Within(-1000, 1000)] = 0
    """Lower goes first."""
    max_wait_s: Annotated[float, Within(0.001, 524.0)] = 60.0
    """Longest wait in the queue, written as a duration (`60s`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """`flyball gateway`: a small OpenAI-compatible proxy that can do what HAProxy can, for one pool."""

    pool: Name = field(metadata={"example": "chat"})
    """The pool whose engines it fronts."""
    name: Name = ""
    """Name of this gateway; the host's name if empty."""
    listen: Address = "127.0.0.1:8080"
    """HOST:PORT that clients send requests to."""
    http: HttpAddress = "127.0.0.1:7465"
    """HOST:PORT of `/metrics`, `/live` and `/ready`."""
    controllers: tuple[Address, ...] = ("127.0.0.1:7460",)
    """HOST:PORT of controllers to attach to; it serves without any."""
    engines: tuple[RoutedEngine, ...] = field(default=(), metadata={"shown": True})
    """The engines behind it."""
    lanes: tuple[LaneConfig, ...] = (LaneConfig(lane="realtime"), LaneConfig(lane="bulk", priority=10))
    """The lanes it knows; a request of no known lane goes to the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinEngineConfig:
    """One small engine."""

    engine: Name = field(metadata={"example": "engine-0"})
    """The engine's id."""
    listen: Address = field(metadata={"example": "127.0.0.1:8000"})
    """HOST:PORT of its OpenAI-compatible server, which also serves `/metrics`."""
    variant: Name = "graphs"
    """The kernel variant that it starts with."""
    speed: Annotated[float, Within(0.01, 1.0)] = 1.0
    """HBM bandwidth of its GPU relative to the model's; 0.4 stands for a GPU that lost 60 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinConfig:
    """`flyball twin serve`: small engines with real doors, at real time."""

    pool: Name = field(metadata={"example": "chat"})
    """The pool that they serve."""
    controllers: tuple[Address, ...] = ("127.0.0.1:7460",)
    """HOST:PORT of controllers to attach to; they serve without any."""
    model: Name = "flyball-twin"
    """Name of the model that they serve, as clients ask for it and as metrics carry it."""
    relaunch_s: Annotated[float, Within(0.05, 3600.0)] = 10.0
    """How long an engine is down when it is relaunched, written as a duration (`10s`)."""
    engines: tuple[TwinEngineConfig, ...] = field(default=(), metadata={"shown": True})
    """The engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole file."""

    file: Path = field(metadata={"key": False})
    """Where it was read from; not a key."""
    log: LogName = "log"
    """The log: a folder (embedded), relative to this file, or `kafka://HOST:PORT[,HOST:PORT...]/PREFIX`."""
    state: Path = Path("state")
    """Folder where services keep what outlives them: spools, what receivers hold. Relative to this file."""
    tls: TlsConfig | None = None
    """Certificates for every gRPC port and connection; `none` for plaintext between loopback addresses."""
    kafka: KafkaConfig | None = None
    """How to connect to Kafka."""
    logs: LogsConfig = field(default_factory=LogsConfig)
    """Log lines."""
    controller: ControllerConfig | None = None
    """A controller."""
    agent: AgentConfig | None = None
    """A node agent."""
    gateway: GatewayConfig | None = None
    """A small gateway."""
    twin: TwinConfig | None = None
    """Small engines."""

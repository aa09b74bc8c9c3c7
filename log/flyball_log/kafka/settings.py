"""How to reach a Kafka cluster and how long to wait for it.

Secrets are named by file, never held here. Plain connections are refused beyond loopback.
"""

from dataclasses import dataclass, replace

from flyball_core.addresses import is_loopback
from flyball_core.errors import Rejected
from flyball_log.interface import Topic
from flyball_log.opening import parse_kafka

DEFAULT_PREFIX = "flyball"
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PREFIX_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_PREFIX_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """How to reach a cluster. Raises `Rejected` at construction if it cannot work or is not safe."""

    bootstrap: tuple[str, ...]
    """Brokers to ask first, each HOST:PORT."""
    prefix: str = DEFAULT_PREFIX
    """The topics are PREFIX.inputs, PREFIX.decisions, PREFIX.directives, PREFIX.state, PREFIX.meta."""
    security_protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; those without TLS on loopback only."""
    sasl_mechanism: str = "SCRAM-SHA-512"
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; used with SASL only."""
    username: str | None = None
    """SASL user."""
    password_file: str | None = None
    """File whose first line is the SASL password."""
    ca_file: str | None = None
    """PEM file with the certificate authority of the brokers; None: the system's."""
    cert_file: str | None = None
    """PEM file with this client's certificate, for mutual TLS."""
    key_file: str | None = None
    """PEM file with its key."""
    connect_timeout_s: float = 10.0
    """Longest wait for a broker when the log is opened or a connection is made anew."""
    append_timeout_s: float = 30.0
    """Longest wait for an append; then its caller gets `LogUnavailable`."""
    suspect_after_s: float = 8.0
    """A producer that has not delivered after so long is thrown away and made anew."""
    read_timeout_s: float = 10.0
    """Longest wait for records that are known to exist, or for a partition's offsets."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.bootstrap:
            raise Rejected("Kafka settings name no broker")
        if not self.prefix or len(self.prefix) > _PREFIX_LENGTH or not _PREFIX_CHARACTERS.issuperset(self.prefix):
            raise Rejected(f"topic prefix {self.prefix!r}: letters, digits, dot, dash and underscore, at most 200")
        if self.security_protocol not in _PROTOCOLS:
            raise Rejected(f"security protocol {self.security_protocol!r} is none of {', '.join(_PROTOCOLS)}")
        if self.sasl and self.sasl_mechanism not in _MECHANISMS:
            raise Rejected(f"SASL mechanism {self.sasl_mechanism!r} is none of {', '.join(_MECHANISMS)}")
        if self.sasl and not (self.username and self.password_file):
            raise Rejected(f"{self.security_protocol} needs a username and a password file")
        if bool(self.cert_file) != bool(self.key_file):
            raise Rejected("a client certificate needs its key file, and a key file its certificate")
        if not self.tls and not all(is_loopback(broker) for broker in self.bootstrap):
            raise Rejected(
                f"{self.security_protocol} to {', '.join(self.bootstrap)}: without TLS only loopback is allowed"
            )

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether the client shows a user name and a password."""
        return self.security_protocol.startswith("SASL")

    @property
    def where(self) -> str:
        """How a user names this log."""
        return f"kafka://{','.join(self.bootstrap)}/{self.prefix}"

    @property
    def meta_topic(self) -> str:
        """The topic with the log id."""
        return f"{self.prefix}.meta"

    @property
    def group(self) -> str:
        """The consumer group of the controllers."""
        return f"{self.prefix}-controllers"

    def topic(self, topic: Topic) -> str:
        """The name of a topic in Kafka."""
        return f"{self.prefix}.{topic.value}"


def settings_for(where: str, base: KafkaSettings | None = None) -> KafkaSettings:
    """The settings for `kafka://HOST:PORT[,...]/PREFIX`, with everything else as in `base`.

    Without /PREFIX the default one, or that of `base`. Raises `Rejected`.
    """
    brokers, prefix = parse_kafka(where)
    if base is None:
        return KafkaSettings(bootstrap=brokers, prefix=prefix or DEFAULT_PREFIX)
    return replace(base, bootstrap=brokers, prefix=prefix or base.prefix)

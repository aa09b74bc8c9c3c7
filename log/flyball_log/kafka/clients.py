"""Kafka clients made from the settings, and what their errors mean to Flyball.

With `credentials` the only module that reads certificates and passwords.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from ssl import SSLContext, SSLError
from typing import TypedDict

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from flyball_core.errors import Fatal, LogUnavailable
from flyball_log.kafka.credentials import CredentialFiles, RenewedContext
from flyball_log.kafka.settings import KafkaSettings

REQUEST_MS = 5000
"""Longest wait for the answer to one request."""
_STOP_S = 3.0
_RETRY_MS = 500
"""Pause of a reader whose broker is away; the client logs every attempt."""
FETCH_BYTES = 1024 * 1024
"""Most bytes that a consumer fetches at once."""

FORBIDDEN = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
"""What waiting cannot heal: the broker knows who asks and says no."""


class Connection(TypedDict):
    """What every client is told about how to connect."""

    bootstrap_servers: list[str]
    security_protocol: str
    ssl_context: SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    request_timeout_ms: int


def connection(settings: KafkaSettings) -> Connection:
    """How to connect: the password as it is now, certificates as they are when a connection is made.

    Raises `Fatal`, with its name, if a file cannot be used.
    """
    context, password = None, None
    shown = (settings.ca_file, settings.cert_file, settings.key_file) if settings.tls else ()
    files = [file for file in (*shown, settings.password_file if settings.sasl else None) if file]
    for file in files:
        _must_open(file)
    try:
        if settings.tls:
            context = RenewedContext.of(CredentialFiles(settings.ca_file, settings.cert_file, settings.key_file))
        if settings.sasl and settings.password_file:
            password = Path(settings.password_file).read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, SSLError, UnicodeError) as error:
        raise Fatal(f"Kafka credentials cannot be used: {error}, in {' or '.join(files)}") from error
    return Connection(
        bootstrap_servers=list(settings.bootstrap),
        security_protocol=settings.security_protocol,
        ssl_context=context,
        sasl_mechanism=settings.sasl_mechanism if settings.sasl else "PLAIN",
        sasl_plain_username=settings.username,
        sasl_plain_password=password,
        request_timeout_ms=REQUEST_MS,
    )


def _must_open(file: str) -> None:
    """Raise `Fatal` unless the file can be opened: TLS's own error would not name it."""
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise Fatal(f"Kafka credentials cannot be read: {file}: {error.strerror or error}") from error


class Consumer(AIOKafkaConsumer):
    """A consumer that can be stopped in any state."""

    async def end(self) -> None:
        """Stop within a few seconds.

        The client's own `stop` can hang without a broker, and can end with the cancellation of one of its
        tasks, which must not be taken for ours; then its connections are still open.
        """
        stopping = asyncio.create_task(self.stop())
        _, pending = await asyncio.wait([stopping], timeout=_STOP_S)
        if pending:
            stopping.cancel()
            await asyncio.wait([stopping])
        if stopping.cancelled() or stopping.exception() is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(self._client.close(), _STOP_S)


def make_consumer(settings: KafkaSettings) -> Consumer:
    """A consumer without a group, which never chooses an offset by itself."""
    return Consumer(
        **connection(settings),
        client_id="flyball-reader",
        enable_auto_commit=False,
        auto_offset_reset="none",
        retry_backoff_ms=_RETRY_MS,
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=FETCH_BYTES,
    )


def make_admin(settings: KafkaSettings) -> AIOKafkaAdminClient:
    """A client for topics and their settings."""
    return AIOKafkaAdminClient(**connection(settings), client_id="flyball-admin")


@contextmanager
def translated(settings: KafkaSettings, doing: str) -> Iterator[None]:
    """Turn the client's errors into Flyball's: `Fatal` if forbidden, else `LogUnavailable`.

    What is said about a record or an offset passes: its reader knows what it means.
    """
    try:
        yield
    except (CorruptRecordException, OffsetOutOfRangeError):
        raise
    except FORBIDDEN as error:
        raise Fatal(f"{settings.where}: not allowed to {doing}: {error}") from error
    except TimeoutError as error:
        raise LogUnavailable(f"{settings.where}: no answer in time, to {doing}") from error
    except (KafkaError, ConsumerStoppedError, OSError) as error:
        raise LogUnavailable(f"{settings.where}: cannot {doing}: {error}") from error

"""The part of aiokafka.helpers that Flyball uses."""

from ssl import SSLContext

def create_ssl_context(
    *,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    password: str | None = None,
) -> SSLContext: ...

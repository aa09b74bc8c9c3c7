"""Certificates shown to brokers, which may be renewed while a client lives.

A client of Kafka keeps one TLS context for all connections that it will ever make. This one makes each of them with the
files as they are then, so that renewed certificates need no new client; a connection that stands keeps what it began
with. Half-written files are not taken: the last good ones go on.
"""

import logging
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, MemoryBIO, SSLContext, SSLError, SSLObject, SSLSession, create_default_context
from typing import NamedTuple, Self

from flyball_core.file_marks import Marks, marks_of

_logger = logging.getLogger(__name__)


class CredentialFiles(NamedTuple):
    """PEM files: the brokers' authority (None: the system's), our own certificate and its key (None: we show none)."""

    ca: str | None
    cert: str | None
    key: str | None


class RenewedContext(SSLContext):
    """A context that follows its files. Make it with `of`."""

    _files: CredentialFiles
    _seen: Marks
    _present: SSLContext

    @classmethod
    def of(cls, files: CredentialFiles) -> Self:
        """A context of these files. Raises OSError or SSLError if they cannot be used."""
        made = cls(PROTOCOL_TLS_CLIENT)
        made._files = files
        made._seen = made._marks()
        made._present = _read(files)
        return made

    def wrap_bio(
        self,
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - Python's own signature
        server_hostname: str | bytes | None = None,
        session: SSLSession | None = None,
    ) -> SSLObject:
        """The TLS of one new connection, with the files as they are now."""
        self._renew()
        return self._present.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _renew(self) -> None:
        marks = self._marks()
        if marks == self._seen:
            return
        self._seen = marks
        try:
            self._present = _read(self._files)
        except (OSError, SSLError) as error:
            _logger.warning("renewed Kafka credentials are not taken: %s, in %s", error, self._named())
        else:
            _logger.info("Kafka credentials in %s are renewed", self._named())

    def _marks(self) -> Marks:
        return marks_of(Path(file) for file in self._files if file)

    def _named(self) -> str:
        return " or ".join(file for file in self._files if file)


def _read(files: CredentialFiles) -> SSLContext:
    """A context for one state of the files: authorities and purposes are checked, and the broker's host name."""
    context = create_default_context(cafile=files.ca)
    if files.cert and files.key:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(files.cert, files.key, password="")
    return context

"""Log lines on standard error: one constant event name and its fields, as JSON or as text.

Everything goes through structlog; what libraries say through `logging` comes out in the same form,
warnings and worse only, and a line that repeats itself once a minute at most, with a count.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

from flyball_service.config import LogFormat, LogsConfig

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
REPEAT_S = 60.0
"""A library's line is not written again before so long."""
_MOST_TEMPLATES = 1000

log = structlog.get_logger()


def configure_logs(config: LogsConfig, service: str) -> None:
    """Write log lines as `config` says, each with `service` and the time (UTC); replaces an earlier configuration."""

    def of_service(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            of_service,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.UnicodeDecoder(),
            *_rendering(config.format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[config.level]),
        # Not a stream kept from import time: what replaces standard error later is written to as well.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _route_libraries(time.monotonic)


def _rendering(form: LogFormat) -> list[structlog.typing.Processor]:
    if form is LogFormat.JSON:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")]


def _route_libraries(clock: Callable[[], float]) -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, FromLibraries)]:
        root.removeHandler(handler)
    root.addHandler(FromLibraries(clock))


class FromLibraries(logging.Handler):
    """Hands on what libraries log, from warnings up, each template once in `REPEAT_S` seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(level=logging.WARNING)
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as a line of ours, or count it."""
        template = (record.name, str(record.msg))
        now_s = self._clock()
        said_s, unsaid = self._said.get(template, (now_s - REPEAT_S, 0))
        if now_s - said_s < REPEAT_S:
            self._said[template] = (said_s, unsaid + 1)
            return
        if len(self._said) >= _MOST_TEMPLATES:
            self._said.clear()
        self._said[template] = (now_s, 0)
        fields: dict[str, Any] = {"library": record.name, "said": record.getMessage()}
        if unsaid:
            fields["repeated"] = unsaid
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("library_said", **fields)

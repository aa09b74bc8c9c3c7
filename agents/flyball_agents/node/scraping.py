"""Pages over HTTP, each bounded in size and in time, read in the background on a beat of its own.

A page that is too large, too slow or never ends is given up at the bound, its connection closed,
and nothing of it is taken. Compressed pages are neither asked for nor taken: what they would grow
to is not known before. Redirects are not followed: a page of somewhere else is not the page.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import aiohttp
import structlog

from flyball_agents.agent_loop import wait_for
from flyball_agents.beat import Beat
from flyball_agents.node.incarnations import Incarnations
from flyball_agents.node.newest import Newest
from flyball_agents.node.pages import MALFORMED, PageRefused
from flyball_agents.sampling import Reading
from flyball_core.errors import Rejected

MOST_PAGE_BYTES = 2_000_000
"""A larger page is refused: a vLLM page has about 50 kB per data-parallel rank."""

UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
STATUS = "status"
TOO_LARGE = "too_large"
ENCODED = "encoded"
RAISED = "raised"
"""Why there was no page at all."""

_OK = 200
_AWAY = frozenset({UNREACHABLE, TIMEOUT})

log = structlog.get_logger()


class Events(NamedTuple):
    """What the log calls the turns in a source's life."""

    unreachable: str
    refused: str
    values_missing: str
    back: str


EVENTS = {
    "engine": Events("engine_unreachable", "engine_page_refused", "engine_values_missing", "engine_back"),
    "gateway": Events("gateway_unreachable", "gateway_page_refused", "gateway_values_missing", "gateway_back"),
}


class PageReader(Protocol):
    """What makes samples of the pages of one source: an engine's or a gateway's."""

    kind: str
    id: str
    missing: Mapping[str, str]
    renamed: Mapping[str, str]
    missed: Counter[str]
    incarnations: Incarnations

    def read(self, page: bytes, now_s: float) -> Reading:
        """The reading of a page. Raises `PageRefused`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLimits:
    """What one page may cost."""

    timeout_s: float
    """Longest time from asking to the page's last byte."""
    most_bytes: int = MOST_PAGE_BYTES


def page_session() -> aiohttp.ClientSession:
    """The one client session for all pages of an agent; close it."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        headers={"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "flyball-agent"},
        cookie_jar=aiohttp.DummyCookieJar(),
        # Bounded by `PageLimits`; aiohttp's own limits would only blur the reason.
        timeout=aiohttp.ClientTimeout(total=None),
    )


async def fetch_page(session: aiohttp.ClientSession, url: str, limits: PageLimits) -> bytes:
    """The page at `url`, whole. Raises `PageRefused`; `Rejected` for a URL that cannot be asked for."""
    try:
        async with asyncio.timeout(limits.timeout_s), session.get(url, allow_redirects=False) as response:
            try:
                return await _body(response, limits.most_bytes)
            except BaseException:
                response.close()  # not back to the pool: the rest of the page is still coming
                raise
    except TimeoutError as error:
        raise PageRefused(TIMEOUT, f"not there after {limits.timeout_s:g} s") from error
    except aiohttp.InvalidURL as error:
        raise Rejected(f"{url!r} is no URL of a page") from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
        raise PageRefused(MALFORMED, "is no proper HTTP answer") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PageRefused(UNREACHABLE, _cause(error)) from error


async def _body(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    if response.status != _OK:
        raise PageRefused(STATUS, f"answered {response.status}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise PageRefused(ENCODED, "is compressed, which was not asked for")
    if response.content_length is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
        # Cut off between two lines it would look whole, and parts of a sum be missing.
        raise PageRefused(MALFORMED, "does not say where it ends")
    if (response.content_length or 0) > most_bytes:
        raise PageRefused(TOO_LARGE, f"is larger than {most_bytes} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise PageRefused(TOO_LARGE, f"is larger than {most_bytes} bytes")
    return bytes(body)


def _cause(error: Exception) -> str:
    """Why a page cannot be reached, without what changes from one attempt to the next."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host's name is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
    return "the connection was closed"


class PageSampler:
    """One page as a sampler: scraped on a beat, and what it showed handed over once."""

    def __init__(
        self, url: str, reader: PageReader, limits: PageLimits, *, took: Callable[[float], None] = lambda _: None
    ) -> None:
        """`took` is told how many seconds each scrape took, whatever came of it."""
        self.reader = reader
        self.url = url
        self.failures: Counter[str] = Counter()
        """How often nothing was taken, by reason."""
        self.scrapes = 0
        self.page_bytes = 0
        """Size of the last page that was taken."""
        self.trouble = "not scraped yet"
        """Why the last scrape gave nothing, in a word and a clause; empty if it gave something."""
        self._events = EVENTS[reader.kind]
        self._limits = limits
        self._took = took
        self._newest = Newest()
        self._reason = ""
        self._said_missing: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """What its troubles are counted under."""
        return f"{self.reader.kind} {self.reader.id}"

    def sample(self, now_s: float) -> Reading:
        """What was read since the last time; raises `NothingNew`."""
        del now_s
        return self._newest.take()

    async def scrape(self, session: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        """Ask for the page once and take what it shows; failures are counted, never raised."""
        began_s = clock()
        self.scrapes += 1
        try:
            page = await fetch_page(session, self.url, self._limits)
            self.take(page, clock())
        except PageRefused as error:
            self.refused(error)
        except Exception as error:  # noqa: BLE001 - the task's boundary: one source's surprise is its own trouble
            self.refused(PageRefused(RAISED, repr(error)))
        self._took(clock() - began_s)

    def take(self, page: bytes, now_s: float) -> None:
        """Take a page that was there at `now_s`. Raises `PageRefused`."""
        reading = self.reader.read(page, now_s)
        self.page_bytes = len(page)
        self._newest.put(reading)
        if self._reason:
            log.info(self._events.back, **self._who(), after=self._reason)
        self._reason = self.trouble = ""
        if self.reader.missing != self._said_missing:
            self._said_missing = self.reader.missing
            log.warning(self._events.values_missing, **self._who(), missing=dict(self._said_missing))

    def refused(self, error: PageRefused) -> None:
        """Count a scrape that gave nothing; said once until another reason comes."""
        self.failures[error.reason] += 1
        self.trouble = str(error)
        if error.reason != self._reason:
            self._reason = error.reason
            event = self._events.unreachable if error.reason in _AWAY else self._events.refused
            log.warning(event, **self._who(), reason=error.reason, detail=error.detail)

    def _who(self) -> dict[str, str]:
        return {self.reader.kind: self.reader.id, "url": self.url}


async def keep_scraping(
    sampler: PageSampler,
    session: aiohttp.ClientSession,
    *,
    stop: asyncio.Event,
    clock: Callable[[], float],
    period_s: float,
) -> None:
    """Scrape on a beat until `stop` is set; a beat that a slow page overran is not made up for."""
    beat = Beat(clock(), period_s)
    while not stop.is_set():
        await sampler.scrape(session, clock)
        await wait_for(stop, beat.next_in_s(clock()))

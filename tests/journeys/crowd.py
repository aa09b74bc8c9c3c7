"""Users of the fleet: a real HTTP client that keeps streams of OpenAI-compatible requests going."""

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp


@dataclass(slots=True)
class Tally:
    """What the users saw."""

    answered: int = 0
    failed: int = 0
    tokens: int = 0
    first_token_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of request."""

    lane: str
    prompt_words: int
    most_tokens: int
    users: int
    """Streams kept going at once."""


CHAT = Work(lane="realtime", prompt_words=60, most_tokens=60, users=10)
DOCUMENTS = Work(lane="bulk", prompt_words=5_000, most_tokens=80, users=10)


class Crowd:
    """Users that send one request after the other to `url` until they are told to do something else."""

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model
        self._users: list[asyncio.Task[None]] = []
        self.tally = Tally()

    async def do(self, *work: Work) -> None:
        """Stop what they do and do this instead; nothing at all without any."""
        for user in self._users:
            user.cancel()
        await asyncio.gather(*self._users, return_exceptions=True)
        self._users = [asyncio.create_task(self._user(kind, n)) for kind in work for n in range(kind.users)]

    async def _user(self, work: Work, number: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120.0)) as session:
            turn = 0
            while True:
                turn += 1
                try:
                    await self._ask(session, work, f"{number} {turn}")
                    self.tally.answered += 1
                except (aiohttp.ClientError, TimeoutError):
                    self.tally.failed += 1
                    await asyncio.sleep(0.5)

    async def _ask(self, session: aiohttp.ClientSession, work: Work, salt: str) -> None:
        asked = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"{salt} " + "word " * work.prompt_words}],
            "max_tokens": work.most_tokens,
            "stream": True,
        }
        began_s, first = time.monotonic(), True
        async with session.post(
            f"{self._url}/v1/chat/completions", json=asked, headers={"x-flyball-lane": work.lane}
        ) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                if first:
                    self.tally.first_token_s.append(time.monotonic() - began_s)
                    first = False
                self.tally.tokens += bool(json.loads(line[6:])["choices"])

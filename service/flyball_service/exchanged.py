"""Whether the log that is open is still the one that its name stands for.

A folder that is deleted under a living writer takes every append, and topics that were deleted and made anew
begin at offset 0 under the old names: nothing fails, and everything that was read is of another log. So the id
that stands there now is looked at again and again. Another one ends the service in one sentence; its next start goes
on with what is there. It refuses to take brokers that are away, or just back, for a log that is gone.
"""

import asyncio
from collections.abc import Awaitable, Callable

from flyball_core.errors import FlyballError, LogExchanged, NotALog
from flyball_core.ids import LogId
from flyball_log import Log, identify_log
from flyball_service.config import Config
from flyball_service.health import Health
from flyball_service.kafka import LOG, kafka_settings

LOOK_S = 5.0
"""Between two looks."""
GONE_LOOKS = 3
"""So many looks in a row that find no topics mean that they are gone: brokers just back may not know them yet."""


async def until_exchanged(config: Config, where: Log, health: Health) -> None:
    """Look until the log at `where` is another one, or gone; then raises `LogExchanged`."""
    settings = kafka_settings(config)
    gone_looks = 1 if settings is None else GONE_LOOKS
    await watch_id(where, lambda: identify_log(where.where, kafka=settings), health, gone_looks)


async def watch_id(where: Log, look: Callable[[], Awaitable[LogId]], health: Health, gone_looks: int) -> None:
    """The same with a `look` that raises as `identify_log`, and how many of them in a row say that there is none."""
    gone = 0
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            found = await look()
        except NotALog as error:
            gone += 1
            if gone == gone_looks:
                raise LogExchanged(f"the log {where.log_id} is gone: {error}") from error
            health.waits_for(LOG, f"{error}, and log {where.log_id} was there")
        except FlyballError:  # whoever needs the log says so itself
            continue
        else:
            if found != where.log_id:
                said = f"{where.where} was {where.log_id} and is {found} now"
                raise LogExchanged(f"the log was exchanged: {said}; start anew to go on with that")
            if gone:
                gone = 0
                health.has(LOG)

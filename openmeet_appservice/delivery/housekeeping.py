"""What is not kept for ever: delivered events, the tries to deliver them, secrets of before."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import StoreError
from openmeet_appservice.metrics import EVENTS_RELEASED
from openmeet_appservice.store import attempts, endpoints, retention
from openmeet_appservice.store.database import Database

ATTEMPTS_MS = 7 * 24 * 3600 * 1000
"""How long it is remembered what came of each try to deliver."""

INTERVAL = 3600.0
"""Seconds between two rounds."""

BREATH = 0.1
"""Seconds between two transactions that let events go: many may be old at once, and what comes in or goes out
meanwhile must not wait for them all."""

log = logging.getLogger(__name__)


async def keep_tidy(
    database: Database, *, keep_events: int, now: Now, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Drop what is too old, now and every `INTERVAL` seconds, until cancelled.

    Parameters
    ----------
    keep_events
        How long events stay in the log that nobody waits for, in milliseconds.
    now
        Milliseconds since the epoch.
    sleep
        Waits some seconds.
    """
    while True:
        try:
            await database.write(endpoints.forget_old_secrets, now=now())
            while await database.write(attempts.forget, before=now() - ATTEMPTS_MS):
                pass
            await release_events(database, before=now() - keep_events, sleep=sleep)
        except (StoreError, SQLAlchemyError) as error:
            log.warning("what is no longer needed could not be dropped: %s", type(error).__name__)
        await sleep(INTERVAL)


async def release_events(
    database: Database, *, before: int, sleep: Callable[[float], Awaitable[None]]
) -> int:
    """Let the events go that came in before *before* and that nobody needs; return how many.

    A round through all rooms, in small transactions with a pause behind each.
    """
    events, letters, after = 0, 0, None
    while True:
        page = await database.read(retention.find, before=before, after=after)
        left = page.rooms
        while left:
            released = await database.write(retention.release, left, before=before)
            EVENTS_RELEASED.inc(released.events)
            await sleep(BREATH)
            left, events, letters = (
                left[released.rooms :],
                events + released.events,
                letters + released.letters,
            )
        if page.last is None:
            break
        after = page.last
    if events:
        log.info("%d old events left the log, and %d dead letters with them", events, letters)
    return events

"""What the event log does not keep for ever."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import StoreError
from openmeet_appservice.metrics import HELD_DROPPED
from openmeet_appservice.store import event_log
from openmeet_appservice.store.database import Database

log = logging.getLogger(__name__)

HELD_MS = 24 * 3600 * 1000
"""How long events of unknown rooms are held."""

QUARANTINED_MS = 30 * 24 * 3600 * 1000
"""How long elements that are no events are kept."""

INTERVAL = 3600.0
"""Seconds between two rounds."""


async def keep_tidy(database: Database, *, now: Now, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Drop what is too old, now and every `INTERVAL` seconds, until cancelled.

    Parameters
    ----------
    now
        Milliseconds since the epoch.
    sleep
        Waits some seconds.
    """
    while True:
        try:
            await tidy(database, now=now())
        except (StoreError, SQLAlchemyError) as error:
            log.warning("old events could not be dropped, next try in an hour: %s", type(error).__name__)
        await sleep(INTERVAL)


async def tidy(database: Database, *, now: int) -> None:
    """Drop what is too old at *now* (milliseconds since the epoch)."""
    held, quarantined = await database.write(_forget, now)
    HELD_DROPPED.inc(held)
    if held:
        log.info("dropped %d events of rooms that nobody claimed", held)
    if quarantined:
        log.info("dropped %d elements from quarantine", quarantined)


def _forget(connection: Connection, now: int) -> tuple[int, int]:
    held = event_log.forget_held(connection, before=now - HELD_MS)
    return held, event_log.forget_quarantined(connection, before=now - QUARANTINED_MS)

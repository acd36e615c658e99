"""Keeping within ``webhooks.max_backlog`` what waits for an endpoint."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice import metrics
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import StoreError
from openmeet_appservice.store import truncation, waiting
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.dead_letters import Reason
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.ids import NewId

INTERVAL = 15.0
"""Seconds between two looks at what waits."""

SOON = 1.0
"""Seconds until the next look when too much waits in rooms that were being tried just then."""

log = logging.getLogger(__name__)


async def keep_bounded(
    database: Database, most: int, *, now: Now, new_id: NewId, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Drop the oldest of what waits for an endpoint beyond *most* events, now and then until cancelled.

    Parameters
    ----------
    now
        Milliseconds since the epoch.
    sleep
        Waits some seconds.
    """
    while True:
        within = True
        try:
            within = await bound(database, most, now=now, new_id=new_id)
        except (StoreError, SQLAlchemyError) as error:
            log.warning("what waits could not be kept within its bound: %s", type(error).__name__)
        await sleep(INTERVAL if within else SOON)


async def bound(database: Database, most: int, *, now: Now, new_id: NewId) -> bool:
    """Drop what waits for any endpoint beyond *most* events; False when there is more to drop later."""
    within = True
    for found in await database.read(waiting.more_than, most):
        within = await _bound_one(database, found.key, most, now, new_id) and within
    return within


async def _bound_one(database: Database, endpoint: EndpointKey, most: int, now: Now, new_id: NewId) -> bool:
    name, events, letters = "", 0, 0
    try:
        while True:
            done = await database.write(truncation.truncate, endpoint, most=most, now=now(), new_id=new_id)
            name, events, letters = done.name, events + done.events, letters + done.letters
            metrics.DELIVERY_TRUNCATED.inc(done.events)
            metrics.DEAD_LETTERS.labels(Reason.TRUNCATED.value).inc(done.letters)
            if not done.left or not done.events:
                return not done.left
    finally:
        if events:
            log.error(
                "delivery.truncated: webhook %s/%s does not get %d events (%d new dead letters): more than "
                "webhooks.max_backlog (%d) waited",
                endpoint[0] or "platform",
                name,
                events,
                letters,
                most,
            )

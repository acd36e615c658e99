"""What the metrics show of the database: read from time to time."""

from __future__ import annotations

from collections import Counter

from openmeet_appservice import metrics
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.store import endpoints, hints, lanes, repair, replay_queue
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import STATES


async def read_gauges(database: Database, now: Now) -> None:
    """Set the gauges to what the database says now; raises `DatabaseUnavailable`."""
    backlog = await database.read(lanes.backlog)
    metrics.DELIVERY_PARKED.set(backlog.parked)
    metrics.REPLAY_EVENTS.set(await database.read(replay_queue.queued_events))
    states = Counter(one.state for one in await database.read(endpoints.list_all))
    for state in STATES:
        metrics.ENDPOINTS.labels(state).set(states[state])
    metrics.REPAIR_OLDEST_CHECK.set(_age(await database.read(repair.oldest), now))
    metrics.DELIVERY_OLDEST_AGE.set(_age(backlog.oldest, now))
    hinted = await database.read(hints.waiting)
    metrics.HINTS_WAITING.set(hinted.number)
    metrics.HINTS_OLDEST_AGE.set(_age(hinted.oldest, now))


def _age(at: int | None, now: Now) -> float:
    """Return how many seconds have passed since *at*, 0 for None."""
    return 0 if at is None else max(0, now() - at) / 1000

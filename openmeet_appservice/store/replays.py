"""Replays: asking that an endpoint is sent again what its lanes have passed already.

What is asked for becomes rows of ``replays``, each a range of sequences for a lane, and the lane itself sends
them (`store.replay_parts`): nothing else changes in how a room is delivered. It may touch a hundred thousand
rooms, so it goes page by page::

    plan_page ──some rooms, and which of their events──▶ queue_page ──▶ replays, lanes due,
        ▲                                                    │          dead letters that are used: removed
        └───────────────── until no room is left ────────────┘

What a page needs of the log is read outside the transaction that queues it, and that is short. Cut off
anywhere, what was queued stays queued, and asking again adds the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.replay import Asked, Counts
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.replay_pages import RoomKey, count_rooms, plan_page
from openmeet_appservice.store.replay_queue import count_page, queue_page


@dataclass(frozen=True, slots=True)
class Progress:
    """How far `replay` has come: *seen* rooms were looked at of *total*, and what was queued."""

    seen: int
    total: int
    counts: Counts


async def replay(
    database: Database,
    endpoint: EndpointKey,
    asked: Asked,
    *,
    now: Now,
    new_id: NewId,
    dry_run: bool = False,
    on_page: Callable[[Progress], None] | None = None,
) -> Counts:
    """Queue everything that is asked for; return in how many rooms, and how many events.

    Repeating it is harmless: what is still queued is not queued or counted again, dead letters are used
    once, and what was missing is missing no more. Whoever calls it wakes ``deliver`` afterwards.

    Parameters
    ----------
    endpoint
        Who gets it. Where it is removed, or does not take a tenant's events any more, nothing is queued.
    dry_run
        Only count: nothing is changed.
    on_page
        Told after every page.

    Raises
    ------
    DatabaseUnavailable
        The database went away; what was queued stays queued.
    """
    total = 0 if on_page is None else await database.read(count_rooms, endpoint, asked)
    seen, counts = 0, Counts()
    after: RoomKey | None = None
    while page := await database.read(plan_page, endpoint, asked, after=after):
        if dry_run:
            counts += await database.read(count_page, endpoint, asked, page)
        else:
            counts += await database.write(queue_page, endpoint, asked, page, now=now(), new_id=new_id)
        seen, after = seen + page.seen, page.upto
        if on_page is not None:
            on_page(Progress(seen, total, counts))
    return counts

"""Lanes: how far each room has been delivered to each endpoint.

A lane is worked on by one worker at a time, and only one batch of it is under way, which is what keeps a
room's events in order. Storing an event makes an idle lane due; how many events there are to send, the room's
own row tells (``rooms.last_sequence``)::

    idle ──event──▶ due ──lease──▶ leased ──taken──▶ idle, or due at once when there is more
                     ▲               │
                     ├──── fail ─────┤   due at the next try
                     ├─ lease ends ──┘   the worker died; its late result is refused by the epoch
                     │               └──park──▶ parked: new events are kept, nothing is sent
                     └──────── the endpoint is changed ──────┘

While a lane is leased its ``due_at`` is the end of the lease, so that a dead worker's lanes come back by
themselves; any other value there says that the endpoint was changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select, tuple_, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.tables import lanes, room_events, rooms

EndpointKey: TypeAlias = tuple[str, str]
"""``(tenant, endpoint_ref)``."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane as it was found, or, with *epoch* and *until*, as it is leased.

    Parameters
    ----------
    acked
        The last sequence that the endpoint took.
    attempts
        How often the batch under way has failed.
    epoch
        The number of the lease; a result counts only while it is the newest.
    until
        The end of the lease (milliseconds since the epoch).
    """

    tenant: str
    endpoint_ref: str
    room_ref: str
    acked: int
    attempts: int
    epoch: int
    until: int

    @property
    def endpoint(self) -> EndpointKey:
        """The endpoint it leads to."""
        return self.tenant, self.endpoint_ref


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not been taken yet: *waiting* lanes, *parked* ones, and since when the oldest event waits.

    *oldest* is in milliseconds since the epoch, None where nothing waits.
    """

    waiting: int
    parked: int
    oldest: int | None


def next_due(connection: Connection, *, after: int | None = None) -> int | None:
    """Return when the next lane is due (milliseconds since the epoch), None when none is.

    Parameters
    ----------
    after
        Look only at what is due later than this.
    """
    query = select(func.min(lanes.c.due_at)).where(lanes.c.due_at.is_not(None))
    if after is not None:
        query = query.where(lanes.c.due_at > after)
    found: int | None = connection.execute(query).scalar_one()
    return found


def due(connection: Connection, *, now: int, limit: int, but: Collection[EndpointKey] = ()) -> list[Lane]:
    """Return up to *limit* due lanes, the longest due first, locked until the transaction ends.

    Parameters
    ----------
    but
        The endpoints whose lanes are passed over.
    """
    query = (
        select(
            lanes.c.tenant,
            lanes.c.endpoint_ref,
            lanes.c.room_ref,
            lanes.c.acked_sequence,
            lanes.c.attempts,
            lanes.c.lease_epoch,
        )
        .where(lanes.c.due_at <= now, or_(lanes.c.lease_until.is_(None), lanes.c.lease_until <= now))
        .order_by(lanes.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if but:
        query = query.where(tuple_(lanes.c.tenant, lanes.c.endpoint_ref).not_in(list(but)))
    return [Lane(*row, until=now) for row in connection.execute(query)]


def lease(connection: Connection, found: Sequence[Lane], *, until: int) -> list[Lane]:
    """Take the lanes that `due` returned, until *until* (milliseconds since the epoch)."""
    if not found:
        return []
    connection.execute(
        update(lanes)
        .where(
            lanes.c.tenant == bindparam("_tenant"),
            lanes.c.endpoint_ref == bindparam("_endpoint_ref"),
            lanes.c.room_ref == bindparam("_room_ref"),
        )
        .values(lease_epoch=bindparam("_epoch"), lease_until=until, due_at=until),
        [
            {
                "_tenant": lane.tenant,
                "_endpoint_ref": lane.endpoint_ref,
                "_room_ref": lane.room_ref,
                "_epoch": lane.epoch + 1,
            }
            for lane in found
        ],
    )
    return [
        Lane(
            tenant=lane.tenant,
            endpoint_ref=lane.endpoint_ref,
            room_ref=lane.room_ref,
            acked=lane.acked,
            attempts=lane.attempts,
            epoch=lane.epoch + 1,
            until=until,
        )
        for lane in found
    ]


def taken(connection: Connection, lane: Lane, *, last: int, now: int) -> bool:
    """Record that the endpoint took everything up to *last*; False when the lease was lost."""
    # Whoever stores an event has the room's row locked first and the lane after it; so does this. What it
    # finds is then all there is, and what comes later finds the lane as it is left here.
    newest: int = connection.execute(
        select(rooms.c.last_sequence)
        .where(rooms.c.tenant == lane.tenant, rooms.c.id == lane.room_ref)
        .with_for_update()
    ).scalar_one()
    more = newest > last
    recorded = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            acked_sequence=last,
            attempts=0,
            lease_until=None,
            due_at=now if more else None,
            waiting_since=_received_at(connection, lane, last + 1) if more else None,
        )
    )
    return recorded.rowcount > 0


def fail(connection: Connection, lane: Lane, *, retry_at: int) -> bool:
    """Record that the try failed and when to make the next; False when the lease was lost.

    Where the endpoint was changed meanwhile, it is tried again at once, as if for the first time.
    """
    failed = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            attempts=case((_untouched(lane), lane.attempts + 1), else_=0),
            lease_until=None,
            due_at=case((_untouched(lane), retry_at), else_=lanes.c.due_at),
        )
    )
    return failed.rowcount > 0


def park(connection: Connection, lane: Lane, *, now: int) -> bool:
    """Stop the lane until its endpoint is changed; False when the lease was lost.

    Where the endpoint was changed meanwhile, it is tried again at once instead.
    """
    parked = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            attempts=case((_untouched(lane), lane.attempts + 1), else_=0),
            parked_at=case((_untouched(lane), now), else_=None),
            lease_until=None,
            due_at=case((_untouched(lane), None), else_=lanes.c.due_at),
        )
    )
    return parked.rowcount > 0


def give_back(connection: Connection, lane: Lane, *, due_at: int) -> bool:
    """End the lease without a result; False when it was lost."""
    returned = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(lease_until=None, due_at=case((_untouched(lane), due_at), else_=lanes.c.due_at))
    )
    return returned.rowcount > 0


def release_all(connection: Connection, *, now: int) -> int:
    """End every lease; for a process that knows it is the only one. Returns how many there were."""
    return connection.execute(
        update(lanes).where(lanes.c.lease_until.is_not(None)).values(lease_until=None, due_at=now)
    ).rowcount


def backlog(connection: Connection) -> Backlog:
    """Return how much has not been taken."""
    row = connection.execute(
        select(func.count(), func.count(lanes.c.parked_at), func.min(lanes.c.waiting_since)).where(
            or_(lanes.c.due_at.is_not(None), lanes.c.parked_at.is_not(None))
        )
    ).one()
    return Backlog(waiting=row[0], parked=row[1], oldest=row[2])


def _received_at(connection: Connection, lane: Lane, sequence: int) -> int | None:
    found: int | None = connection.execute(
        select(room_events.c.received_at).where(
            room_events.c.tenant == lane.tenant,
            room_events.c.room_ref == lane.room_ref,
            room_events.c.sequence == sequence,
        )
    ).scalar_one_or_none()
    return found


def _lane(lane: Lane) -> ColumnElement[bool]:
    return and_(
        lanes.c.tenant == lane.tenant,
        lanes.c.endpoint_ref == lane.endpoint_ref,
        lanes.c.room_ref == lane.room_ref,
    )


def _held(lane: Lane) -> ColumnElement[bool]:
    return and_(_lane(lane), lanes.c.lease_epoch == lane.epoch, lanes.c.lease_until.is_not(None))


def _untouched(lane: Lane) -> ColumnElement[bool]:
    return lanes.c.due_at == lane.until

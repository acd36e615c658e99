"""Truncation: more events wait for an endpoint than may, so it gets no more of the oldest.

Its lanes move on as if the events had been taken, and each lane's loss is a dead letter. What is lost is what
came in first, whichever room it is of. A lane that is leased is left alone: a batch of it is on its way. A
batch that waits for its next try goes with the events that it holds; what is left of them goes again as a new
one, when that try was due. A lane that is parked stays so.

Locks are taken in the order endpoint, rooms sorted, lanes. The endpoint's keeps two from dropping the same
number twice; the rooms' is there for the reason that `lanes.taken` gives; lanes that somebody else has are
passed over, so that nobody waits in a circle.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection, and_, case, delete, or_, select, tuple_, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store import dead_letters, replay_parts, waiting
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.endpoint_key import EndpointKey, is_endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import batches, endpoints, lanes, room_events, rooms

EVENTS_AT_ONCE = 5000
LANES_AT_ONCE = 100
"""How much one transaction drops at most, and of how many rooms: ingest waits meanwhile."""

LETTER_GROWS_MS = 3_600_000
"""For how long a room's loss is added to the same dead letter: else one that is down would make thousands."""

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Truncated:
    """What one transaction dropped.

    Parameters
    ----------
    name
        The endpoint's name.
    events, rooms
        How many events, and of how many rooms.
    letters
        How many dead letters were made.
    left
        How many events more than may are still waiting.
    """

    name: str = ""
    events: int = 0
    rooms: int = 0
    letters: int = 0
    left: int = 0


def truncate(
    connection: Connection, endpoint: EndpointKey, *, most: int, now: int, new_id: NewId
) -> Truncated:
    """Drop the oldest of the events that wait for the endpoint beyond *most*, as many as fit.

    To be repeated while there are some left and any were dropped.
    """
    name = connection.execute(
        select(endpoints.c.name).where(is_endpoint(endpoint)).with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if name is None:
        # It is gone, or somebody else is at it.
        return Truncated()
    excess = waiting.all_events(connection, endpoint) - most
    if excess <= 0:
        return Truncated(name)
    found, horizon = _lock_oldest(connection, endpoint, now)
    done = Truncated(name, left=excess)
    for lane, last in _cuts(connection, found, min(excess, EVENTS_AT_ONCE), horizon):
        letter = _letter(endpoint, lane, last, most, now, new_id)
        grown = dead_letters.grow(connection, letter, since=now - LETTER_GROWS_MS)
        if not grown:
            dead_letters.record(connection, letter, new_id=new_id)
        _move_on(connection, endpoint, lane, last)
        dropped = last - lane.acked
        done = replace(
            done,
            events=done.events + dropped,
            rooms=done.rooms + 1,
            letters=done.letters + (not grown),
            left=done.left - dropped,
        )
    return done


@dataclass(frozen=True, slots=True)
class _Lane:
    """A lane that is ours until the transaction ends; *newest* is the room's last sequence."""

    tenant: str
    room_ref: str
    acked: int
    newest: int


def _lock_oldest(connection: Connection, endpoint: EndpointKey, now: int) -> tuple[list[_Lane], int | None]:
    """Lock the lanes that have waited longest, except leased ones.

    Also returns up to when their events are older than those of all other lanes (milliseconds since the
    epoch), None when there are no other lanes.
    """
    owner, endpoint_ref = endpoint
    free = and_(
        lanes.c.owner == owner,
        lanes.c.endpoint_ref == endpoint_ref,
        lanes.c.waiting_since.is_not(None),
        or_(lanes.c.lease_until.is_(None), lanes.c.lease_until <= now),
    )
    # Some only wait for a replay.
    oldest = connection.execute(
        select(lanes.c.tenant, lanes.c.room_ref, lanes.c.waiting_since)
        .join_from(lanes, rooms, and_(rooms.c.tenant == lanes.c.tenant, rooms.c.id == lanes.c.room_ref))
        .where(free, rooms.c.last_sequence > lanes.c.acked_sequence)
        .order_by(lanes.c.waiting_since)
        .limit(LANES_AT_ONCE)
    ).all()
    if not oldest:
        return [], None
    keys = [(row.tenant, row.room_ref) for row in oldest]
    newest = {
        (row.tenant, row.id): row.last_sequence
        for row in connection.execute(
            select(rooms.c.tenant, rooms.c.id, rooms.c.last_sequence)
            .where(tuple_(rooms.c.tenant, rooms.c.id).in_(keys))
            .order_by(rooms.c.tenant, rooms.c.id)
            .with_for_update()
        )
    }
    locked = connection.execute(
        select(lanes.c.tenant, lanes.c.room_ref, lanes.c.acked_sequence)
        .where(free, tuple_(lanes.c.tenant, lanes.c.room_ref).in_(keys))
        .with_for_update(skip_locked=True)
    )
    found = [
        _Lane(row.tenant, row.room_ref, row.acked_sequence, newest[row.tenant, row.room_ref])
        for row in locked
    ]
    return found, oldest[-1].waiting_since if len(oldest) == LANES_AT_ONCE else None


def _cuts(
    connection: Connection, found: Sequence[_Lane], events: int, horizon: int | None
) -> list[tuple[_Lane, int]]:
    """Return up to which sequence to drop of which lanes, that the oldest *events* of all are dropped.

    None that came in after *horizon*, unless all did.
    """
    cuts: dict[int, int] = {}
    merged = heapq.merge(*(_waiting_events(connection, number, lane) for number, lane in enumerate(found)))
    for received_at, number, sequence in islice(merged, events):
        if horizon is not None and received_at > horizon:
            if cuts:
                break
            # These rooms wait for a replay as well, and since before.
            horizon = received_at
        cuts[number] = sequence
    return [(found[number], last) for number, last in cuts.items()]


def _waiting_events(connection: Connection, number: int, lane: _Lane) -> Iterator[tuple[int, int, int]]:
    """Yield when each event that waits in the lane came in, with *number* and its sequence."""
    # Of most rooms no more than the first is looked at.
    after, limit = lane.acked, 1
    while after < lane.newest:
        page = connection.execute(
            select(room_events.c.received_at, room_events.c.sequence)
            .where(_events_of(lane), room_events.c.sequence > after)
            .order_by(room_events.c.sequence)
            .limit(limit)
        ).all()
        if not page:
            return
        for received_at, sequence in page:
            yield received_at, number, sequence
            after = sequence
        limit = _PAGE


def _move_on(connection: Connection, endpoint: EndpointKey, lane: _Lane, last: int) -> None:
    """Have the lane go on behind *last*."""
    # A batch of a replay holds what the lane has passed already.
    dropped = connection.execute(
        delete(batches).where(
            _of(batches.c, endpoint, lane), batches.c.replay_ref.is_(None), batches.c.first_sequence <= last
        )
    )
    values: dict[str, object] = {"acked_sequence": last, "lease_until": None}
    if dropped.rowcount:
        values |= {"attempts": 0, "refusals": 0}
    asked = replay_parts.waiting_since((lane.tenant, endpoint[1], lane.room_ref))
    if last < lane.newest:
        arrived = connection.execute(
            select(room_events.c.received_at).where(_events_of(lane), room_events.c.sequence == last + 1)
        ).scalar_one()
        values["waiting_since"] = case((asked < arrived, asked), else_=arrived)
    else:
        values |= {"waiting_since": asked, "due_at": case((asked.is_not(None), lanes.c.due_at))}
    connection.execute(update(lanes).where(_of(lanes.c, endpoint, lane)).values(values))


def _letter(endpoint: EndpointKey, lane: _Lane, last: int, most: int, now: int, new_id: NewId) -> DeadLetter:
    owner, endpoint_ref = endpoint
    return DeadLetter(
        owner=owner,
        endpoint_ref=endpoint_ref,
        at=now,
        id=new_id("letter"),
        tenant=lane.tenant,
        room_ref=lane.room_ref,
        first=lane.acked + 1,
        last=last,
        reason=Reason.TRUNCATED,
        detail=f"more than {most} events waited",
    )


def _of(columns: Any, endpoint: EndpointKey, lane: _Lane) -> ColumnElement[bool]:
    return and_(
        columns.tenant == lane.tenant,
        columns.endpoint_ref == endpoint[1],
        columns.room_ref == lane.room_ref,
    )


def _events_of(lane: _Lane) -> ColumnElement[bool]:
    return and_(room_events.c.tenant == lane.tenant, room_events.c.room_ref == lane.room_ref)

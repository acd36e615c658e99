"""Retention: events that are old enough leave the log, when nobody needs them any more.

An event stays in any case until every lane of its room has passed it, no batch under way holds it, and no
replay has yet to send it; a room without lanes goes by age alone. Events leave from the oldest of their room
on, so that what is left of a room never has a gap.

No number is used again, for how far a room and a tenant have counted stands in their own rows. A dead letter
is dropped with the last of the events that it names; of those that it still names the younger part may be
left.

A round goes through all rooms in the order of their key. It can end anywhere and be begun anew, and two at
once do no harm: what was released stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, TextClause, delete, literal, select, text, tuple_

from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.tables import dead_letters, endpoints, room_events, rooms

RoomKey: TypeAlias = tuple[str, str]
"""``(tenant, room_ref)``."""

ROOMS_AT_ONCE = 300
"""How many rooms are looked at in one query."""

EVENTS_AT_ONCE = 500
ROOMS_CHANGED_AT_ONCE = 25
"""What one transaction deletes at most, and of how many rooms: ingest waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rooms were looked at: *rooms* are those with events to release.

    *last* is the last one that was looked at; None when there are none behind it.
    """

    rooms: tuple[RoomKey, ...]
    last: RoomKey | None


@dataclass(frozen=True, slots=True)
class Released:
    """What one transaction deleted. *rooms* tells how many of those it was given are done with."""

    rooms: int
    events: int
    letters: int


def find(connection: Connection, *, before: int, after: RoomKey | None = None) -> Page:
    """Look at the next `ROOMS_AT_ONCE` rooms behind *after* for events to release.

    A room whose oldest event is not old enough costs one look into an index.

    Parameters
    ----------
    before
        An event is old enough that came in before then (milliseconds since the epoch).
    """
    tenant, room_ref = after or ("", "")
    last = connection.execute(
        select(rooms.c.tenant, rooms.c.id)
        .where(tuple_(rooms.c.tenant, rooms.c.id) > tuple_(literal(tenant), literal(room_ref)))
        .order_by(rooms.c.tenant, rooms.c.id)
        .limit(1)
        .offset(ROOMS_AT_ONCE - 1)
    ).first()
    found = _releasable(
        connection, _OLD_ROOMS_BEHIND, tenant=tenant, room_ref=room_ref, most=ROOMS_AT_ONCE, before=before
    )
    return Page(
        tuple((room.tenant, room.room_ref) for room in found), None if last is None else (last[0], last[1])
    )


def release(connection: Connection, found: Sequence[RoomKey], *, before: int) -> Released:
    """Delete what may go of these rooms, as far as it fits into one transaction.

    What may go is asked anew, for a replay may have been begun since `find`.
    """
    done = events = letters = 0
    for tenant, room_ref in found[:ROOMS_CHANGED_AT_ONCE]:
        for room in _releasable(connection, _OLD_ROOM, tenant=tenant, room_ref=room_ref, before=before):
            last = _last_old_one(connection, room, before=before, most=EVENTS_AT_ONCE - events)
            if last is not None:
                events += _delete_events(connection, room, last)
                letters += _delete_letters(connection, room, last)
        if events >= EVENTS_AT_ONCE:
            # There may be more of this room.
            break
        done += 1
    return Released(done, events, letters)


@dataclass(frozen=True, slots=True)
class _Releasable:
    """A room whose events up to the sequence *through* nobody needs, and whose oldest is old enough."""

    tenant: str
    room_ref: str
    through: int


def _releasable(connection: Connection, query: TextClause, **values: object) -> list[_Releasable]:
    found = []
    for row in connection.execute(query, values):
        through = row.last_sequence if row.passed is None else row.passed
        for needed in (row.under_way, row.replayed):
            through = through if needed is None else min(through, needed - 1)
        if row.first <= through:
            found.append(_Releasable(row.tenant, row.id, through))
    return found


# Asked for each endpoint, so that the whole key of the other tables is known whatever the planner thinks: by
# tenant and room alone, all rooms of the tenant would be read.
_OLD_ROOMS = """
SELECT room.tenant, room.id, room.last_sequence,
    (SELECT min(sequence) FROM room_events WHERE tenant = room.tenant AND room_ref = room.id) AS first,
    (SELECT min((SELECT acked_sequence FROM lanes
            WHERE lanes.tenant = room.tenant AND endpoint_ref = endpoints.id AND room_ref = room.id))
        FROM endpoints WHERE endpoints.tenant IN (room.tenant, '')) AS passed,
    (SELECT min((SELECT first_sequence FROM batches
            WHERE batches.tenant = room.tenant AND endpoint_ref = endpoints.id AND room_ref = room.id))
        FROM endpoints WHERE endpoints.tenant IN (room.tenant, '')) AS under_way,
    (SELECT min((SELECT min(next_sequence) FROM replays
            WHERE replays.tenant = room.tenant AND endpoint_ref = endpoints.id AND room_ref = room.id))
        FROM endpoints WHERE endpoints.tenant IN (room.tenant, '')) AS replayed
FROM (
    SELECT rooms.tenant, rooms.id, rooms.last_sequence,
        (SELECT received_at FROM room_events WHERE tenant = rooms.tenant AND room_ref = rooms.id
            ORDER BY sequence LIMIT 1) AS oldest
    FROM rooms WHERE {which}
) AS room
WHERE room.oldest < :before
"""
_OLD_ROOMS_BEHIND = text(
    _OLD_ROOMS.format(which="(tenant, id) > (:tenant, :room_ref) ORDER BY tenant, id LIMIT :most")
)
_OLD_ROOM = text(_OLD_ROOMS.format(which="tenant = :tenant AND id = :room_ref"))


def _last_old_one(connection: Connection, room: _Releasable, *, before: int, most: int) -> int | None:
    """Return the sequence up to which, within the oldest *most* events, all may go."""
    oldest = connection.execute(
        select(room_events.c.sequence, room_events.c.received_at)
        .where(
            room_events.c.tenant == room.tenant,
            room_events.c.room_ref == room.room_ref,
            room_events.c.sequence <= room.through,
        )
        .order_by(room_events.c.sequence)
        .limit(most)
    )
    last = None
    for sequence, received_at in oldest:
        if received_at >= before:
            break
        last = sequence
    return last


def _delete_events(connection: Connection, room: _Releasable, last: int) -> int:
    return connection.execute(
        delete(room_events).where(
            room_events.c.tenant == room.tenant,
            room_events.c.room_ref == room.room_ref,
            room_events.c.sequence <= last,
        )
    ).rowcount


def _delete_letters(connection: Connection, room: _Releasable, last: int) -> int:
    """Drop the dead letters that name nothing that is left."""
    owners = (room.tenant, PLATFORM)
    serving = select(endpoints.c.id).where(endpoints.c.tenant.in_(owners))
    return connection.execute(
        delete(dead_letters).where(
            dead_letters.c.owner.in_(owners),
            dead_letters.c.endpoint_ref.in_(serving),
            dead_letters.c.tenant == room.tenant,
            dead_letters.c.room_ref == room.room_ref,
            dead_letters.c.last_sequence <= last,
        )
    ).rowcount

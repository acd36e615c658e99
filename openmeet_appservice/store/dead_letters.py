"""Dead letters: events that were given up for an endpoint.

A letter names a range of a room's sequences, not the events: these stay in the log as long as all others.
When the last of them leaves it, so does the letter (`store.retention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, tuple_, update

from openmeet_appservice.domain.webhook_types import DELIVERY_DEAD
from openmeet_appservice.store import notices, routes
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey, is_endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import dead_letters, endpoints


class Reason(StrEnum):
    """Why the endpoint did not get the events."""

    REFUSED = "refused"
    """It answered 413 to a single event."""
    EXHAUSTED = "exhausted"
    """It did not take them in all the tries of the schedule, and is set to skip what it does not take."""
    TRUNCATED = "truncated"
    """More events waited for it than may (`store.truncation`)."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Events from *first* to *last* of a room. The moments are milliseconds since the epoch."""

    owner: str
    endpoint_ref: str
    at: int
    id: str
    tenant: str
    room_ref: str
    first: int
    last: int
    reason: Reason
    detail: str


def record(connection: Connection, letter: DeadLetter, *, new_id: NewId) -> None:
    """Store a dead letter, and tell all other endpoints that get this tenant's events.

    Wake ``notify`` afterwards.
    """
    connection.execute(
        insert(dead_letters).values(
            owner=letter.owner,
            endpoint_ref=letter.endpoint_ref,
            at=letter.at,
            id=letter.id,
            tenant=letter.tenant,
            room_ref=letter.room_ref,
            first_sequence=letter.first,
            last_sequence=letter.last,
            reason=letter.reason.value,
            detail=letter.detail,
        )
    )
    _tell_the_others(connection, letter, new_id)


def grow(connection: Connection, letter: DeadLetter, *, since: int) -> bool:
    """Add *letter* to one of the same reason that ends where it begins; False where there is none.

    Parameters
    ----------
    since
        Only to one recorded since then (milliseconds since the epoch).
    """
    columns = dead_letters.c
    adjoining = (
        columns.owner == letter.owner,
        columns.endpoint_ref == letter.endpoint_ref,
        columns.tenant == letter.tenant,
        columns.room_ref == letter.room_ref,
        columns.last_sequence == letter.first - 1,
        columns.reason == letter.reason.value,
        columns.at >= since,
    )
    # Whoever has it locked is about to do away with it.
    found = connection.execute(
        select(columns.at, columns.id).where(*adjoining).limit(1).with_for_update(skip_locked=True)
    ).first()
    if found is None:
        return False
    connection.execute(
        update(dead_letters)
        .where(
            columns.owner == letter.owner,
            columns.endpoint_ref == letter.endpoint_ref,
            columns.at == found.at,
            columns.id == found.id,
        )
        .values(last_sequence=letter.last)
    )
    return True


def list_page(
    connection: Connection,
    endpoint: EndpointKey,
    *,
    limit: int,
    before: tuple[int, str] | None = None,
) -> list[DeadLetter]:
    """Return up to *limit* dead letters of the endpoint, the newest first.

    Parameters
    ----------
    before
        ``(at, id)`` of the last one of the page before.
    """
    columns = dead_letters.c
    query = select(dead_letters).where(columns.owner == endpoint[0], columns.endpoint_ref == endpoint[1])
    if before is not None:
        query = query.where(tuple_(columns.at, columns.id) < before)
    query = query.order_by(columns.at.desc(), columns.id.desc()).limit(limit)
    return [_letter(row) for row in connection.execute(query)]


def count(connection: Connection, endpoint: EndpointKey) -> int:
    """Return how many dead letters the endpoint has."""
    columns = dead_letters.c
    found: int = connection.execute(
        select(func.count()).where(
            columns.owner == endpoint[0],
            columns.endpoint_ref == endpoint[1],
        )
    ).scalar_one()
    return found


def _tell_the_others(connection: Connection, letter: DeadLetter, new_id: NewId) -> None:
    key = (letter.owner, letter.endpoint_ref)
    name = connection.execute(select(endpoints.c.name).where(is_endpoint(key))).scalar()
    route = routes.of_room(connection, letter.tenant, letter.room_ref)
    if name is None or route is None:
        # What is gone needs no telling of.
        return
    data = {
        "endpoint": {"name": name, "platform": letter.owner == PLATFORM},
        "room": route.shown(),
        "first_sequence": letter.first,
        "last_sequence": letter.last,
        "reason": letter.reason.value,
        "detail": letter.detail,
    }
    notices.add(connection, letter.tenant, DELIVERY_DEAD, data, now=letter.at, new_id=new_id, but=key)


def _letter(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        owner=row.owner,
        endpoint_ref=row.endpoint_ref,
        at=row.at,
        id=row.id,
        tenant=row.tenant,
        room_ref=row.room_ref,
        first=row.first_sequence,
        last=row.last_sequence,
        reason=Reason(row.reason),
        detail=row.detail,
    )

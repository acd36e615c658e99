"""Whose turn it is to be compared with what OpenMeet wants, though nobody said that anything changed.

Each event and group has a row of ``sync`` with the time of its last turn, ``compared_at``; the one that has
waited longest is next. A turn makes the row due, in the same transaction, so it is not lost, and the rest is
the reconciler's. The last turn of all is a row of ``service``, which the replicas share.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.sync import poke
from openmeet_appservice.store.tables import entities, rooms, service, sync

TURN = "full_check_turn"
"""The fact: when something was last compared in turn (milliseconds since the epoch)."""

PASSED_OVER = 100
"""How many that need no comparison are passed over at most to find one that does."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether something was made due, and when the next turn is (milliseconds since the epoch)."""

    taken: bool
    next_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How the full check stands.

    Parameters
    ----------
    entities
        How many take turns.
    oldest
        When the one that has waited longest was compared, or made; None where there is none.
    """

    entities: int
    oldest: int | None


def take_turn(connection: Connection, *, now: int, gap: int) -> Turn:
    """Make the event or group due that waits longest, if *gap* milliseconds have passed since the last turn.

    What has no room is passed over; what was archived takes no more turns.
    """
    begun = insert_if_absent(connection, service, {"name": TURN, "value": str(now)})
    stored = connection.execute(
        select(service.c.value).where(service.c.name == TURN).with_for_update()
    ).scalar_one()
    # A clock that was put back must not stop the turns.
    last = min(int(stored), now)
    if begun or now < last + gap:
        return Turn(False, last + gap)
    connection.execute(update(service).where(service.c.name == TURN).values(value=str(now)))
    waiting = connection.execute(
        select(sync.c.tenant, sync.c.ref, entities.c.archived_at, rooms.c.id.label("room"))
        .join(entities, and_(entities.c.tenant == sync.c.tenant, entities.c.id == sync.c.ref))
        .outerjoin(
            rooms,
            and_(rooms.c.tenant == sync.c.tenant, rooms.c.entity_ref == sync.c.ref, rooms.c.state == "open"),
        )
        .where(_TAKES_TURNS)
        .order_by(sync.c.compared_at)
        .limit(PASSED_OVER)
        .with_for_update(of=sync, skip_locked=True)
    ).all()
    for row in waiting:
        rests = row.archived_at is not None
        connection.execute(
            update(sync)
            .where(sync.c.tenant == row.tenant, sync.c.subject == "entity", sync.c.ref == row.ref)
            .values(compared_at=None if rests else now)
        )
        if row.room is not None and not rests:
            poke(connection, row.tenant, "entity", row.ref, now=now)
            return Turn(True, now + gap)
    return Turn(False, now + gap)


def standing(connection: Connection) -> Standing:
    """Return how the full check stands, over all tenants."""
    row = connection.execute(select(func.count(), func.min(sync.c.compared_at)).where(_TAKES_TURNS)).one()
    return Standing(row[0], row[1])


_TAKES_TURNS: ColumnElement[bool] = sync.c.compared_at.is_not(None)

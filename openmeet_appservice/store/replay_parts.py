"""Replays as the lanes see them that send them: which part is next, and what was done.

The ranges that are queued for a lane have no event in common, and the one with the lowest sequences goes
first, so that within each replay the order is kept. A batch of one is a batch like any other, except that it
leaves alone how far the lane has come with new events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, ScalarSelect, and_, delete, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.tables import replays, room_events

LaneKey: TypeAlias = tuple[str, str, str]
"""``(tenant, endpoint_ref, room_ref)``."""

LaneColumns: TypeAlias = tuple[ColumnElement[str], ColumnElement[str], ColumnElement[str]]
"""The same as SQL."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is left of a replay: from *first* to *last*."""

    ref: str
    first: int
    last: int


def next_part(connection: Connection, lane: LaneKey) -> Part | None:
    """Return what the lane sends again next, if there is anything.

    Replays of whose events none is left in the log are dropped on the way. For whoever has the lane leased.
    """
    tenant, _, room_ref = lane
    while True:
        row = connection.execute(
            select(replays.c.id, replays.c.next_sequence, replays.c.last_sequence)
            .where(_of(lane))
            .order_by(replays.c.next_sequence)
            .limit(1)
        ).first()
        if row is None:
            return None
        part = Part(*row)
        logged: int | None = connection.execute(
            select(func.min(room_events.c.sequence)).where(
                room_events.c.tenant == tenant,
                room_events.c.room_ref == room_ref,
                room_events.c.sequence >= part.first,
            )
        ).scalar_one()
        if logged is not None and logged <= part.last:
            return part
        gone = delete(replays).where(_of(lane))
        connection.execute(gone if logged is None else gone.where(replays.c.last_sequence < logged))


def waiting_since(
    lane: LaneKey | LaneColumns,
    *,
    but: str | ColumnElement[str | None] | None = None,
    upto: int | ColumnElement[int] = 0,
) -> ScalarSelect[int | None]:
    """Return since when the lane has something to send again, as SQL; NULL if it has nothing.

    Parameters
    ----------
    but
        The replay that is sent up to *upto*: it counts only if there is more of it. None, or NULL: no replay.
    """
    query = select(func.min(replays.c.created_at)).where(_of(lane))
    if but is not None:
        query = query.where(or_(replays.c.id.is_distinct_from(but), replays.c.last_sequence > upto))
    return query.scalar_subquery()


def advance(connection: Connection, lane: LaneKey, ref: str, *, upto: int) -> None:
    """Record that the lane is done with the replay up to the sequence *upto*."""
    its = and_(_of(lane), replays.c.id == ref)
    connection.execute(delete(replays).where(its, replays.c.last_sequence <= upto))
    connection.execute(update(replays).where(its).values(next_sequence=upto + 1))


def _of(lane: LaneKey | LaneColumns) -> ColumnElement[bool]:
    tenant, endpoint_ref, room_ref = lane
    return and_(
        replays.c.tenant == tenant,
        replays.c.endpoint_ref == endpoint_ref,
        replays.c.room_ref == room_ref,
    )

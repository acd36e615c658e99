"""Which rooms gap repair has to look at, and what it found.

A room is due when it was looked at last before the newest suspicion that events were lost, or when its lease
has run out: whoever held it died, or it was to be looked at again then. Besides, rooms take turns, the one
looked at longest ago first, so that each is looked at within a fixed time whatever happens::

    resting ──suspicion, turn──▶ due ──claim──▶ leased ──finished──▶ resting, for good if archived long ago
                                  ▲                │
                                  └── lease ends ──┘   died, or left alone for a while on purpose

``check_lease_until`` only ever grows while it is held, so its value tells a holder whether it still is one.
The suspicion and the last turn are rows of ``service``, which all replicas share.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    and_,
    cast,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain import history
from openmeet_appservice.domain.arrival import Arrival
from openmeet_appservice.domain.history import Walk
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import event_log
from openmeet_appservice.store.bulk import among, insert_if_absent
from openmeet_appservice.store.event_log import Appended
from openmeet_appservice.store.tables import entities, room_events, rooms, service, tenants

SUSPICION = "repair_suspicion"
"""The fact: when events may have been lost the last time (milliseconds since the epoch)."""

TURN = "repair_turn"
"""The fact: when a room was last taken in turn (milliseconds since the epoch)."""

RESTS_AFTER = 24 * 3600 * 1000
"""Milliseconds for which the room of what was archived is still looked at: it takes a while to be closed."""

Key = tuple[str, str]
"""A tenant, and our id of a room of its."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A room that is being looked at, held until *until*.

    Parameters
    ----------
    point
        The event up to which the log is complete; None where nobody has looked yet.
    rests
        Whether it is looked at for the last time.
    direct
        Whether it is a direct room, in which the bot never is.
    """

    tenant: str
    ref: str
    room_id: str
    point: str | None
    until: int
    rests: bool
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done.

    Parameters
    ----------
    suspicion
        When events may have been lost the last time; 0 for never.
    rooms
        Those that are due and free, the most urgent first.
    next_at
        When the first lease ends, None where there is none.
    """

    suspicion: int
    rooms: list[Key]
    next_at: int | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A room whose turn it is, None where there is none yet, and when the next turn is."""

    room: Checked | None
    next_at: int


@dataclass(frozen=True, slots=True)
class Mended:
    """What `mend` did; *room* is held on unless the walk was at its end."""

    room: Checked
    walk: Walk
    appended: Appended
    pending: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How gap repair stands.

    Parameters
    ----------
    rooms
        How many rooms it looks at.
    oldest
        When the one was looked at, or made, that has waited longest; None without rooms.
    unreadable
        How many could not be read the last time.
    """

    rooms: int
    oldest: int | None
    unreadable: int


def suspect(connection: Connection, at: int) -> None:
    """Remember that events may have been lost until *at* (milliseconds since the epoch)."""
    upsert = _insert_for(connection)(service).values(name=SUSPICION, value=str(at))
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["name"],
            set_={"value": str(at)},
            where=_number(service.c.value) < at,
        )
    )


def due(connection: Connection, *, since: int, now: int, limit: int) -> Due:
    """Return up to *limit* rooms that are due.

    Parameters
    ----------
    since
        Rooms looked at before are due, those first where something was said last.
    """
    lapsed = select(rooms.c.tenant, rooms.c.id).where(_OPEN, rooms.c.check_lease_until <= now)
    found = [(row.tenant, row.id) for row in connection.execute(lapsed.limit(limit))]
    suspected = (
        select(rooms.c.tenant, rooms.c.id)
        .where(_OPEN, rooms.c.checked_at < since, rooms.c.check_lease_until.is_(None))
        .order_by(rooms.c.last_event_at.desc().nulls_last())
        .limit(limit - len(found))
    )
    if len(found) < limit:
        found += [(row.tenant, row.id) for row in connection.execute(suspected)]
    next_at = select(func.min(rooms.c.check_lease_until)).where(_OPEN, rooms.c.check_lease_until.is_not(None))
    return Due(_fact(connection, SUSPICION), found, connection.execute(next_at).scalar())


def claim(connection: Connection, keys: Sequence[Key], *, since: int, now: int, lease: int) -> list[Checked]:
    """Take those rooms that are still due and free, for *lease* milliseconds."""
    is_due = or_(rooms.c.checked_at < since, rooms.c.check_lease_until <= now)
    taken = []
    for tenant, ref in keys:
        row = connection.execute(
            _CHECKED.where(rooms.c.tenant == tenant, rooms.c.id == ref, is_due, _free(now)).with_for_update(
                of=rooms, skip_locked=True
            )
        ).first()
        if row is not None:
            taken.append(_take(connection, row, now, lease))
    return taken


def take_turn(connection: Connection, *, now: int, gap: int, lease: int) -> Turn:
    """Take the room that was looked at longest ago, if *gap* milliseconds have passed since the last turn."""
    begun = insert_if_absent(connection, service, {"name": TURN, "value": str(now)})
    stored = connection.execute(
        select(service.c.value).where(service.c.name == TURN).with_for_update()
    ).scalar_one()
    last = min(int(stored), now)
    if begun or now < last + gap:
        return Turn(None, last + gap)
    row = connection.execute(
        _CHECKED.where(rooms.c.checked_at.is_not(None), _free(now))
        .order_by(rooms.c.checked_at)
        .limit(1)
        .with_for_update(of=rooms, skip_locked=True)
    ).first()
    connection.execute(update(service).where(service.c.name == TURN).values(value=str(now)))
    return Turn(None if row is None else _take(connection, row, now, lease), now + gap)


def mend(
    connection: Connection,
    room: Checked,
    walk: Walk,
    events: Sequence[Arrival],
    *,
    ends: bool,
    began: int,
    now: int,
    lease: int,
    grace: int,
    bot: str,
) -> Mended | None:
    """Add what the log lacks of one page of a room's history, and move the room's point behind it.

    Returns None, having done nothing, when the room is no longer held.

    Parameters
    ----------
    walk, events
        See `domain.history`.
    ends
        Whether this is the last page: the room is then given back.
    began
        When the walk began (milliseconds since the epoch).
    lease
        For how many milliseconds the room is held on.
    grace
        From what age in milliseconds on an event is certainly no longer on its way.
    bot
        The bot's user id.
    """
    # The locks of the event log, in its order: what is pushed meanwhile waits, or is seen here.
    position = connection.execute(
        select(tenants.c.last_position).where(tenants.c.tenant == room.tenant).with_for_update()
    ).scalar()
    held = select(rooms.c.id).where(_held(room)).with_for_update()
    if position is None or connection.execute(held).first() is None:
        return None
    step = history.step(walk, events, _known(connection, room.tenant, events), grace=grace)
    appended = Appended()
    if step.missing:
        appended = event_log.append(connection, [one.event for one in step.missing], now=now, bot=bot)
        for one in step.missing:
            connection.execute(
                update(room_events)
                .where(room_events.c.tenant == room.tenant, room_events.c.event_id == one.event.event_id)
                .where(room_events.c.position > position)
                .values(repaired_after=one.after or "")
            )
    values: dict[str, Any] = {"check_lease_until": now + lease}
    if step.walk.counting or ends:
        values["complete_event_id"] = step.walk.settled or room.point
    if step.pending:
        values["check_lease_until"] = now + grace
    elif ends:
        values |= _rest(room, began)
    connection.execute(update(rooms).where(_held(room)).values(values))
    going_on = replace(room, until=now + lease)
    return Mended(going_on, step.walk, appended, step.pending)


def give_up(connection: Connection, room: Checked, error: str, *, at: int) -> None:
    """Record that the room cannot be read, and why; it is looked at again like any other."""
    connection.execute(update(rooms).where(_held(room)).values(_rest(room, at) | {"check_error": error[:64]}))


def leave_alone(connection: Connection, room: Checked, *, until: int, error: str | None = None) -> None:
    """Have the room looked at again at *until*; *error* says why it could not be read now."""
    values: dict[str, Any] = {"check_lease_until": until}
    if error is not None:
        values["check_error"] = error[:64]
    connection.execute(update(rooms).where(_held(room)).values(values))


def release_all(connection: Connection, *, now: int) -> None:
    """End every lease; for a process that knows it is the only one."""
    connection.execute(
        update(rooms)
        .where(rooms.c.check_lease_until.is_not(None), rooms.c.check_lease_until > now)
        .values(check_lease_until=now)
    )


def standing(connection: Connection) -> Standing:
    """Return how gap repair stands, over all tenants."""
    row = connection.execute(
        select(func.count(), func.count(rooms.c.check_error)).where(_OPEN, rooms.c.checked_at.is_not(None))
    ).one()
    return Standing(rooms=row[0], oldest=oldest(connection), unreadable=row[1])


def oldest(connection: Connection) -> int | None:
    """Return when the room was looked at, or made, that has waited longest; None without rooms."""
    checked = select(func.min(rooms.c.checked_at)).where(_OPEN, rooms.c.checked_at > 0)
    # One that nobody has looked at yet has not waited since the beginning of time.
    new = select(func.min(rooms.c.created_at)).where(_OPEN, rooms.c.checked_at == 0)
    moments = [connection.execute(query).scalar() for query in (checked, new)]
    return min((at for at in moments if at is not None), default=None)


def count(connection: Connection) -> int:
    """Return how many rooms take turns."""
    return connection.execute(
        select(func.count()).select_from(rooms).where(_OPEN, rooms.c.checked_at.is_not(None))
    ).scalar_one()


def _known(connection: Connection, tenant: str, events: Collection[Arrival]) -> set[str]:
    ids = [event.event_id for event in events]
    rows = connection.execute(
        select(room_events.c.event_id).where(
            room_events.c.tenant == tenant, among(connection, room_events.c.event_id, ids)
        )
    )
    return set(rows.scalars())


def _take(connection: Connection, row: Row[Any], now: int, lease: int) -> Checked:
    connection.execute(
        update(rooms)
        .where(rooms.c.tenant == row.tenant, rooms.c.id == row.id)
        .values(check_lease_until=now + lease)
    )
    return Checked(
        tenant=row.tenant,
        ref=row.id,
        room_id=row.room_id,
        point=row.complete_event_id,
        until=now + lease,
        rests=row.archived_at is not None and row.archived_at < now - RESTS_AFTER,
        direct=row.kind == EntityKind.DIRECT,
    )


def _rest(room: Checked, at: int) -> dict[str, Any]:
    return {"checked_at": None if room.rests else at, "check_lease_until": None, "check_error": None}


def _fact(connection: Connection, name: str) -> int:
    value = connection.execute(select(service.c.value).where(service.c.name == name)).scalar()
    return 0 if value is None else int(value)


def _number(column: ColumnElement[str]) -> ColumnElement[int]:
    return cast(column, BigInteger)


def _insert_for(connection: Connection) -> Any:
    """Return the dialect's own ``insert``: both know ``ON CONFLICT``, but as constructs of their own."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _free(now: int) -> ColumnElement[bool]:
    return or_(rooms.c.check_lease_until.is_(None), rooms.c.check_lease_until <= now)


def _held(room: Checked) -> ColumnElement[bool]:
    return and_(
        rooms.c.tenant == room.tenant, rooms.c.id == room.ref, rooms.c.check_lease_until == room.until
    )


# A room that is not in use any more, former or orphan, is closed: nobody speaks there. The state stands in
# the text, for neither database uses a partial index for a parameter.
_OPEN = and_(rooms.c.state == literal_column("'open'"), rooms.c.room_id.is_not(None))

_ITS_ENTITY = and_(entities.c.tenant == rooms.c.tenant, entities.c.id == rooms.c.entity_ref)

_CHECKED: Select[Any] = (
    select(
        rooms.c.tenant,
        rooms.c.id,
        rooms.c.room_id,
        rooms.c.complete_event_id,
        select(entities.c.archived_at).where(_ITS_ENTITY).scalar_subquery().label("archived_at"),
        select(entities.c.kind).where(_ITS_ENTITY).scalar_subquery().label("kind"),
    )
    .select_from(rooms)
    .where(_OPEN)
)

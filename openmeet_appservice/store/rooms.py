"""Rooms: one row for each room that was ever asked for, with at most one in use for each entity.

::

    claimed ──recorded──▶ open ──recreated──▶ replaced ──leads to its successor──▶ ended ──emptied──▶ former
                           └──nobody can enter it───────────────────────────────────────────────────▶ ⋮
    (a second room made for the same claim) ──▶ orphan, which the reconciler closes ────────────────▶ ⋮
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import rooms

State = Literal["claimed", "open", "replaced", "ended", "orphan", "former"]
IN_USE = ("claimed", "open")


@dataclass(frozen=True, slots=True)
class Room:
    """A room of ours. *room_id* is None until one of the three ways to learn it has done so.

    *replaces* is our id of the room that it takes the place of, until OpenMeet was told. *asked_at* is when
    Synapse was asked for it last, in milliseconds since the epoch. From a *guarded* one, which was adopted,
    nobody is removed.
    """

    tenant: str
    ref: str
    entity_ref: str
    state: State
    claim: str
    lock_alias: str
    alias: str | None
    room_id: str | None
    room_version: str | None
    log_id: str
    asked_at: int
    replaces: str | None = None
    guarded: bool = False


def claim(
    connection: Connection,
    tenant: str,
    entity_ref: str,
    *,
    claim: str,
    lock_alias: str,
    now: int,
    new_id: NewId,
) -> Room:
    """Commit to making a room for the entity, before Synapse is asked.

    Parameters
    ----------
    claim
        Random; goes into the new room's ``m.room.create``.
    lock_alias
        The full alias sent with ``createRoom``, of which Synapse lets only one exist.
    """
    ref = new_id("room")
    connection.execute(
        insert(rooms).values(
            replaces=_last_used(connection, tenant, entity_ref),
            tenant=tenant,
            id=ref,
            entity_ref=entity_ref,
            state="claimed",
            claim=claim,
            lock_alias=lock_alias,
            log_id=new_id("log"),
            last_sequence=0,
            # There is nothing yet that gap repair could find missing.
            checked_at=now,
            created_at=now,
        )
    )
    room = get(connection, tenant, ref)
    assert room is not None
    return room


def get(connection: Connection, tenant: str, ref: str) -> Room | None:
    """Return the room of that id of ours."""
    return _read(connection.execute(select(rooms).where(rooms.c.tenant == tenant, rooms.c.id == ref)).first())


def in_use(connection: Connection, tenant: str, entity_ref: str) -> Room | None:
    """Return the room that the entity uses or is about to."""
    return _read(
        connection.execute(
            select(rooms).where(
                rooms.c.tenant == tenant, rooms.c.entity_ref == entity_ref, rooms.c.state.in_(IN_USE)
            )
        ).first()
    )


def of_entity(connection: Connection, tenant: str, entity_ref: str) -> list[Room]:
    """Return every room the entity ever had, the oldest first."""
    found = connection.execute(
        select(rooms)
        .where(rooms.c.tenant == tenant, rooms.c.entity_ref == entity_ref)
        .order_by(rooms.c.created_at)
    )
    return [_room(row) for row in found]


def latest(connection: Connection, tenant: str, entity_ref: str) -> Room | None:
    """Return the entity's room on Matrix: the one in use, else the one that was made last."""
    return _read(
        connection.execute(
            select(rooms)
            .where(rooms.c.tenant == tenant, rooms.c.entity_ref == entity_ref)
            .where(rooms.c.room_id.is_not(None), rooms.c.state != "orphan")
            .order_by(rooms.c.state.in_(IN_USE).desc(), rooms.c.created_at.desc())
            .limit(1)
        ).first()
    )


def by_room_id(connection: Connection, room_id: str, tenant: str | None = None) -> Room | None:
    """Return the room of that id on Matrix; only among those of *tenant*, if one is given."""
    query = select(rooms).where(rooms.c.room_id == room_id)
    if tenant is not None:
        query = query.where(rooms.c.tenant == tenant)
    return _read(connection.execute(query).first())


def forget_replaced(connection: Connection, room: Room) -> None:
    """Record that OpenMeet was told which room this one took the place of."""
    connection.execute(
        update(rooms).where(rooms.c.tenant == room.tenant, rooms.c.id == room.ref).values(replaces=None)
    )


def set_alias(connection: Connection, tenant: str, ref: str, alias: str | None) -> None:
    """Record the public alias (in full) that points to the room, or that none does."""
    connection.execute(update(rooms).where(rooms.c.tenant == tenant, rooms.c.id == ref).values(alias=alias))


def set_state(connection: Connection, tenant: str, ref: str, state: State) -> None:
    """Move the room to another state; see the module's picture."""
    connection.execute(update(rooms).where(rooms.c.tenant == tenant, rooms.c.id == ref).values(state=state))


def replace(connection: Connection, room: Room) -> bool:
    """Take the room out of use, so that a successor is made; False where it is in use no more."""
    replaced = connection.execute(
        update(rooms)
        .where(rooms.c.tenant == room.tenant, rooms.c.id == room.ref, rooms.c.state == "open")
        .values(state="replaced")
    )
    return replaced.rowcount > 0


def relock(connection: Connection, tenant: str, ref: str, lock_alias: str) -> None:
    """Give a claim that made no room yet another alias to lock with."""
    connection.execute(
        update(rooms)
        .where(rooms.c.tenant == tenant, rooms.c.id == ref, rooms.c.room_id.is_(None))
        .values(lock_alias=lock_alias)
    )


def note_asked(connection: Connection, tenant: str, ref: str, *, now: int) -> None:
    """Note that Synapse was just asked for a room and may still be making it."""
    connection.execute(
        update(rooms)
        .where(rooms.c.tenant == tenant, rooms.c.id == ref, rooms.c.room_id.is_(None))
        .values(created_at=now)
    )


def add_orphan(
    connection: Connection, claimed: Room, room_id: str, room_version: str, *, now: int, new_id: NewId
) -> None:
    """Record a second room that was made for the same claim; harmless when it is known already."""
    if connection.execute(select(rooms.c.id).where(rooms.c.room_id == room_id)).first() is not None:
        return
    connection.execute(
        insert(rooms).values(
            tenant=claimed.tenant,
            id=new_id("room"),
            entity_ref=claimed.entity_ref,
            state="orphan",
            claim=claimed.claim,
            lock_alias=claimed.lock_alias,
            room_id=room_id,
            room_version=room_version,
            log_id=new_id("log"),
            last_sequence=0,
            created_at=now,
        )
    )


def _last_used(connection: Connection, tenant: str, entity_ref: str) -> str | None:
    """Return the room that the entity used last; what was made twice for one claim was never used."""
    first: dict[str, Room] = {}
    for room in of_entity(connection, tenant, entity_ref):
        if room.room_id is not None:
            first.setdefault(room.claim, room)
    used = [room.ref for room in first.values() if room.state in ("replaced", "ended", "former")]
    return used[-1] if used else None


def _read(row: Row[Any] | None) -> Room | None:
    return None if row is None else _room(row)


def _room(row: Row[Any]) -> Room:
    return Room(
        tenant=row.tenant,
        ref=row.id,
        entity_ref=row.entity_ref,
        state=row.state,
        claim=row.claim,
        lock_alias=row.lock_alias,
        alias=row.alias,
        room_id=row.room_id,
        room_version=row.room_version,
        log_id=row.log_id,
        asked_at=row.created_at,
        replaces=row.replaces,
        guarded=row.guarded,
    )


def room_ids(connection: Connection, tenant: str, room_refs: Collection[str]) -> dict[str, str]:
    """Return the ids on Matrix of the tenant's rooms, of those that are known."""
    rows = connection.execute(
        select(rooms.c.id, rooms.c.room_id).where(
            rooms.c.tenant == tenant, rooms.c.id.in_(sorted(room_refs)), rooms.c.room_id.is_not(None)
        )
    )
    return {row.id: row.room_id for row in rows}

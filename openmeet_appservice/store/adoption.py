"""Taking over rooms that a former service made: which may be, and recording that they are ours now.

``entities.former_alias`` says that such a room may exist, and keeps a second one from being made until
`adopt` has looked. A room that was taken over is *guarded*, until a person has that enforced::

    imported ──room found──▶ open, guarded ──enforced──▶ open
       └─────no room─────▶ (a new one is made)
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, event_log, rooms, sync
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import entities as entities_table
from openmeet_appservice.store.tables import rooms as rooms_table
from openmeet_appservice.store.tables import tenants

KINDS = (EntityKind.EVENT.value, EntityKind.GROUP.value)
"""What the former service made rooms for that a bot can enter."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live event or group without a room.

    *tenant* is the key, *tenant_id* as OpenMeet spells it, *slug* likewise; *alias* is the one kept for it.
    *expected* says that a former service may have made a room for it.
    """

    tenant: str
    tenant_id: str
    ref: str
    kind: EntityKind
    slug: str
    alias: str
    expected: bool


@dataclass(frozen=True, slots=True)
class Guarded:
    """An adopted room that is not enforced yet, and whether a whole list of its members has come."""

    tenant: str
    tenant_id: str
    ref: str
    kind: EntityKind
    slug: str
    room_id: str
    members_listed: bool


def expect_room(connection: Connection, tenant: str, kind: EntityKind, slug: str, alias: str) -> None:
    """Note that a former service may have made a room with *alias* for this entity, if it has none yet."""
    found = entities.find(connection, tenant, kind, slug)
    if found is not None and found.archived_at is None and found.former_alias is None:
        room = rooms.in_use(connection, tenant, found.ref)
        if room is None or room.room_id is None:
            _expect(connection, found.tenant, found.ref, alias)


def candidates(
    connection: Connection, tenant: str | None, *, after: tuple[str, str] | None, limit: int
) -> list[Candidate]:
    """Return up to *limit* entities without a room, from the one after *after* (tenant, id) on."""
    has_room = exists().where(
        rooms_table.c.tenant == entities_table.c.tenant,
        rooms_table.c.entity_ref == entities_table.c.id,
        rooms_table.c.state == "open",
    )
    query = (
        select(entities_table, tenants.c.tenant_id)
        .join(tenants, tenants.c.tenant == entities_table.c.tenant)
        .where(entities_table.c.archived_at.is_(None), ~has_room, entities_table.c.kind.in_(KINDS))
        .order_by(entities_table.c.tenant, entities_table.c.id)
        .limit(limit)
    )
    if tenant is not None:
        query = query.where(entities_table.c.tenant == tenant)
    if after is not None:
        query = query.where(_comes_after(*after))
    return [
        Candidate(
            row.tenant,
            row.tenant_id,
            row.id,
            EntityKind(row.kind),
            row.slug,
            row.alias,
            row.former_alias is not None,
        )
        for row in connection.execute(query)
    ]


def adopt(
    connection: Connection,
    candidate: Candidate,
    room_id: str,
    *,
    version: str,
    alias: str,
    newest: str | None,
    claim: str,
    now: int,
    bot: str,
    new_id: NewId,
) -> bool:
    """Record *room_id* as the entity's room in use; False, having done nothing, where somebody was faster.

    What was held of the room is attached. The log begins with that: the history of before stays on Matrix.

    Parameters
    ----------
    alias
        The full alias that leads to the room.
    newest
        The newest event of the room's history: gap repair looks at what comes after it.
    claim
        Random. Nothing was ever sent with it, so nothing is ever recognized by it.
    """
    tenant = candidate.tenant
    found = entities.find(connection, tenant, candidate.kind, candidate.slug, lock=True)
    if found is None or found.ref != candidate.ref or found.archived_at is not None:
        return False
    event_log.lock_room_ids(connection, [room_id])
    if rooms.by_room_id(connection, room_id) is not None:
        return False
    room = rooms.in_use(connection, tenant, found.ref)
    if room is None:
        room = rooms.claim(
            connection, tenant, found.ref, claim=claim, lock_alias=alias, now=now, new_id=new_id
        )
    if not event_log.record_room_id(connection, tenant, room.ref, room_id, version, now=now, bot=bot):
        return False
    connection.execute(
        update(rooms_table)
        .where(rooms_table.c.tenant == tenant, rooms_table.c.id == room.ref)
        .values(
            guarded=True,
            complete_event_id=newest,
            lock_alias=alias,
            alias=alias if alias == found.alias else None,
        )
    )
    _expect(connection, tenant, found.ref, None)
    entities.touch(connection, found, Removals.FEW, now=now)
    return True


def give_up(connection: Connection, candidate: Candidate, *, now: int) -> None:
    """Record that there is no room to take over, so that one may be made."""
    _expect(connection, candidate.tenant, candidate.ref, None)
    sync.poke(connection, candidate.tenant, "entity", candidate.ref, now=now)


def guarded(
    connection: Connection, tenant: str | None, *, after: tuple[str, str] | None, limit: int
) -> list[Guarded]:
    """Return up to *limit* entities with a guarded room, from the one after *after* (tenant, id) on."""
    its_room = and_(
        rooms_table.c.tenant == entities_table.c.tenant,
        rooms_table.c.entity_ref == entities_table.c.id,
        rooms_table.c.state == "open",
        rooms_table.c.guarded,
    )
    query = (
        select(entities_table, tenants.c.tenant_id, rooms_table.c.room_id)
        .join(rooms_table, its_room)
        .join(tenants, tenants.c.tenant == entities_table.c.tenant)
        .order_by(entities_table.c.tenant, entities_table.c.id)
        .limit(limit)
    )
    if tenant is not None:
        query = query.where(entities_table.c.tenant == tenant)
    if after is not None:
        query = query.where(_comes_after(*after))
    return [
        Guarded(
            row.tenant,
            row.tenant_id,
            row.id,
            EntityKind(row.kind),
            row.slug,
            row.room_id,
            row.members_listed,
        )
        for row in connection.execute(query)
    ]


def enforce(connection: Connection, tenant: str, ref: str, *, now: int) -> bool:
    """Let the entity's room follow its list of members wholly; False where no whole list has come."""
    found = _locked(connection, tenant, ref)
    if found is None or not found.members_listed:
        return False
    connection.execute(
        update(rooms_table)
        .where(rooms_table.c.tenant == tenant, rooms_table.c.entity_ref == ref, rooms_table.c.guarded)
        .values(guarded=False)
    )
    entities.touch(connection, found, Removals.FEW, now=now)
    return True


def _expect(connection: Connection, tenant: str, ref: str, alias: str | None) -> None:
    connection.execute(
        update(entities_table)
        .where(entities_table.c.tenant == tenant, entities_table.c.id == ref)
        .values(former_alias=alias)
    )


def _locked(connection: Connection, tenant: str, ref: str) -> Entity | None:
    known = entities.get(connection, tenant, ref)
    if known is None:
        return None
    found = entities.find(connection, tenant, known.kind, known.slug, lock=True)
    return found if found is not None and found.ref == ref else None


def _comes_after(tenant: str, ref: str) -> ColumnElement[bool]:
    return (entities_table.c.tenant > tenant) | (
        (entities_table.c.tenant == tenant) & (entities_table.c.id > ref)
    )

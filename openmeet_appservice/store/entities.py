"""Events, groups and direct rooms as OpenMeet wants them.

A slug names at most one live entity of a kind; the archived ones before it keep their rows, for their rooms
have to be closed. A new entity on a used slug is another one, with another id and another room.

**Confirmed removals.** Removing many people at once waits until a person has confirmed it. A confirmation
belongs to one generation, kept in ``removals_confirmed``, and holds until that generation is applied:
`removals_are_confirmed` tells whether it does. What becomes of it with the next write, `touch` decides:

* a write with ``confirm_removals`` confirms the generation that it makes;
* a write that itself removes few people or none carries a confirmation on that is not applied yet: a new
  topic must not undo what a person decided;
* a write that itself removes many ends it: nobody has confirmed *that*;
* an explicit removal of one member confirms, if nothing else is pending that waits for a confirmation: many
  of those in a row are meant one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select, text, update

from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.domain.kinds import EntityKind, EntityStatus, Visibility
from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.people import HELD_ABOVE_PEOPLE, HELD_ABOVE_PERCENT
from openmeet_appservice.store import former_slugs, sync
from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.rooms import IN_USE
from openmeet_appservice.store.sync import SyncStatus, read_error
from openmeet_appservice.store.tables import entities, room_events, rooms, tenants
from openmeet_appservice.store.tables import sync as sync_table


@dataclass(frozen=True, slots=True)
class Entity:
    """One event, group or direct room.

    Attributes
    ----------
    ref
        Our id of it.
    slug, slug_key
        The slug as first given, and as it is compared.
    alias
        The full alias kept for it, whether or not a room has it now; those of its former slugs are in
        `store.former_slugs`. Direct rooms have none.
    spec
        What OpenMeet wants, with the API's names: ``name``, ``topic``, ``visibility``, ``access``,
        ``status``. Of a direct room ``encrypted`` only.
    as_of, members_as_of
        When OpenMeet read what it wrote last of the spec and of the members.
    revision, members_revision
        Count the changes of the spec and of the members.
    removals_confirmed
        See the module.
    archived_at
        When it was deleted, None for a live one. Moments are milliseconds since the epoch.
    members_listed
        Whether a whole list of its members has come, not only changes of one.
    former_alias
        See `store.adoption`.
    purge_at
        When it was asked that nothing at all be left of it.
    """

    tenant: str
    ref: str
    kind: EntityKind
    slug: str
    slug_key: str
    alias: str | None
    external_id: str | None
    spec: Mapping[str, Any]
    as_of: int | None
    revision: int
    members_as_of: int | None
    members_revision: int
    removals_confirmed: int
    archived_at: int | None
    members_listed: bool
    former_alias: str | None
    purge_at: int | None = None

    @property
    def name(self) -> str:
        """What it is called; a direct room has no name."""
        return str(self.spec.get("name", ""))

    @property
    def status(self) -> EntityStatus:
        """How far it has come; a direct room is there as soon as it is wanted."""
        return EntityStatus(self.spec.get("status", EntityStatus.PUBLISHED))

    @property
    def visibility(self) -> Visibility:
        """Who may find it; a direct room nobody."""
        return Visibility(self.spec.get("visibility", Visibility.PRIVATE))


@dataclass(frozen=True, slots=True)
class EntityView:
    """An entity, how far Synapse has followed, and its room in use.

    *has_room* says that a room was made or is perhaps being made; *room_id*, *room_alias* and
    *room_version* are what is known of it.
    """

    entity: Entity
    sync: SyncStatus | None
    has_room: bool
    room_id: str | None
    room_alias: str | None
    room_version: str | None


class Removals(Enum):
    """What a write says about removing people. See the module."""

    FEW = "few"
    MANY = "many"
    EXPLICIT = "explicit"
    CONFIRMED = "confirmed"


def are_many(removed: int, members: int) -> bool:
    """Whether removing so many of so many members is more than goes unasked."""
    return removed > HELD_ABOVE_PEOPLE and removed * 100 > members * HELD_ABOVE_PERCENT


def removals_are_confirmed(entity: Entity, status: SyncStatus) -> bool:
    """Whether what *status* says is pending may remove many people at once."""
    return entity.removals_confirmed == status.generation and status.observed_generation < status.generation


def find(
    connection: Connection, tenant: str, kind: EntityKind, slug: str, *, lock: bool = False
) -> Entity | None:
    """Return the live entity of that slug, in any case, else the one archived last.

    *lock* keeps others from changing it meanwhile.
    """
    query = _by_slug(select(entities), tenant, kind, slug)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is not None and lock and row.archived_at is not None:
        # Another transaction may have put a live one in its place while this one waited for the lock.
        row = connection.execute(query.with_for_update()).first()
    return None if row is None else _entity(row)


def get(connection: Connection, tenant: str, ref: str) -> Entity | None:
    """Return the entity of that id of ours."""
    row = connection.execute(
        select(entities).where(entities.c.tenant == tenant, entities.c.id == ref)
    ).one_or_none()
    return None if row is None else _entity(row)


def lock_alias(connection: Connection, alias: str) -> None:
    """Let nobody else take *alias*, or find out that it is free, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:alias, 1))"), {"alias": alias}
        )


def alias_is_free(connection: Connection, alias: str) -> bool:
    """Whether no live entity has *alias* or keeps it; nobody else can take it until the transaction ends."""
    lock_alias(connection, alias)
    query = select(entities.c.id).where(entities.c.alias == alias, entities.c.archived_at.is_(None))
    taken = connection.execute(query.limit(1)).first() is not None
    return not taken and not former_slugs.keepers(connection, alias)


def create(
    connection: Connection,
    tenant: str,
    kind: EntityKind,
    slug: str,
    *,
    alias: str | None,
    spec: Mapping[str, Any],
    external_id: str | None,
    as_of: int | None,
    now: int,
    new_id: NewId,
) -> Entity | None:
    """Add a live entity; None where the slug has one."""
    ref = new_id("entity")
    row = {
        "tenant": tenant,
        "id": ref,
        "kind": kind.value,
        "slug": slug,
        "slug_key": key(slug),
        "alias": alias,
        "external_id": external_id,
        "spec": dumps(spec),
        "as_of": as_of,
        "revision": 1,
        "members_revision": 1,
        "removals_confirmed": 0,
        "created_at": now,
        "updated_at": now,
    }
    return get(connection, tenant, ref) if insert_if_absent(connection, entities, row) else None


def change(
    connection: Connection,
    entity: Entity,
    *,
    spec: Mapping[str, Any],
    external_id: str | None,
    as_of: int | None,
    now: int,
) -> Entity:
    """Give the entity another spec. The caller has locked the row."""
    return _updated(
        connection,
        entity,
        spec=dumps(spec),
        external_id=external_id,
        as_of=as_of,
        revision=entity.revision + 1,
        updated_at=now,
    )


def change_members(connection: Connection, entity: Entity, *, as_of: int | None, now: int) -> Entity:
    """Record that the list of members has changed. The caller has locked the row."""
    return _updated(
        connection,
        entity,
        members_as_of=as_of,
        members_revision=entity.members_revision + 1,
        updated_at=now,
    )


def rename(
    connection: Connection, entity: Entity, *, slug: str, alias: str | None, as_of: int | None, now: int
) -> Entity:
    """Give the entity another slug and alias. The caller has locked the row and knows both to be free.

    What it was called before is kept (`store.former_slugs`); in another case it is the same slug.
    """
    if key(slug) != entity.slug_key and alias is not None and entity.alias is not None:
        former_slugs.forget(connection, entity.tenant, entity.ref, [alias])
        former_slugs.keep(
            connection,
            entity.tenant,
            entity.ref,
            kind=entity.kind,
            slug_key=entity.slug_key,
            alias=entity.alias,
        )
    return _updated(
        connection,
        entity,
        slug=slug,
        slug_key=key(slug),
        alias=alias,
        as_of=as_of,
        revision=entity.revision + 1,
        updated_at=now,
    )


def note_members_listed(connection: Connection, entity: Entity) -> Entity:
    """Record that a whole list of members has come."""
    return entity if entity.members_listed else _updated(connection, entity, members_listed=True)


def note_as_of(
    connection: Connection,
    entity: Entity,
    *,
    as_of: int | None = None,
    members_as_of: int | None = None,
) -> Entity:
    """Record how new the data was that confirmed what is known; None leaves what there is."""
    given = {"as_of": as_of, "members_as_of": members_as_of}
    values = {name: value for name, value in given.items() if value is not None}
    return _updated(connection, entity, **values) if values else entity


def archive(connection: Connection, entity: Entity, *, as_of: int | None, now: int) -> Entity:
    """Take the entity off its slug, and off its former ones. The caller has locked the row."""
    former_slugs.release_all(connection, entity.tenant, entity.ref)
    return _updated(
        connection,
        entity,
        archived_at=now,
        as_of=as_of,
        revision=entity.revision + 1,
        updated_at=now,
    )


def purge(connection: Connection, entity: Entity, *, as_of: int | None, now: int) -> Entity:
    """Note that nothing of the archived entity is to be left. The caller has locked the row."""
    return _updated(connection, entity, purge_at=now, as_of=as_of, updated_at=now)


def touch(
    connection: Connection,
    entity: Entity,
    removals: Removals,
    *,
    now: int,
    whole: bool = True,
) -> int:
    """Have the room follow a change of *entity*, which the caller has locked. See the module.

    Not *whole*: only what is wanted of some members has changed, whom the caller notes in `store.checks` with
    the number returned.
    """
    done = sync.change(connection, entity.tenant, "entity", entity.ref, now=now, whole=whole)
    generation = done.generation
    was_settled = done.observed_generation >= generation - 1
    was_confirmed = not was_settled and entity.removals_confirmed == generation - 1
    if (
        removals is Removals.CONFIRMED
        or (removals is Removals.EXPLICIT and (was_settled or was_confirmed))
        or (removals is Removals.FEW and was_confirmed)
    ):
        _updated(connection, entity, removals_confirmed=generation)
    return done.touches


def touch_all(connection: Connection, tenant: str, *, now: int) -> int:
    """Have all rooms of a tenant compared anew, for its settings changed; return how many."""
    live = select(entities.c.id).where(entities.c.tenant == tenant, entities.c.archived_at.is_(None))
    return connection.execute(
        update(sync_table)
        .where(
            sync_table.c.tenant == tenant,
            sync_table.c.subject == "entity",
            sync_table.c.ref.in_(live),
        )
        .values(
            generation=sync_table.c.generation + 1,
            due_at=now,
            attempts=0,
            touches=sync_table.c.touches + 1,
            whole_touch=sync_table.c.touches + 1,
        )
    ).rowcount


def view(connection: Connection, tenant: str, kind: EntityKind, slug: str) -> EntityView | None:
    """Return what `find` would, with its state and its room."""
    row = connection.execute(_by_slug(_views(), tenant, kind, slug)).first()
    return None if row is None else _view(row)


def view_of(connection: Connection, tenant: str, ref: str) -> EntityView | None:
    """Return the entity of that id of ours, with its state and its room."""
    row = connection.execute(_views().where(entities.c.tenant == tenant, entities.c.id == ref)).one_or_none()
    return None if row is None else _view(row)


def list_page(
    connection: Connection, tenant: str, kind: EntityKind, *, after: str | None, limit: int
) -> list[EntityView]:
    """Return up to *limit* live entities in the order of ``slug_key``, from the one after *after*."""
    query = (
        _views()
        .where(entities.c.tenant == tenant, entities.c.kind == kind.value, entities.c.archived_at.is_(None))
        .order_by(entities.c.slug_key)
        .limit(limit)
    )
    if after is not None:
        query = query.where(entities.c.slug_key > after)
    return [_view(row) for row in connection.execute(query)]


def by_alias(connection: Connection, alias: str, tenant: str | None = None) -> Entity | None:
    """Return whose alias *alias* (in full, in any case) is, or was last; one before a renaming counts.

    Only among those of *tenant* (lower-case), if one is given; so with the other two as well.
    """
    for its_tenant, ref in former_slugs.keepers(connection, key(alias), tenant):
        return get(connection, its_tenant, ref)
    query = select(entities).where(entities.c.alias == key(alias))
    return _first(connection, query, tenant)


def by_room_id(connection: Connection, room_id: str, tenant: str | None = None) -> Entity | None:
    """Return whose room *room_id* (Matrix) is or was."""
    its_room = and_(rooms.c.tenant == entities.c.tenant, rooms.c.entity_ref == entities.c.id)
    query = select(entities).join(rooms, its_room).where(rooms.c.room_id == room_id)
    return _first(connection, query, tenant)


def by_event_id(connection: Connection, event_id: str, tenant: str | None = None) -> Entity | None:
    """Return in whose room the event *event_id* (Matrix) happened."""
    known = select(tenants.c.tenant)
    if tenant is not None:
        known = known.where(tenants.c.tenant == tenant)
    # The index on event ids begins with the tenant, so without one it is asked for each.
    logged = connection.execute(
        select(room_events.c.tenant, room_events.c.room_ref)
        .where(room_events.c.tenant.in_(known), room_events.c.event_id == event_id)
        .limit(1)
    ).first()
    if logged is None:
        return None
    its_room = and_(rooms.c.tenant == entities.c.tenant, rooms.c.entity_ref == entities.c.id)
    query = (
        select(entities)
        .join(rooms, its_room)
        .where(rooms.c.tenant == logged.tenant, rooms.c.id == logged.room_ref)
    )
    return _first(connection, query, None)


def _first(connection: Connection, query: Select[Any], tenant: str | None) -> Entity | None:
    if tenant is not None:
        query = query.where(entities.c.tenant == tenant)
    row = connection.execute(_live_first(query)).first()
    return None if row is None else _entity(row)


def _by_slug(query: Select[Any], tenant: str, kind: EntityKind, slug: str) -> Select[Any]:
    return _live_first(
        query.where(
            entities.c.tenant == tenant,
            entities.c.kind == kind.value,
            entities.c.slug_key == key(slug),
        )
    )


def _live_first(query: Select[Any]) -> Select[Any]:
    newest = entities.c.archived_at.desc()
    return query.order_by(newest.nulls_first(), entities.c.created_at.desc(), entities.c.id).limit(1)


def _updated(connection: Connection, entity: Entity, **values: Any) -> Entity:
    row = connection.execute(
        update(entities)
        .where(entities.c.tenant == entity.tenant, entities.c.id == entity.ref)
        .values(**values)
        .returning(entities)
    ).one()
    return _entity(row)


def from_row(row: Row[Any]) -> Entity:
    """Return the entity that *row*, which has all columns of the table, is about."""
    return _entity(row)


def _views() -> Select[Any]:
    state = and_(
        sync_table.c.tenant == entities.c.tenant,
        sync_table.c.subject == "entity",
        sync_table.c.ref == entities.c.id,
    )
    room = and_(
        rooms.c.tenant == entities.c.tenant,
        rooms.c.entity_ref == entities.c.id,
        rooms.c.state.in_(IN_USE),
    )
    return select(
        entities,
        sync_table.c.generation,
        sync_table.c.observed_generation,
        sync_table.c.attempts,
        sync_table.c.due_at,
        sync_table.c.error,
        rooms.c.id.label("room_ref"),
        rooms.c.room_id,
        rooms.c.alias.label("room_alias"),
        rooms.c.room_version,
    ).select_from(entities.outerjoin(sync_table, state).outerjoin(rooms, room))


def _view(row: Row[Any]) -> EntityView:
    status = None
    if row.generation is not None:
        status = SyncStatus(
            generation=row.generation,
            observed_generation=row.observed_generation,
            attempts=row.attempts,
            due_at=row.due_at,
            error=read_error(row.error),
        )
    return EntityView(
        entity=_entity(row),
        sync=status,
        has_room=row.room_ref is not None,
        room_id=row.room_id,
        room_alias=row.room_alias,
        room_version=row.room_version,
    )


def _entity(row: Row[Any]) -> Entity:
    return Entity(
        tenant=row.tenant,
        ref=row.id,
        kind=EntityKind(row.kind),
        slug=row.slug,
        slug_key=row.slug_key,
        alias=row.alias,
        external_id=row.external_id,
        spec=loads(row.spec),
        as_of=row.as_of,
        revision=row.revision,
        members_as_of=row.members_as_of,
        members_revision=row.members_revision,
        removals_confirmed=row.removals_confirmed,
        archived_at=row.archived_at,
        members_listed=row.members_listed,
        former_alias=row.former_alias,
        purge_at=row.purge_at,
    )

"""What OpenMeet wants of an event, group or direct room, with all that was done for it so far: one reading.

The reconciler works from it, and so may everybody who must know what it will make of an entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from openmeet_appservice.domain.direct import desired_direct
from openmeet_appservice.domain.kinds import Access, EntityKind
from openmeet_appservice.domain.moments import from_rfc3339
from openmeet_appservice.domain.rooms import (
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
    desired_room,
    is_open,
)
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.domain.topic import Schedule
from openmeet_appservice.store import (
    entities,
    former_slugs,
    gone,
    members,
    pictures,
    puppets,
    rooms,
    sync,
    tenants,
)
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.pictures import Picture
from openmeet_appservice.store.rooms import IN_USE, Room
from openmeet_appservice.store.tables import entities as entities_table
from openmeet_appservice.store.tables import rooms as rooms_table


@dataclass(frozen=True, slots=True)
class WantedEntity:
    """An event, group or direct room as OpenMeet wants it.

    Parameters
    ----------
    tenant, ref
        The tenant's key and the entity's id of ours.
    settings
        Those that hold for this tenant.
    generation
        The one that was read; what Synapse agrees with once all this is done.
    removals_confirmed
        A person confirmed that many people may be removed at once, and that is not done yet.
    rooms
        Every room that was ever asked for, the oldest first.
    purge
        Nothing of it is to be left.
    aliases
        Every public alias (in full) that it has or had, and that may still lead to one of them.
    former_alias
        See `store.adoption`.
    picture
        What the room's avatar shall be.
    puppets
        Of a direct room: the user ids of those of the two who are puppets.
    memory
        What is remembered of the room in use (`domain.verdict.read_memory`).
    removal_held
        OpenMeet does not know it any more, nor too many others, so it is left as it is.
    """

    tenant: str
    ref: str
    facts: EntityFacts
    members: tuple[MemberFacts, ...]
    settings: RoomSettings
    generation: int
    removals_confirmed: bool
    rooms: tuple[Room, ...]
    aliases: frozenset[str]
    former_alias: str | None
    picture: Picture
    puppets: frozenset[str] = frozenset()
    memory: str | None = None
    purge: bool = False
    removal_held: bool = False

    @property
    def in_use(self) -> Room | None:
        """The room that the entity uses or is about to."""
        return next((room for room in self.rooms if room.state in IN_USE), None)

    @property
    def lost_aliases(self) -> frozenset[str]:
        """Those that its rooms are to do without, whatever is wanted of it."""
        return self.aliases - {self.facts.alias, *self.facts.alternatives}

    @property
    def orphans(self) -> tuple[Room, ...]:
        """Second rooms made for the same claim, still to be closed."""
        return tuple(room for room in self.rooms if room.state == "orphan")

    def with_picture(self, picture: Picture) -> WantedEntity:
        """Return the same with newer knowledge of the picture."""
        return replace(self, picture=picture, facts=replace(self.facts, avatar=picture.avatar))

    @property
    def replaced(self) -> tuple[Room, ...]:
        """Rooms that were recreated, and are to lead to their successor."""
        return tuple(room for room in self.rooms if room.state == "replaced")

    @property
    def ended(self) -> tuple[Room, ...]:
        """Rooms that were recreated and do, with their people still in them."""
        return tuple(room for room in self.rooms if room.state == "ended")

    def desired(self, *, bot: str, default_version: str) -> DesiredRoom:
        """Derive the room it should have; see `domain.rooms.desired_room` and `domain.direct`."""
        if self.facts.kind is EntityKind.DIRECT:
            return desired_direct(
                self.facts,
                self.members,
                self.puppets,
                self.settings,
                bot=bot,
                default_version=default_version,
            )
        desired = desired_room(
            self.facts,
            self.members,
            self.settings,
            bot=bot,
            default_version=default_version,
            removals_confirmed=self.removals_confirmed,
        )
        return replace(desired, guarded=self.in_use is not None and self.in_use.guarded)


def entity(connection: Connection, tenant: str, ref: str, *, defaults: RoomSettings) -> WantedEntity | None:
    """Read everything about one event or group, None if there is none with that id of ours.

    Parameters
    ----------
    defaults
        The settings of tenants that chose nothing themselves.
    """
    found = entities.get(connection, tenant, ref)
    return None if found is None else _wanted(connection, found, defaults)


def entity_by_slug(
    connection: Connection, tenant: str, kind: EntityKind, slug: str, *, defaults: RoomSettings
) -> WantedEntity | None:
    """Read the live entity of that slug, in any case, or else the one archived last."""
    found = entities.find(connection, tenant, kind, slug)
    return None if found is None else _wanted(connection, found, defaults)


def may_lose_alias(connection: Connection, tenant: str, room_id: str, alias: str) -> Room | None:
    """Return the tenant's room *room_id* if *alias* may go from it to another.

    It may when the room, or what it was made for, is history, and when that was renamed and does not keep
    the alias.
    """
    row = connection.execute(
        select(
            rooms_table.c.id,
            rooms_table.c.state,
            rooms_table.c.entity_ref,
            entities_table.c.archived_at,
            entities_table.c.alias,
        )
        .join(
            entities_table,
            (entities_table.c.tenant == rooms_table.c.tenant)
            & (entities_table.c.id == rooms_table.c.entity_ref),
            isouter=True,
        )
        .where(rooms_table.c.tenant == tenant, rooms_table.c.room_id == room_id)
    ).first()
    if row is None:
        return None
    if row.state in IN_USE and row.archived_at is None:
        kept = former_slugs.keepers(connection, alias, tenant)
        if row.alias == alias or (tenant, row.entity_ref) in kept:
            return None
    return rooms.get(connection, tenant, row.id)


def poke_owner_of_alias(connection: Connection, tenant: str, alias: str, *, but: str, now: int) -> bool:
    """Have whatever *alias* is kept for compared again, unless it is *but*.

    For after the alias was taken off another room, in case it had been put on the new one meanwhile.
    """
    owners = connection.execute(
        select(entities_table.c.id).where(
            entities_table.c.tenant == tenant,
            entities_table.c.alias == alias,
            entities_table.c.archived_at.is_(None),
            entities_table.c.id != but,
        )
    ).scalars()
    refs = {*owners, *(ref for _, ref in former_slugs.keepers(connection, alias, tenant))} - {but}
    for ref in sorted(refs):
        sync.poke(connection, tenant, "entity", ref, now=now)
    return bool(refs)


def _wanted(connection: Connection, found: Entity, defaults: RoomSettings) -> WantedEntity:
    known_rooms = tuple(rooms.of_entity(connection, found.tenant, found.ref))
    status = sync.status(connection, found.tenant, "entity", found.ref)
    tenant = tenants.get(connection, found.tenant)
    former = former_slugs.of_entity(connection, found.tenant, found.ref)
    # A closed room keeps the picture that it has.
    is_shown = is_open(found.status, archived=found.archived_at is not None)
    url = found.spec.get("image_url") if is_shown else None
    picture = pictures.of(connection, found.tenant, "entity", found.ref, url)
    people = tuple(members.facts(connection, found))
    ours: frozenset[str] = frozenset()
    if found.kind is EntityKind.DIRECT:
        ours = frozenset(puppets.by_user_id(connection, found.tenant, [one.user_id for one in people]))
    return WantedEntity(
        tenant=found.tenant,
        ref=found.ref,
        facts=facts_of(
            found,
            [known.alias for known in former if known.kept],
            has_room=any(room.state in IN_USE for room in known_rooms),
            avatar=picture.avatar,
        ),
        members=people,
        settings=room_settings(defaults, tenant.settings if tenant else {}),
        generation=status.generation if status else 0,
        removals_confirmed=status is not None and entities.removals_are_confirmed(found, status),
        rooms=known_rooms,
        purge=found.purge_at is not None,
        aliases=frozenset(alias for alias in (found.alias, *(known.alias for known in former)) if alias),
        former_alias=found.former_alias,
        picture=picture,
        puppets=ours,
        memory=None if status is None else status.memory,
        removal_held=found.archived_at is None and gone.is_held(connection, found.tenant, found.ref),
    )


def facts_of(
    found: Entity, alternatives: Iterable[str], *, has_room: bool, avatar: str | None
) -> EntityFacts:
    """Return what OpenMeet said about *found*.

    Parameters
    ----------
    alternatives
        Aliases of former slugs that it keeps.
    has_room
        A room was made or is perhaps being made.
    avatar
        What the room shall show; see `pictures.Picture`.
    """
    access = found.spec.get("access")
    return EntityFacts(
        kind=found.kind,
        name=found.name,
        status=found.status,
        visibility=found.visibility,
        alias=found.alias,
        alternatives=tuple(alternatives),
        topic=found.spec.get("topic"),
        description=found.spec.get("description"),
        url=found.spec.get("url"),
        schedule=_schedule(found.spec),
        avatar=avatar,
        encrypted=found.spec.get("encrypted"),
        access=None if access is None else Access(access),
        archived=found.archived_at is not None,
        has_room=has_room,
    )


def _schedule(spec: Mapping[str, Any]) -> Schedule | None:
    if spec.get("starts_at") is None:
        return None
    ends_at = spec.get("ends_at")
    return Schedule(
        starts_at=from_rfc3339(spec["starts_at"]),
        ends_at=None if ends_at is None else from_rfc3339(ends_at),
        time_zone=spec.get("time_zone") or "UTC",
    )

"""What is wanted of some members of an event or group, read at a cost that does not grow with its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, and_, exists, func, literal, null, select
from sqlalchemy.sql import Subquery

from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind, JoinPolicy
from openmeet_appservice.domain.part import Check
from openmeet_appservice.domain.rooms import DesiredRoom, EntityFacts, MemberFacts, RoomSettings, desired_room
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.store import entities, pictures, puppets, wanted
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.lookup_tables import gone
from openmeet_appservice.store.member_tables import member_checks
from openmeet_appservice.store.members import FEW, Standing
from openmeet_appservice.store.puppets import Puppet
from openmeet_appservice.store.rooms import IN_USE, Room
from openmeet_appservice.store.tables import entities as entities_table
from openmeet_appservice.store.tables import members, sync, tenants, users
from openmeet_appservice.store.tables import rooms as rooms_table


@dataclass(frozen=True, slots=True)
class Part:
    """Some members of an entity whose room is known.

    Parameters
    ----------
    checks
        Who is to be compared.
    puppets
        The puppets of those of them who are users of OpenMeet, by user id.
    entitled
        How many belong into the room. Counted only where it decides who joins; else 0.
    """

    tenant: str
    ref: str
    facts: EntityFacts
    settings: RoomSettings
    room: Room
    room_id: str
    generation: int
    checks: tuple[Check, ...]
    puppets: Mapping[str, Puppet]
    entitled: int

    def desired(self, *, bot: str) -> DesiredRoom:
        """Derive what is wanted of the room and of those members."""
        return desired_room(
            self.facts,
            [check.now for check in self.checks if check.now is not None],
            self.settings,
            bot=bot,
            # Of a room that is still to be made; this one is there.
            default_version="1",
            entitled=self.entitled,
        )


def due(connection: Connection, tenant: str, ref: str, *, defaults: RoomSettings) -> Part | None:
    """Return the noted members, None where the whole entity has to be compared.

    Parameters
    ----------
    defaults
        The settings of tenants that chose nothing themselves.
    """
    found = _entity(connection, tenant, ref)
    if found is None or found.room_id is None or _needs_all(connection, found):
        return None
    noted = (
        select(member_checks.c.user_id, member_checks.c.was)
        .where(member_checks.c.tenant == tenant, member_checks.c.entity_ref == ref)
        .limit(FEW + 1)
        .subquery()
    )
    rows = _checks(connection, noted, tenant, ref)
    if not rows or len(rows) > FEW:
        return None
    return _part(connection, found, rows, defaults)


def of_user(
    connection: Connection, tenant: str, ref: str, user_id: str, *, defaults: RoomSettings
) -> Part | None:
    """Return what is wanted of *user_id* (Matrix); None where there is no room yet."""
    found = _entity(connection, tenant, ref)
    if found is None or found.room_id is None:
        return None
    named = select(literal(user_id).label("user_id"), null().label("was")).subquery()
    return _part(connection, found, _checks(connection, named, tenant, ref), defaults)


def _checks(connection: Connection, named: Subquery, tenant: str, ref: str) -> Sequence[Any]:
    is_user = and_(users.c.tenant == tenant, users.c.user_id == named.c.user_id)
    is_member = and_(
        members.c.tenant == users.c.tenant, members.c.user_ref == users.c.id, members.c.entity_ref == ref
    )
    query = select(named.c.user_id.label("checked"), named.c.was, *puppets.COLUMNS, *_STANDING)
    return connection.execute(query.outerjoin_from(named, users, is_user).outerjoin(members, is_member)).all()


def _entity(connection: Connection, tenant: str, ref: str) -> Row[Any] | None:
    its_sync = and_(
        sync.c.tenant == entities_table.c.tenant,
        sync.c.subject == "entity",
        sync.c.ref == entities_table.c.id,
    )
    its_room = and_(
        rooms_table.c.tenant == entities_table.c.tenant,
        rooms_table.c.entity_ref == entities_table.c.id,
        rooms_table.c.state.in_(IN_USE),
    )
    others = (column for column in rooms_table.c if column.name not in entities_table.c)
    return connection.execute(
        select(
            entities_table,
            rooms_table.c.id.label("room_ref"),
            rooms_table.c.alias.label("room_alias"),
            rooms_table.c.created_at.label("asked_at"),
            *others,
            _UNENDED.label("unended"),
            _HELD.label("removal_held"),
            sync.c.generation,
            sync.c.whole_touch,
            sync.c.seen_touch,
            tenants.c.settings,
        )
        .join_from(entities_table, tenants, tenants.c.tenant == entities_table.c.tenant)
        .join(sync, its_sync)
        .join(rooms_table, its_room)
        .where(entities_table.c.tenant == tenant, entities_table.c.id == ref)
    ).first()


def _needs_all(connection: Connection, row: Row[Any]) -> bool:
    """Whether more than members is to be seen to, or something is in play that shows in the whole alone.

    That is: others than members changed; the two of a direct room; an adopted room that is not enforced; a
    room that takes another's place; what is to be deleted, or would be; and a picture that is still lacking.
    """
    if row.whole_touch > row.seen_touch or row.kind == EntityKind.DIRECT or row.guarded:
        return True
    if row.replaces is not None or row.unended or row.purge_at is not None or row.removal_held:
        return True
    url = entities.from_row(row).spec.get("image_url")
    if url is None:
        return False
    picture = pictures.of(connection, row.tenant, "entity", row.id, url)
    return not picture.is_used or picture.mxc is None or picture.error is not None


def _part(connection: Connection, row: Row[Any], found: Sequence[Any], defaults: RoomSettings) -> Part:
    entity = entities.from_row(row)
    settings = room_settings(defaults, orjson.loads(row.settings))
    room = Room(
        tenant=row.tenant,
        ref=row.room_ref,
        entity_ref=row.id,
        state=row.state,
        claim=row.claim,
        lock_alias=row.lock_alias,
        alias=row.room_alias,
        room_id=row.room_id,
        room_version=row.room_version,
        log_id=row.log_id,
        asked_at=row.asked_at,
        replaces=row.replaces,
        guarded=row.guarded,
    )
    decides = settings.join is JoinPolicy.AUTO
    return Part(
        tenant=row.tenant,
        ref=row.id,
        facts=wanted.facts_of(entity, (), has_room=True, avatar=None),
        settings=settings,
        room=room,
        room_id=row.room_id,
        generation=row.generation,
        checks=tuple(map(_check, found)),
        puppets={one.user_id: puppets.from_row(one) for one in found if one.id is not None},
        entitled=entitled(connection, entity, settings) if decides else 0,
    )


def entitled(connection: Connection, entity: Entity, settings: RoomSettings) -> int:
    """Count who belongs into the room, by kinds of standing: which of them may chat, the domain says."""
    found = connection.execute(
        select(members.c.role, members.c.status, func.count())
        .where(members.c.tenant == entity.tenant, members.c.entity_ref == entity.ref)
        .where(members.c.banned.is_(False))
        .group_by(members.c.role, members.c.status)
    )
    return sum(
        number
        for role, status, number in found
        if may_chat(entity.kind, role, _status(status), settings.chat_statuses)
    )


def _check(row: Any) -> Check:
    now = None if row.role is None else Standing(row.role, row.status, row.banned, row.muted)
    was = None if row.was is None else orjson.loads(row.was)
    return Check(
        user_id=row.checked,
        was=None if was is None else _facts(row.checked, Standing(*was)),
        now=None if now is None else _facts(row.checked, now),
        is_known=row.was is not None,
    )


def _facts(user_id: str, standing: Standing) -> MemberFacts:
    return MemberFacts(user_id, standing.role, _status(standing.status), standing.banned, standing.muted)


def _status(status: str | None) -> AttendeeStatus | None:
    return None if status is None else AttendeeStatus(status)


_STANDING = (members.c.role, members.c.status, members.c.banned, members.c.muted)
"""The columns of a standing; all NULL for who is no member."""

_other_rooms = rooms_table.alias()

_UNENDED = exists().where(
    _other_rooms.c.tenant == entities_table.c.tenant,
    _other_rooms.c.entity_ref == entities_table.c.id,
    _other_rooms.c.state.in_(("replaced", "orphan")),
)

_HELD = exists().where(
    gone.c.tenant == entities_table.c.tenant,
    gone.c.entity_ref == entities_table.c.id,
    gone.c.held_at.is_not(None),
    gone.c.archived_at.is_(None),
)

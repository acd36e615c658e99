"""Puppets that came into a room by themselves and do not belong there.

A puppet's user may hold a session of its own and join where anyone may. What this service does as its puppets
looks the same from outside, so each puppet that comes in is looked up, at one statement for a transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Select, and_, select

from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind
from openmeet_appservice.domain.rooms import MemberFacts, RoomSettings, belongs
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.store import checks
from openmeet_appservice.store.bulk import among_bound, bound
from openmeet_appservice.store.tables import entities, members, rooms, tenants, users


def look_at(
    connection: Connection, joined: Collection[tuple[str, str]], *, now: int, defaults: RoomSettings
) -> bool:
    """Have those puppets compared that do not belong where they came in; return whether there are any.

    Parameters
    ----------
    joined
        Room id and user id (Matrix) of everybody who came in by a membership event of its own.
    defaults
        The room settings of tenants that chose nothing themselves.
    """
    if not joined:
        return False
    dialect = connection.dialect.name
    given = {
        "room_ids": bound(dialect, {room_id for room_id, _ in joined}),
        "user_ids": bound(dialect, {user_id for _, user_id in joined}),
    }
    found = False
    for row in connection.execute(_standing(dialect), given):
        if (row.room_id, row.user_id) in joined and not _belongs(row, defaults):
            checks.look_at(connection, row.tenant, row.id, [row.user_id], now=now)
            found = True
    return found


@cache
def _standing(dialect: str) -> Select[Any]:
    """Return the statement that says what each of these puppets is in the rooms' entities."""
    return (
        select(
            rooms.c.room_id,
            rooms.c.tenant,
            entities.c.id,
            entities.c.kind,
            users.c.user_id,
            members.c.role,
            members.c.status,
            members.c.banned,
            tenants.c.settings,
        )
        .join_from(
            rooms, entities, and_(entities.c.tenant == rooms.c.tenant, entities.c.id == rooms.c.entity_ref)
        )
        .join(tenants, tenants.c.tenant == rooms.c.tenant)
        .join(users, users.c.tenant == rooms.c.tenant)
        .outerjoin(
            members,
            and_(
                members.c.tenant == rooms.c.tenant,
                members.c.entity_ref == entities.c.id,
                members.c.user_ref == users.c.id,
            ),
        )
        .where(
            rooms.c.state == "open",
            among_bound(dialect, rooms.c.room_id, "room_ids"),
            among_bound(dialect, users.c.user_id, "user_ids"),
        )
    )


def _belongs(row: Any, defaults: RoomSettings) -> bool:
    if row.role is None:
        return False
    status = None if row.status is None else AttendeeStatus(row.status)
    member = MemberFacts(row.user_id, row.role, status, row.banned)
    return belongs(EntityKind(row.kind), member, room_settings(defaults, orjson.loads(row.settings)))

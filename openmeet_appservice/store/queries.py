"""Look-ups by Matrix's own names, which reach across tenants: what the homeserver asks about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from openmeet_appservice.domain.arrival import loads
from openmeet_appservice.store.rooms import IN_USE
from openmeet_appservice.store.tables import entities, rooms, tenants, users


@dataclass(frozen=True, slots=True)
class AliasOwner:
    """The live entity for which an alias is kept.

    Parameters
    ----------
    ref
        Our id of it.
    spec, tenant_settings
        As stored: what OpenMeet wants, and what its tenant chose.
    is_set
        Whether the alias points to the room that the entity uses.
    """

    tenant: str
    ref: str
    kind: str
    spec: Mapping[str, Any]
    tenant_settings: Mapping[str, Any]
    is_set: bool


def user_exists(connection: Connection, user_id: str) -> bool:
    """Return whether *user_id* is kept for one of OpenMeet's users, registered or not."""
    found = connection.execute(select(users.c.user_id).where(users.c.user_id == user_id).limit(1))
    return found.first() is not None


def alias_owner(connection: Connection, alias: str) -> AliasOwner | None:
    """Return the live entity for which *alias*, in full, is kept."""
    in_use = and_(
        rooms.c.tenant == entities.c.tenant,
        rooms.c.entity_ref == entities.c.id,
        rooms.c.state.in_(IN_USE),
    )
    row = connection.execute(
        select(
            entities.c.tenant,
            entities.c.id,
            entities.c.kind,
            entities.c.spec,
            tenants.c.settings,
            rooms.c.state,
            rooms.c.alias,
        )
        .join(tenants, tenants.c.tenant == entities.c.tenant)
        .outerjoin(rooms, in_use)
        .where(entities.c.alias == alias, entities.c.archived_at.is_(None))
        .limit(1)
    ).first()
    if row is None:
        return None
    return AliasOwner(
        tenant=row.tenant,
        ref=row.id,
        kind=row.kind,
        spec=loads(row.spec),
        tenant_settings=loads(row.settings),
        is_set=row.state == "open" and row.alias == alias,
    )

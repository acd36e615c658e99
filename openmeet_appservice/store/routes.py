"""Where things come from, as webhooks tell it: tenant, event or group, and room, by OpenMeet's own names."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, select

from openmeet_appservice.store.batches import Route
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.rooms import IN_USE
from openmeet_appservice.store.tables import entities, rooms, tenants


def of_room(connection: Connection, tenant: str, room_ref: str) -> Route | None:
    """Return where that room is, by its id of ours; None for none whose id on Matrix is known."""
    row = connection.execute(
        _KNOWN.where(rooms.c.tenant == tenant, rooms.c.id == room_ref, rooms.c.room_id.is_not(None))
    ).first()
    return None if row is None else Route(*row[2:])


def by_room_ids(connection: Connection, room_ids: Collection[str]) -> dict[str, tuple[str, Route]]:
    """Return where the rooms of ours among *room_ids* (any number) are, each with its tenant's key."""
    rows = connection.execute(_KNOWN.where(among(connection, rooms.c.room_id, room_ids)))
    return {row.room_id: (row.tenant, Route(*row[2:])) for row in rows}


def of_entity(connection: Connection, tenant: str, entity_ref: str) -> Route | None:
    """Return where the event or group is; what is of its room is None while that is not known."""
    in_use = and_(
        rooms.c.tenant == entities.c.tenant,
        rooms.c.entity_ref == entities.c.id,
        rooms.c.state.in_(IN_USE),
        rooms.c.room_id.is_not(None),
    )
    row = connection.execute(
        select(*_COLUMNS)
        .join_from(entities, tenants, tenants.c.tenant == entities.c.tenant)
        .outerjoin(rooms, in_use)
        .where(entities.c.tenant == tenant, entities.c.id == entity_ref)
    ).first()
    return None if row is None else Route(*row)


_COLUMNS = (
    tenants.c.tenant_id,
    entities.c.kind,
    entities.c.slug,
    entities.c.external_id,
    rooms.c.room_id,
    rooms.c.alias,
    rooms.c.log_id,
)

_KNOWN = (
    select(rooms.c.tenant, rooms.c.id, *_COLUMNS)
    .join_from(rooms, tenants, tenants.c.tenant == rooms.c.tenant)
    .join_from(
        rooms, entities, and_(entities.c.tenant == rooms.c.tenant, entities.c.id == rooms.c.entity_ref)
    )
)

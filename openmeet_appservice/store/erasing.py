"""Erasing an archived event or group: nothing of it is left here, once nothing is left on the homeserver.

What was not delivered yet is dropped: its content is to be gone, and a dead endpoint must not keep it. The
log goes in parts, for ingest waits meanwhile; whoever dies in between begins again. What is left goes by
itself: operational webhooks that wait to be delivered, answers kept for an ``Idempotency-Key`` (24 hours),
and the record of webhook attempts, which holds no events.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select, update

from openmeet_appservice.store import event_log, rooms
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.member_tables import member_checks, member_errors, member_kicks
from openmeet_appservice.store.tables import (
    batches,
    dead_letters,
    endpoints,
    entities,
    former_slugs,
    lanes,
    members,
    messages,
    picture_uses,
    replays,
    room_events,
    sync,
)
from openmeet_appservice.store.tables import rooms as rooms_table

EVENTS_AT_ONCE = 500
"""What one transaction deletes at most."""


def drop_deliveries(connection: Connection, tenant: str, room_refs: Collection[str]) -> None:
    """Drop everything that was still to be sent of these rooms, and what is kept of what was given up."""
    refs = sorted(room_refs)
    for table in (batches, replays, lanes, messages):
        connection.execute(delete(table).where(table.c.tenant == tenant, table.c.room_ref.in_(refs)))
    owners = (tenant, PLATFORM)
    serving = select(endpoints.c.id).where(endpoints.c.tenant.in_(owners))
    connection.execute(
        delete(dead_letters).where(
            dead_letters.c.owner.in_(owners),
            dead_letters.c.endpoint_ref.in_(serving),
            dead_letters.c.tenant == tenant,
            dead_letters.c.room_ref.in_(refs),
        )
    )


def erase_events(connection: Connection, tenant: str, room_ref: str) -> int:
    """Delete the oldest `EVENTS_AT_ONCE` events of a room; return how many there were."""
    of_room = (room_events.c.tenant == tenant, room_events.c.room_ref == room_ref)
    oldest = (
        select(room_events.c.sequence).where(*of_room).order_by(room_events.c.sequence).limit(EVENTS_AT_ONCE)
    )
    found = connection.execute(oldest).scalars().all()
    if found:
        connection.execute(delete(room_events).where(*of_room, room_events.c.sequence <= found[-1]))
    return len(found)


def finish(connection: Connection, entity: Entity, purged: Collection[str]) -> bool:
    """Erase the entity with what is left of its rooms; False, having done nothing, where it has more rooms.

    An older one under the same slug, which could be read no more since this one had taken that, does not
    come to light by it.

    Parameters
    ----------
    purged
        Our ids of the rooms that the homeserver has deleted, or never made.
    """
    tenant, ref = entity.tenant, entity.ref
    known = rooms.of_entity(connection, tenant, ref)
    if not {room.ref for room in known} <= set(purged):
        return False
    refs = [room.ref for room in known]
    # The rooms first: with them goes the way into the log.
    connection.execute(
        delete(rooms_table).where(rooms_table.c.tenant == tenant, rooms_table.c.entity_ref == ref)
    )
    for room in known:
        if room.room_id is not None:
            event_log.drop_held(connection, room.room_id)
        while erase_events(connection, tenant, room.ref):
            pass
    drop_deliveries(connection, tenant, refs)
    for table in (members, former_slugs, member_checks, member_errors, member_kicks):
        connection.execute(delete(table).where(table.c.tenant == tenant, table.c.entity_ref == ref))
    for subjects in (sync, picture_uses):
        connection.execute(
            delete(subjects).where(
                subjects.c.tenant == tenant, subjects.c.subject == "entity", subjects.c.ref == ref
            )
        )
    connection.execute(delete(entities).where(entities.c.tenant == tenant, entities.c.id == ref))
    connection.execute(
        update(entities)
        .where(
            entities.c.tenant == tenant,
            entities.c.kind == entity.kind.value,
            entities.c.slug_key == entity.slug_key,
            entities.c.archived_at.is_not(None),
        )
        .values(slug_key="")
    )
    return True

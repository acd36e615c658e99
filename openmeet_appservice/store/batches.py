"""Batches: what is under way in a lane, exactly as it is signed; and what the next one is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, exists, insert, select

from openmeet_appservice.store.lanes import Lane
from openmeet_appservice.store.replay_parts import Part
from openmeet_appservice.store.tables import batches, entities, replays, room_events, rooms, tenants, users

_PAGE = 50
"""How many events are read at a time: they may have 64 KiB each, and few may fit."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch under way. *webhook_id* and *body* are the same on every try.

    *replay_ref* is the replay that it is a part of, None for new events.
    """

    webhook_id: str
    first: int
    last: int
    body: str
    replay_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A room, and what it is the room of. *tenant_id*, *slug* and *external_id* are as OpenMeet gave them.

    *room_id* and *log_id* are None only where `routes.of_entity` was asked about what has no room yet.
    """

    tenant_id: str
    kind: str
    slug: str
    external_id: str | None
    room_id: str | None
    alias: str | None
    log_id: str | None

    def shown(self) -> dict[str, str | None]:
        """Return it as ``room`` in the bodies of webhooks."""
        return {
            "kind": self.kind,
            "slug": self.slug,
            "external_id": self.external_id,
            "room_id": self.room_id,
            "alias": self.alias,
            "log_id": self.log_id,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lane about to be sent in: from which room, with which batch under way, and whether a replay waits."""

    route: Route
    batch: Batch | None
    replaying: bool


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of the log. *body* is its JSON text.

    *repaired_after* is None for what Synapse pushed; for what gap repair added it is the event that it comes
    after in the room's history, empty for none.
    """

    sequence: int
    origin: str
    sender: str
    type: str
    body: str
    repaired_after: str | None = None


@dataclass(frozen=True, slots=True)
class Puppet:
    """Whose puppet a user id is: the slug and external id as OpenMeet gave them."""

    user: str
    external_id: str | None


def prepare(
    connection: Connection, tenant: str, endpoint_ref: str, room_refs: Collection[str]
) -> dict[str, Prepared]:
    """Return where these lanes come from as things are now, and what is under way in them.

    By ``room_ref``; a lane whose room is gone is left out.
    """
    rows = connection.execute(
        _PREPARE, {"tenant": tenant, "endpoint_ref": endpoint_ref, "rooms": sorted(room_refs)}
    )
    return {
        row[0]: Prepared(Route(*row[1:8]), None if row[8] is None else Batch(*row[8:13]), bool(row[13]))
        for row in rows
    }


# What every batch needs is built once: building a statement costs more than running it.
_PREPARE = (
    select(
        rooms.c.id,
        tenants.c.tenant_id,
        entities.c.kind,
        entities.c.slug,
        entities.c.external_id,
        rooms.c.room_id,
        rooms.c.alias,
        rooms.c.log_id,
        batches.c.webhook_id,
        batches.c.first_sequence,
        batches.c.last_sequence,
        batches.c.body,
        batches.c.replay_ref,
        exists().where(
            replays.c.tenant == rooms.c.tenant,
            replays.c.endpoint_ref == bindparam("endpoint_ref"),
            replays.c.room_ref == rooms.c.id,
        ),
    )
    .join_from(rooms, tenants, tenants.c.tenant == rooms.c.tenant)
    .join_from(
        rooms, entities, and_(entities.c.tenant == rooms.c.tenant, entities.c.id == rooms.c.entity_ref)
    )
    .outerjoin_from(
        rooms,
        batches,
        and_(
            batches.c.tenant == rooms.c.tenant,
            batches.c.endpoint_ref == bindparam("endpoint_ref"),
            batches.c.room_ref == rooms.c.id,
        ),
    )
    .where(rooms.c.tenant == bindparam("tenant"), rooms.c.id.in_(bindparam("rooms", expanding=True)))
)


def begin(connection: Connection, begun: Collection[tuple[Lane, Batch]], *, now: int) -> None:
    """Store batches, before they are sent for the first time."""
    if begun:
        connection.execute(
            _BEGIN,
            [
                {
                    "tenant": lane.tenant,
                    "endpoint_ref": lane.endpoint_ref,
                    "room_ref": lane.room_ref,
                    "webhook_id": batch.webhook_id,
                    "first_sequence": batch.first,
                    "last_sequence": batch.last,
                    "body": batch.body,
                    "replay_ref": batch.replay_ref,
                    "created_at": now,
                }
                for lane, batch in begun
            ],
        )


def end(connection: Connection, lane: Lane, webhook_id: str) -> None:
    """Drop the batch that was taken."""
    connection.execute(
        _END,
        {
            "tenant": lane.tenant,
            "endpoint_ref": lane.endpoint_ref,
            "room_ref": lane.room_ref,
            "webhook_id": webhook_id,
        },
    )


_BEGIN = insert(batches)
_END = delete(batches).where(
    batches.c.tenant == bindparam("tenant"),
    batches.c.endpoint_ref == bindparam("endpoint_ref"),
    batches.c.room_ref == bindparam("room_ref"),
    batches.c.webhook_id == bindparam("webhook_id"),
)


def events_of(connection: Connection, lane: Lane, part: Part | None = None) -> Iterator[LoggedEvent]:
    """Yield what is to be sent in the lane, in order: a part of a replay, or the new events.

    Stop whenever it is enough.
    """
    of_room: dict[str, object] = {"tenant": lane.tenant, "room_ref": lane.room_ref}
    if part is None:
        query, after = _EVENTS, lane.acked
    else:
        query, after = _EVENTS_UPTO, part.first - 1
        of_room["upto"] = part.last
    while True:
        page = connection.execute(query, {**of_room, "after": after}).all()
        for row in page:
            yield LoggedEvent(*row)
            after = row.sequence
        if len(page) < _PAGE:
            return


_EVENTS = (
    select(
        room_events.c.sequence,
        room_events.c.origin,
        room_events.c.sender,
        room_events.c.type,
        room_events.c.body,
        room_events.c.repaired_after,
    )
    .where(
        room_events.c.tenant == bindparam("tenant"),
        room_events.c.room_ref == bindparam("room_ref"),
        room_events.c.sequence > bindparam("after"),
    )
    .order_by(room_events.c.sequence)
    .limit(_PAGE)
)
_EVENTS_UPTO = _EVENTS.where(room_events.c.sequence <= bindparam("upto"))


def puppets(connection: Connection, tenant: str, user_ids: Iterable[str]) -> dict[str, Puppet]:
    """Return whose puppets these user ids are; those that are nobody's in this tenant are left out."""
    rows = connection.execute(_PUPPETS, {"tenant": tenant, "user_ids": sorted(set(user_ids))})
    return {row.user_id: Puppet(row.slug, row.external_id) for row in rows}


_PUPPETS = select(users.c.user_id, users.c.slug, users.c.external_id).where(
    users.c.tenant == bindparam("tenant"), users.c.user_id.in_(bindparam("user_ids", expanding=True))
)

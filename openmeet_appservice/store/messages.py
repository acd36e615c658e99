"""Messages that OpenMeet sends as its users: a row each, committed before Synapse is asked.

::

    prepared ──PUT …/send──▶ sent (event id known, content dropped)
        │  outcome unknown
        └──▶ looked for by its mark, in the log and in the room's history, before it is sent again

The event log learns the event id too, when the message comes back in a transaction: whichever is first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.store.idempotency import KEPT_MS
from openmeet_appservice.store.rooms import IN_USE
from openmeet_appservice.store.tables import entities, members, messages, rooms, sync, tenants, users

REPEATABLE_MS = KEPT_MS
"""For how long, in milliseconds, the same id means the same message: as long as its ``Idempotency-Key``."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A user who is to speak in an entity's room, and all that decides whether that is possible.

    *role* is None for somebody who is not a member, *room_id* while there is no room; *registered* says that
    Synapse has the user's account, *silenced* that the member is banned or muted, *settled* that Synapse
    agrees with everything OpenMeet wants of the entity.
    """

    user_ref: str
    user_id: str
    registered: bool
    entity_ref: str
    role: str | None
    status: str | None
    silenced: bool
    room_ref: str | None
    room_id: str | None
    settings: Mapping[str, Any]
    settled: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One message. *content* is None once it is sent, *event_id* until then."""

    tenant: str
    id: str
    room_id: str
    user_id: str
    transaction_id: str
    content: Mapping[str, Any] | None
    event_id: str | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that is to be sent. One that is not *fresh* may be in its room already."""

    message: Message
    fresh: bool


def sender(
    connection: Connection, tenant: str, kind: str, slug_key: str, user_key: str
) -> Sender | Literal["no entity", "no user"]:
    """Return what is known of the user in that live entity's room, or what does not exist."""
    entity = connection.execute(
        select(
            entities.c.id,
            tenants.c.settings,
            rooms.c.id.label("room_ref"),
            rooms.c.room_id,
            sync.c.generation,
            sync.c.observed_generation,
        )
        .join(tenants, tenants.c.tenant == entities.c.tenant)
        .join(
            sync,
            and_(
                sync.c.tenant == entities.c.tenant,
                sync.c.subject == "entity",
                sync.c.ref == entities.c.id,
            ),
        )
        .outerjoin(
            rooms,
            and_(
                rooms.c.tenant == entities.c.tenant,
                rooms.c.entity_ref == entities.c.id,
                rooms.c.state.in_(IN_USE),
            ),
        )
        .where(
            entities.c.tenant == tenant,
            entities.c.kind == kind,
            entities.c.slug_key == slug_key,
            entities.c.archived_at.is_(None),
        )
    ).first()
    if entity is None:
        return "no entity"
    user = connection.execute(
        select(
            users.c.id,
            users.c.user_id,
            users.c.registered_at,
            members.c.role,
            members.c.status,
            members.c.banned,
            members.c.muted,
        )
        .outerjoin(
            members,
            and_(
                members.c.tenant == users.c.tenant,
                members.c.user_ref == users.c.id,
                members.c.entity_ref == entity.id,
            ),
        )
        .where(users.c.tenant == tenant, users.c.slug_key == user_key)
    ).first()
    if user is None:
        return "no user"
    return Sender(
        user_ref=user.id,
        user_id=user.user_id,
        registered=user.registered_at is not None,
        entity_ref=entity.id,
        role=user.role,
        status=user.status,
        silenced=bool(user.banned or user.muted),
        room_ref=entity.room_ref,
        room_id=entity.room_id,
        settings=orjson.loads(entity.settings),
        settled=entity.generation == entity.observed_generation,
    )


def prepare(
    connection: Connection,
    tenant: str,
    message: str,
    sender: Sender,
    *,
    transaction_id: str,
    content: Mapping[str, Any],
    now: int,
) -> Prepared:
    """Commit to sending *content*, unless a message of that id was prepared in the last `REPEATABLE_MS`."""
    found = get(connection, tenant, message)
    if found is not None and now - found.created_at < REPEATABLE_MS:
        return Prepared(found, fresh=False)
    if found is not None:
        connection.execute(delete(messages).where(messages.c.tenant == tenant, messages.c.id == message))
    connection.execute(
        insert(messages).values(
            tenant=tenant,
            id=message,
            room_ref=sender.room_ref,
            user_ref=sender.user_ref,
            transaction_id=transaction_id,
            content=dumps(content),
            created_at=now,
        )
    )
    prepared = get(connection, tenant, message)
    assert prepared is not None
    return Prepared(prepared, fresh=True)


def get(connection: Connection, tenant: str, message: str) -> Message | None:
    """Return the message, None where there is none of that id."""
    row = connection.execute(
        select(messages, rooms.c.room_id, users.c.user_id)
        .join(rooms, and_(rooms.c.tenant == messages.c.tenant, rooms.c.id == messages.c.room_ref))
        .join(users, and_(users.c.tenant == messages.c.tenant, users.c.id == messages.c.user_ref))
        .where(messages.c.tenant == tenant, messages.c.id == message)
    ).first()
    return None if row is None else _message(row)


def sent(connection: Connection, tenant: str, message: str, event_id: str) -> None:
    """Record that the message is in its room as *event_id*, and drop its content."""
    connection.execute(
        update(messages)
        .where(messages.c.tenant == tenant, messages.c.id == message, messages.c.event_id.is_(None))
        .values(event_id=event_id, content=None)
    )


def drop(connection: Connection, tenant: str, message: str) -> None:
    """Forget a message that Synapse refused, so that it can never be sent."""
    connection.execute(
        delete(messages).where(
            messages.c.tenant == tenant, messages.c.id == message, messages.c.event_id.is_(None)
        )
    )


def forget(connection: Connection, *, before: int) -> int:
    """Drop the rows of messages older than *before*, whose marks nobody looks for any more."""
    return connection.execute(delete(messages).where(messages.c.created_at < before)).rowcount


def _message(row: Row[Any]) -> Message:
    return Message(
        tenant=row.tenant,
        id=row.id,
        room_id=row.room_id,
        user_id=row.user_id,
        transaction_id=row.transaction_id,
        content=None if row.content is None else orjson.loads(row.content),
        event_id=row.event_id,
        created_at=row.created_at,
    )

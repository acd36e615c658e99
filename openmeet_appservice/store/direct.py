"""Which direct rooms a puppet has, for its ``m.direct``, and which puppets a direct room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import puppets
from openmeet_appservice.store.tables import entities, members, rooms, users


@dataclass(frozen=True, slots=True)
class Chats:
    """The direct rooms of one puppet.

    Parameters
    ----------
    present
        The ids of those in use, by the user id of the other.
    past
        The ids of those that are not in use any more.
    """

    present: Mapping[str, frozenset[str]]
    past: frozenset[str]


def chats_of(connection: Connection, tenant: str, user_id: str) -> Chats:
    """Return the direct rooms of the tenant's puppet *user_id* whose ids on Matrix are known."""
    own, other = members.alias(), members.alias()
    self, partner = users.alias(), users.alias()
    rows = connection.execute(
        select(partner.c.user_id, rooms.c.room_id, rooms.c.state, entities.c.archived_at)
        .select_from(self)
        .join(own, and_(own.c.tenant == self.c.tenant, own.c.user_ref == self.c.id))
        .join(entities, and_(entities.c.tenant == own.c.tenant, entities.c.id == own.c.entity_ref))
        .join(
            other,
            and_(
                other.c.tenant == own.c.tenant,
                other.c.entity_ref == own.c.entity_ref,
                other.c.user_ref != own.c.user_ref,
            ),
        )
        .join(partner, and_(partner.c.tenant == other.c.tenant, partner.c.id == other.c.user_ref))
        .join(rooms, and_(rooms.c.tenant == own.c.tenant, rooms.c.entity_ref == own.c.entity_ref))
        .where(self.c.tenant == tenant, self.c.user_id == user_id)
        .where(entities.c.kind == EntityKind.DIRECT.value, rooms.c.room_id.is_not(None))
    )
    present: dict[str, set[str]] = {}
    past: set[str] = set()
    for row in rows:
        if row.state == "open" and row.archived_at is None:
            present.setdefault(row.user_id, set()).add(row.room_id)
        else:
            past.add(row.room_id)
    return Chats({user: frozenset(ids) for user, ids in present.items()}, frozenset(past))


def puppets_of_room(connection: Connection, tenant: str, room_ref: str) -> set[str]:
    """Return the user ids of the puppets whose room that is (our id of it), inside or not."""
    people = connection.execute(
        select(users.c.user_id)
        .select_from(rooms)
        .join(members, and_(members.c.tenant == rooms.c.tenant, members.c.entity_ref == rooms.c.entity_ref))
        .join(users, and_(users.c.tenant == members.c.tenant, users.c.id == members.c.user_ref))
        .where(rooms.c.tenant == tenant, rooms.c.id == room_ref)
    )
    return set(puppets.by_user_id(connection, tenant, people.scalars().all()))

"""Who belongs to an event or group, in which role.

The row of the entity is the lock: whoever changes its members has locked it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, select, update

from openmeet_appservice.domain.kinds import AttendeeStatus
from openmeet_appservice.domain.rooms import MemberFacts
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.tables import members, users


@dataclass(frozen=True, slots=True)
class Standing:
    """What somebody is in an entity. *status* is an attendee's; None: not said, which means confirmed."""

    role: str
    status: str | None = None
    banned: bool = False
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A member: our id of the user, its slug as given, and what it is."""

    user_ref: str
    user: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did to a list of members: how many it added, changed and removed, of how many."""

    added: int
    changed: int
    removed: int
    before: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @property
    def after(self) -> int:
        """How many members there are now."""
        return self.before + self.added - self.removed

    @property
    def may_lose(self) -> int:
        """How many people may lose their place by it: those removed, and those who are something else."""
        return self.removed + self.changed


def count(connection: Connection, entity: Entity) -> int:
    """Return how many members the entity has."""
    return int(connection.execute(_of(entity, select(func.count()).select_from(members))).scalar_one())


def of_entity(connection: Connection, entity: Entity) -> dict[str, Standing]:
    """Return all members by our id of the user."""
    found = connection.execute(_of(entity, select(members.c.user_ref, *_STANDING)))
    return {ref: Standing(*standing) for ref, *standing in found}


def one(connection: Connection, entity: Entity, user_ref: str) -> Standing | None:
    """Return what one user is in the entity, None for nothing."""
    row = connection.execute(
        _of(entity, select(*_STANDING)).where(members.c.user_ref == user_ref)
    ).one_or_none()
    return None if row is None else Standing(*row)


def facts(connection: Connection, entity: Entity) -> list[MemberFacts]:
    """Return all members as `domain.rooms` wants them, by the user ids of their puppets."""
    found = connection.execute(
        _of(entity, select(users.c.user_id, *_STANDING).join_from(members, users, _JOIN))
    )
    return [
        MemberFacts(user_id, role, None if status is None else AttendeeStatus(status), banned, muted)
        for user_id, role, status, banned, muted in found
    ]


def list_page(connection: Connection, entity: Entity, *, after: str | None, limit: int) -> list[Member]:
    """Return up to *limit* members in the order of ``user_ref``, from the one after *after*.

    By our ids, because that order has an index, whatever the number of members.
    """
    query = _of(
        entity,
        select(members.c.user_ref, users.c.slug, *_STANDING).join_from(members, users, _JOIN),
    )
    if after is not None:
        query = query.where(members.c.user_ref > after)
    found = connection.execute(query.order_by(members.c.user_ref).limit(limit))
    return [Member(ref, slug, Standing(*standing)) for ref, slug, *standing in found]


def replace(connection: Connection, entity: Entity, wanted: Mapping[str, Standing]) -> Change:
    """Make *wanted*, by our ids of users, the exact list."""
    known = of_entity(connection, entity)
    return _apply(connection, entity, known, len(known), wanted, known.keys() - wanted.keys())


def merge(
    connection: Connection, entity: Entity, wanted: Mapping[str, Standing], gone: Collection[str]
) -> Change:
    """Add or change *wanted* and remove *gone*, both by our ids of users; leave the others alone."""
    named = [*wanted, *gone]
    found = connection.execute(
        _of(entity, select(members.c.user_ref, *_STANDING)).where(
            among(connection, members.c.user_ref, named)
        )
    )
    known = {ref: Standing(*standing) for ref, *standing in found}
    return _apply(connection, entity, known, count(connection, entity), wanted, known.keys() & set(gone))


def _apply(
    connection: Connection,
    entity: Entity,
    known: Mapping[str, Standing],
    before: int,
    wanted: Mapping[str, Standing],
    gone: Collection[str],
) -> Change:
    new = {ref: standing for ref, standing in wanted.items() if ref not in known}
    other = {ref: s for ref, s in wanted.items() if ref in known and known[ref] != s}
    if gone:
        connection.execute(
            delete(members).where(
                members.c.tenant == entity.tenant,
                members.c.entity_ref == entity.ref,
                among(connection, members.c.user_ref, gone),
            )
        )
    if other:
        connection.execute(_UPDATE, [_named(entity, ref, s, "its_") for ref, s in other.items()])
    if new:
        connection.execute(insert(members), [_named(entity, ref, s) for ref, s in new.items()])
    return Change(added=len(new), changed=len(other), removed=len(gone), before=before)


def _named(entity: Entity, user_ref: str, standing: Standing, prefix: str = "") -> dict[str, Any]:
    values = {
        "tenant": entity.tenant,
        "entity_ref": entity.ref,
        "user_ref": user_ref,
        "role": standing.role,
        "status": standing.status,
        "banned": standing.banned,
        "muted": standing.muted,
    }
    return {prefix + name: value for name, value in values.items()}


def _of(entity: Entity, query: Select[Any]) -> Select[Any]:
    return query.where(members.c.tenant == entity.tenant, members.c.entity_ref == entity.ref)


_STANDING = (members.c.role, members.c.status, members.c.banned, members.c.muted)
"""The columns that make a `Standing`, in its order."""

_JOIN = and_(users.c.tenant == members.c.tenant, users.c.id == members.c.user_ref)

_UPDATE = (
    update(members)
    .where(
        members.c.tenant == bindparam("its_tenant"),
        members.c.entity_ref == bindparam("its_entity_ref"),
        members.c.user_ref == bindparam("its_user_ref"),
    )
    .values(
        role=bindparam("its_role"),
        status=bindparam("its_status"),
        banned=bindparam("its_banned"),
        muted=bindparam("its_muted"),
    )
)

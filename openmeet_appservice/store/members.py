"""Who belongs to an event or group, in which role.

The row of the entity is the lock: whoever changes its members has locked it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, select, update

from openmeet_appservice.domain.kinds import AttendeeStatus
from openmeet_appservice.domain.rooms import MemberFacts
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.tables import members, users

FEW: Final = 20
"""Up to so many members are compared one by one; for more, reading the whole room costs less."""


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
    """What a write did to a list of members: how many it added, changed and removed, of how many.

    *were* says what each of those was before, by user id (Matrix); None where they are more than `FEW`.
    """

    added: int
    changed: int
    removed: int
    before: int
    were: Mapping[str, Standing | None] | None = field(default=None, compare=False)

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
    done = _apply(connection, entity, known, wanted, known.keys() - wanted.keys())
    were = None
    if len(done.refs) <= FEW:
        user_ids = {row.id: row.user_id for row in _named_users(connection, entity, done.refs)}
        were = {user_ids[ref]: known.get(ref) for ref in done.refs}
    return Change(done.added, done.changed, done.removed, before=len(known), were=were)


def merge(
    connection: Connection, entity: Entity, wanted: Mapping[str, Standing], gone: Collection[str]
) -> Change:
    """Add or change *wanted* and remove *gone*, both by our ids of users; leave the others alone."""
    before, user_ids, known = None, {}, {}
    for row in _named_users(connection, entity, [*wanted, *gone]):
        before, user_ids[row.id] = row.number, row.user_id
        if row.role is not None:
            known[row.id] = Standing(row.role, row.status, row.banned, row.muted)
    if before is None:
        before = count(connection, entity)
    done = _apply(connection, entity, known, wanted, known.keys() & set(gone))
    were = {user_ids[ref]: known.get(ref) for ref in done.refs} if len(done.refs) <= FEW else None
    return Change(done.added, done.changed, done.removed, before=before, were=were)


def _named_users(connection: Connection, entity: Entity, refs: Collection[str]) -> Sequence[Any]:
    """Return our id, the user id and the standing (NULL where there is none) of each of *refs*.

    With each comes the *number* of members that the entity has.
    """
    if not refs:
        return ()
    everybody = members.alias()
    number = (
        select(func.count())
        .select_from(everybody)
        .where(everybody.c.tenant == entity.tenant, everybody.c.entity_ref == entity.ref)
        .scalar_subquery()
    )
    is_member = and_(_JOIN, members.c.entity_ref == entity.ref)
    return connection.execute(
        select(users.c.id, users.c.user_id, *_STANDING, number.label("number"))
        .outerjoin_from(users, members, is_member)
        .where(users.c.tenant == entity.tenant, among(connection, users.c.id, refs))
    ).all()


@dataclass(frozen=True, slots=True)
class _Applied:
    added: int
    changed: int
    removed: int
    refs: Collection[str]


def _apply(
    connection: Connection,
    entity: Entity,
    known: Mapping[str, Standing],
    wanted: Mapping[str, Standing],
    gone: Collection[str],
) -> _Applied:
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
    return _Applied(len(new), len(other), len(gone), [*new, *other, *gone])


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

"""What an answer of OpenMeet changes: the same writes as a ``PUT``, under conditions of their own.

An answer is as old as the moment at which the question was begun. Two things keep an old one from undoing
something newer. That moment is the write's ``as_of``, so what OpenMeet wrote with a later one wins. And since
OpenMeet need not give an ``as_of``, what the question was about must still be as it was when it was begun; if
somebody wrote meanwhile, it is asked again.

Plain functions of a connection, one transaction each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.provisioning import entity_writes, life_writes
from openmeet_appservice.provisioning.entities import wanted_spec
from openmeet_appservice.provisioning.entity_writes import Place, Spec
from openmeet_appservice.provisioning.lookup import Found
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.specs import UserSpec
from openmeet_appservice.provisioning.users import Users
from openmeet_appservice.provisioning.writes import Write
from openmeet_appservice.store import entities, gone, members, sync, tenants, users
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.hints import Kind
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.tenants import Tenant

LONG_GONE = 3_600_000
"""Milliseconds for which OpenMeet must not know something that is in use, before it is archived."""

WINDOW = 3_600_000
"""Milliseconds within which no more than so many may be archived because OpenMeet does not know them."""

FEW, PERCENT = 5, 1
"""So many of a tenant's entities may be in any case, or so many of a hundred."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What is asked about: an event, a group, one member of it (*user*), or a user."""

    tenant: str
    kind: Kind
    slug: str
    user: str | None = None

    @property
    def place(self) -> Place:
        """The event or group."""
        return Place(self.tenant, EntityKind(self.kind), self.slug)


@dataclass(frozen=True, slots=True)
class Before:
    """How it was when the question was begun.

    *ref* is our id of it, None for what is not in use; of a former one *former* is.
    """

    tenant: Tenant
    ref: str | None
    former: str | None = None
    revision: int = 0
    members_revision: int = 0
    standing: Standing | None = None


class Result(Enum):
    """What became of an answer.

    ``DONE``: it is as OpenMeet says. ``OUTDATED``: something newer was written meanwhile. ``ANOTHER``:
    OpenMeet has another thing of that name. ``MISSING``: it is not there, for not long enough. ``ARCHIVED``:
    it is not there, and so neither here. ``HELD``: it should be archived, but so should too many.
    """

    DONE = "done"
    OUTDATED = "outdated"
    ANOTHER = "another"
    MISSING = "missing"
    ARCHIVED = "archived"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of an answer, and whether the homeserver has to follow. *again_at*: when to ask again."""

    result: Result
    touched: bool = False
    again_at: int | None = None


def before(connection: Connection, topic: Topic) -> Before | None:
    """Return how it is; None where there is no such tenant."""
    tenant = tenants.get(connection, topic.tenant)
    if tenant is None:
        return None
    if topic.kind == "user":
        user = users.find(connection, topic.tenant, topic.slug)
        return Before(tenant, None) if user is None else Before(tenant, user.ref, revision=user.revision)
    found = entities.find(connection, topic.tenant, topic.place.kind, topic.slug)
    if found is None or found.archived_at is not None:
        return Before(tenant, None, former=None if found is None else found.ref)
    standing = None if topic.user is None else _standing(connection, found, topic.user)
    return Before(tenant, found.ref, None, found.revision, found.members_revision, standing)


def follow(
    connection: Connection,
    parts: Parts,
    topic: Topic,
    found: Found,
    known: Before,
    *,
    previous: str | None = None,
    began: int,
    now: int,
) -> Followed:
    """Make what OpenMeet answered about an event or group what is wanted.

    Parameters
    ----------
    known
        How it was when the question was begun.
    previous
        What it was called before, as a hint said.
    began
        When that was (milliseconds since the epoch).

    Raises
    ------
    ApiError
        It cannot be: a name on Matrix belongs to something else, or there is no place for it.
    """
    place = topic.place
    entity = entities.find(connection, topic.tenant, place.kind, topic.slug, lock=True)
    if _has_changed(connection, entity, topic, known):
        return Followed(Result.OUTDATED)
    assert not isinstance(found.spec, UserSpec)
    spec = wanted_spec(found.spec)
    live = entity if entity is not None and entity.archived_at is None else None
    if live is not None and _is_another(live.external_id, spec.external_id):
        return Followed(Result.ANOTHER)
    was_held = live is not None and gone.forget(connection, live)
    write = Write(now=now, as_of=began, if_match=None)
    if live is None and previous is not None:
        _rename(connection, parts, replace(place, slug=previous), topic.slug, spec, write)
    whole = found.members if topic.user is None else None
    done = entity_writes.put(connection, parts, place, spec, whole, write)
    touched, outdated = done.touched, done.superseded or done.members_superseded
    if topic.user is not None and found.members is not None:
        leaving = [topic.user] if not found.members else []
        one = entity_writes.change_people(
            connection, parts, place, found.members, leaving, write, explicit=True
        )
        touched, outdated = touched or one.touched, outdated or one.superseded
    if live is not None and was_held and not touched:
        sync.poke(connection, topic.tenant, "entity", live.ref, now=now)
        touched = True
    return Followed(Result.OUTDATED if outdated else Result.DONE, touched)


def follow_user(
    connection: Connection, parts: Parts, topic: Topic, spec: UserSpec, known: Before, *, began: int, now: int
) -> Followed:
    """Make what OpenMeet answered about a user what is wanted."""
    found = users.find(connection, topic.tenant, topic.slug, lock=True)
    if (None if found is None else (found.ref, found.revision)) != _version(known):
        return Followed(Result.OUTDATED)
    write = Write(now=now, as_of=began, if_match=None)
    done = Users(parts).write_spec(connection, topic.tenant, topic.slug, spec, write)
    return Followed(Result.OUTDATED if done.superseded else Result.DONE, done.touched)


def follow_absence(
    connection: Connection, topic: Topic, known: Before, *, deleted: bool, began: int, now: int
) -> Followed:
    """Archive an event or group that OpenMeet does not know, if that is certain enough.

    Parameters
    ----------
    deleted
        A hint said so.
    """
    # The lock of the tenant: those who count must not count at the same time.
    tenants.get(connection, topic.tenant, lock=True)
    entity = entities.find(connection, topic.tenant, topic.place.kind, topic.slug, lock=True)
    if _has_changed(connection, entity, topic, known):
        return Followed(Result.OUTDATED)
    if entity is None or entity.archived_at is not None:
        if entity is not None:
            gone.forget(connection, entity)
        return Followed(Result.DONE)
    since = gone.note(connection, entity, now=now)
    if not deleted and now - since < LONG_GONE:
        return Followed(Result.MISSING, again_at=since + LONG_GONE)
    lately = gone.lately(connection, topic.tenant, since=now - WINDOW)
    if lately.archived >= max(FEW, (lately.live + lately.archived) * PERCENT // 100):
        held = gone.hold(connection, entity, now=now)
        if held:
            sync.poke(connection, topic.tenant, "entity", entity.ref, now=now)
        return Followed(Result.HELD, held, (lately.oldest or now) + WINDOW)
    write = Write(now=now, as_of=began, if_match=None)
    done = entity_writes.archive(connection, topic.place, write)
    if done.superseded:
        return Followed(Result.OUTDATED)
    gone.archived(connection, entity, now=now)
    return Followed(Result.ARCHIVED, done.touched)


def _has_changed(connection: Connection, entity: Entity | None, topic: Topic, known: Before) -> bool:
    """Whether somebody has written what the question was about since it was begun."""
    if entity is None or entity.archived_at is not None:
        return known.ref is not None or known.former != (None if entity is None else entity.ref)
    if topic.user is not None:
        # Others may come and go meanwhile.
        now = (entity.ref, entity.revision, _standing(connection, entity, topic.user))
        return now != (known.ref, known.revision, known.standing)
    return (entity.ref, entity.revision, entity.members_revision) != (
        known.ref,
        known.revision,
        known.members_revision,
    )


def _rename(connection: Connection, parts: Parts, before: Place, slug: str, spec: Spec, write: Write) -> None:
    """Let what is called *before* here, if it is the same, keep its room under the new name."""
    known = entities.find(connection, before.tenant, before.kind, before.slug, lock=True)
    if known is None or known.archived_at is not None:
        return
    if not _is_another(known.external_id, spec.external_id):
        life_writes.rename(connection, parts, before, slug, write)


def _is_another(known: str | None, given: str | None) -> bool:
    return known is not None and given is not None and known != given


def _version(known: Before) -> tuple[str, int] | None:
    return None if known.ref is None else (known.ref, known.revision)


def _standing(connection: Connection, entity: Entity, user: str) -> Standing | None:
    ref = users.refs(connection, entity.tenant, [user]).get(key(user))
    return None if ref is None else members.one(connection, entity, ref)

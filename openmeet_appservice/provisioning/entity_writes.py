"""What happens in the database when OpenMeet writes an event, a group or a direct room, or who is in it.

Plain functions of a connection, one transaction each. The row of the entity is the lock: two writes of the
same entity take turns. Spec and members have each their own ``as_of``: when only one of the two is older
than what is known, the other is still applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import Conflict
from openmeet_appservice.provisioning import slugs
from openmeet_appservice.provisioning.parts import (
    Parts,
    is_older,
    joined_external_id,
    newest,
    puppet_id,
    require_tenant,
    user_id_taken,
)
from openmeet_appservice.provisioning.states import entity_etag, members_etag
from openmeet_appservice.provisioning.writes import Write
from openmeet_appservice.store import checks, entities, members, sync, users
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.members import Change, Standing
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.conditional import check_if_match


@dataclass(frozen=True, slots=True)
class Place:
    """Which entity a request names: tenant and slug as in the path."""

    tenant: str
    kind: EntityKind
    slug: str


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted of an entity: the stored form of its spec, and its external id where one is given."""

    wanted: Mapping[str, Any]
    external_id: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a write did. *ref* is our id of the entity, *tenant_id* the tenant's as given, where known."""

    ref: str
    created: bool = False
    touched: bool = False
    superseded: bool = False
    members_superseded: bool = False
    change: Change | None = None
    tenant_id: str | None = None


Standings = Mapping[str, Standing]
"""Who is what, by the slug as given; no two slugs in it are the same but for case."""


def put(
    connection: Connection, parts: Parts, place: Place, spec: Spec, people: Standings | None, write: Write
) -> Done:
    """Make *spec* and, unless None, *people* what is wanted.

    Raises
    ------
    NotFound, PreconditionFailed, InvalidName
        As their names say.
    Conflict
        The external id is another one, or a name on Matrix belongs to somebody else.
    """
    tenant = require_tenant(connection, place.tenant)
    found = entities.find(connection, tenant.tenant, place.kind, place.slug, lock=True)
    check_if_match(write.if_match, None if found is None else entity_etag(found))
    if found is None or found.archived_at is not None:
        renamed = slugs.renamed(connection, tenant, place.kind, place.slug)
        for known in (found, renamed):
            if known is not None and is_older(write.as_of, known.as_of):
                return Done(known.ref, superseded=True, members_superseded=people is not None)
        if renamed is not None and spec.external_id and spec.external_id == renamed.external_id:
            raise Conflict(f"This {place.kind} is called {renamed.slug} now.", code="renamed")
        made = _create(connection, parts, tenant, place, spec, write)
        if made is not None:
            return _first(connection, parts, tenant, made, people, write)
        found = entities.find(connection, tenant.tenant, place.kind, place.slug, lock=True)
        assert found is not None, "somebody was faster, and what is live is never erased"
    done, found = _change(connection, found, spec, write)
    change = None
    if people is not None:
        if is_older(write.as_of, found.members_as_of):
            done = replace(done, members_superseded=True)
        else:
            change, found = _set_people(connection, parts, tenant, found, people, write)
    return _finish(connection, found, replace(done, change=change), write)


def patch(
    connection: Connection,
    place: Place,
    merged: Callable[[Mapping[str, Any]], Spec],
    write: Write,
) -> Done:
    """Change the spec to what *merged* makes of the present one (``external_id`` included)."""
    _, found = live(connection, place)
    check_if_match(write.if_match, entity_etag(found))
    spec = merged({**found.spec, "external_id": found.external_id})
    done, found = _change(connection, found, spec, write)
    return _finish(connection, found, done, write)


def archive(connection: Connection, place: Place, write: Write, *, purge: bool = False) -> Done:
    """Take the entity off its slug; what is archived already stays as it is.

    With *purge* nothing of it is to be left in the end.
    """
    tenant = require_tenant(connection, place.tenant)
    found = entities.find(connection, tenant.tenant, place.kind, place.slug, lock=True)
    if found is None:
        raise slugs.no_entity(connection, tenant, place.kind, place.slug)
    check_if_match(write.if_match, entity_etag(found))
    if is_older(write.as_of, found.as_of):
        return Done(found.ref, superseded=True)
    if found.archived_at is not None and (found.purge_at is not None or not purge):
        return Done(found.ref)
    as_of = newest(write.as_of, found.as_of)
    if found.archived_at is None:
        found = entities.archive(connection, found, as_of=as_of, now=write.now)
    if purge:
        found = entities.purge(connection, found, as_of=as_of, now=write.now)
    entities.touch(connection, found, Removals.FEW, now=write.now)
    return Done(found.ref, touched=True)


def put_people(connection: Connection, parts: Parts, place: Place, people: Standings, write: Write) -> Done:
    """Make *people* the exact list of members."""
    tenant, found = live(connection, place)
    check_if_match(write.if_match, members_etag(found))
    if is_older(write.as_of, found.members_as_of):
        return Done(found.ref, superseded=True)
    change, found = _set_people(connection, parts, tenant, found, people, write)
    return _finish(connection, found, Done(found.ref, change=change), write)


def change_people(
    connection: Connection,
    parts: Parts,
    place: Place,
    people: Standings,
    gone: Sequence[str],
    write: Write,
    *,
    explicit: bool = False,
) -> Done:
    """Add or change *people* and remove *gone* (slugs, some perhaps no members).

    *explicit*: a request for this one person, which no guard holds back.
    """
    tenant, found = live(connection, place)
    check_if_match(write.if_match, members_etag(found))
    if is_older(write.as_of, found.members_as_of):
        return Done(found.ref, superseded=True)
    wanted = _refs(connection, parts, tenant, people, write)
    leaving = list(users.refs(connection, tenant.tenant, gone).values()) if gone else []
    change = members.merge(connection, found, wanted, leaving)
    found = _note_people(connection, found, change, write)
    done = Done(found.ref, change=change, tenant_id=tenant.tenant_id)
    return _finish(connection, found, done, write, explicit=explicit)


def live(connection: Connection, place: Place) -> tuple[Tenant, Entity]:
    """Return the live entity, locked, and its tenant.

    Raises
    ------
    NotFound
        There is none and never was, or it was renamed.
    Conflict
        It is archived.
    """
    tenant = require_tenant(connection, place.tenant)
    found = entities.find(connection, tenant.tenant, place.kind, place.slug, lock=True)
    if found is None:
        raise slugs.no_entity(connection, tenant, place.kind, place.slug)
    if found.archived_at is not None:
        raise Conflict(f"This {place.kind} is archived. PUT makes a new one.", code="archived")
    return tenant, found


def _create(
    connection: Connection, parts: Parts, tenant: Tenant, place: Place, spec: Spec, write: Write
) -> Entity | None:
    alias = None
    if place.kind is not EntityKind.DIRECT:
        alias = slugs.take(connection, parts, tenant, place.kind, place.slug, now=write.now)
        if alias is None:
            return None
    return entities.create(
        connection,
        tenant.tenant,
        place.kind,
        place.slug,
        alias=alias,
        spec=spec.wanted,
        external_id=spec.external_id,
        as_of=write.as_of,
        now=write.now,
        new_id=parts.new_id,
    )


def _first(
    connection: Connection,
    parts: Parts,
    tenant: Tenant,
    made: Entity,
    people: Standings | None,
    write: Write,
) -> Done:
    """Complete an entity that was just created."""
    change = None
    if people is not None:
        change, made = _set_people(connection, parts, tenant, made, people, write)
    entities.touch(connection, made, Removals.FEW, now=write.now)
    return Done(made.ref, created=True, touched=True, change=change)


def _change(connection: Connection, found: Entity, spec: Spec, write: Write) -> tuple[Done, Entity]:
    """Write the spec, if it is another one. Only what shows on Matrix has the room looked at again."""
    if is_older(write.as_of, found.as_of):
        return Done(found.ref, superseded=True), found
    external_id = joined_external_id(found.external_id, spec.external_id)
    as_of = newest(write.as_of, found.as_of)
    if (spec.wanted, external_id) == (found.spec, found.external_id):
        return Done(found.ref), entities.note_as_of(connection, found, as_of=as_of)
    changed = entities.change(
        connection, found, spec=spec.wanted, external_id=external_id, as_of=as_of, now=write.now
    )
    return Done(found.ref, touched=spec.wanted != found.spec), changed


def _set_people(
    connection: Connection, parts: Parts, tenant: Tenant, found: Entity, people: Standings, write: Write
) -> tuple[Change, Entity]:
    change = members.replace(connection, found, _refs(connection, parts, tenant, people, write))
    found = entities.note_members_listed(connection, found)
    return change, _note_people(connection, found, change, write)


def _note_people(connection: Connection, found: Entity, change: Change, write: Write) -> Entity:
    as_of = newest(write.as_of, found.members_as_of)
    if change:
        return entities.change_members(connection, found, as_of=as_of, now=write.now)
    return entities.note_as_of(connection, found, members_as_of=as_of)


def _refs(
    connection: Connection, parts: Parts, tenant: Tenant, people: Standings, write: Write
) -> dict[str, Standing]:
    """Return who is what by our ids, with placeholders made for users never heard of."""
    if not people:
        return {}
    refs = users.ensure(
        connection,
        tenant.tenant,
        people.keys(),
        user_id=lambda slug: puppet_id(parts, tenant, slug),
        now=write.now,
        new_id=parts.new_id,
    )
    for slug in people:
        if key(slug) not in refs:
            raise user_id_taken(slug)
    return {refs[key(slug)]: standing for slug, standing in people.items()}


def _finish(
    connection: Connection, found: Entity, done: Done, write: Write, *, explicit: bool = False
) -> Done:
    """Have the room follow, with what the write says about removals (`store.entities`)."""
    if done.touched or done.change:
        were = None if done.touched or done.change is None else done.change.were
        touch = entities.touch(
            connection, found, _removals(done, write, explicit), now=write.now, whole=were is None
        )
        if were is not None:
            checks.note(connection, found.tenant, found.ref, were, touch)
        return replace(done, touched=True)
    if write.confirmed and not done.superseded:
        status = sync.status(connection, found.tenant, "entity", found.ref)
        if status is not None and status.observed_generation < status.generation:
            entities.touch(connection, found, Removals.CONFIRMED, now=write.now)
            return replace(done, touched=True)
    return done


def _removals(done: Done, write: Write, explicit: bool) -> Removals:
    if write.confirmed:
        return Removals.CONFIRMED
    if done.change is None:
        return Removals.FEW
    if explicit and done.change.removed:
        return Removals.EXPLICIT
    # Everybody who is something else now may have lost their place by it.
    many = entities.are_many(done.change.may_lose, done.change.before)
    return Removals.MANY if many else Removals.FEW

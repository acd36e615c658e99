"""What happens in the database when OpenMeet renames an event or group, has its room made
anew or looked at again.

Plain functions of a connection, one transaction each, like those of `entity_writes`.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityStatus
from openmeet_appservice.domain.rooms import is_open
from openmeet_appservice.errors import Conflict
from openmeet_appservice.provisioning import slugs
from openmeet_appservice.provisioning.entity_writes import Done, Place, live
from openmeet_appservice.provisioning.parts import Parts, is_older, newest, require_tenant
from openmeet_appservice.provisioning.states import entity_etag
from openmeet_appservice.provisioning.writes import Write
from openmeet_appservice.store import entities, pictures, rooms
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.web.conditional import check_if_match


def rename(connection: Connection, parts: Parts, place: Place, slug: str, write: Write) -> Done:
    """Give the entity another slug, and keep the old one's alias beside the new one.

    What is called so already stays as it is, also when it is named by the slug that it had before: the
    request was made before, and its answer was lost.

    Raises
    ------
    NotFound
        There is no such entity.
    Conflict
        It is archived, or something live has the slug or its alias.
    """
    tenant = require_tenant(connection, place.tenant)
    before = slugs.renamed(connection, tenant, place.kind, place.slug)
    if before is not None and slugs.is_same(before.slug, slug):
        place = replace(place, slug=before.slug)
    tenant, found = live(connection, place)
    check_if_match(write.if_match, entity_etag(found))
    if is_older(write.as_of, found.as_of):
        return Done(found.ref, superseded=True)
    as_of = newest(write.as_of, found.as_of)
    if found.slug == slug:
        return Done(found.ref) if as_of == found.as_of else _noted(connection, found, as_of)
    if slugs.is_same(found.slug, slug):
        entities.rename(connection, found, slug=slug, alias=found.alias, as_of=as_of, now=write.now)
        return Done(found.ref)
    alias = slugs.take(connection, parts, tenant, place.kind, slug, now=write.now)
    if alias is None:
        raise Conflict(f"Another {place.kind} is called {slug}.", code="slug_taken")
    entities.rename(connection, found, slug=slug, alias=alias, as_of=as_of, now=write.now)
    entities.touch(connection, found, Removals.FEW, now=write.now)
    return Done(found.ref, touched=True)


def recreate(connection: Connection, place: Place, encrypted: bool | None, write: Write) -> Done:
    """Have a new room take the place of the entity's present one.

    Parameters
    ----------
    encrypted
        Whether the new one, and what follows it, is encrypted; None: as is wanted already.

    Raises
    ------
    NotFound
        There is no such entity.
    Conflict
        It is archived or not published, or has no room yet.
    """
    tenant, found = live(connection, place)
    check_if_match(write.if_match, entity_etag(found))
    if is_older(write.as_of, found.as_of):
        return Done(found.ref, superseded=True)
    if not is_open(EntityStatus(found.spec["status"]), archived=False):
        raise Conflict(
            f"Only what is published has a room to recreate, not this {place.kind}.", code="not_open"
        )
    room = rooms.in_use(connection, tenant.tenant, found.ref)
    if room is None or room.room_id is None or not rooms.replace(connection, room):
        raise Conflict("Its room is still being made. Try again once it is there.", code="room_not_ready")
    as_of = newest(write.as_of, found.as_of)
    if encrypted is None or found.spec.get("encrypted") == encrypted:
        found = entities.note_as_of(connection, found, as_of=as_of)
    else:
        found = entities.change(
            connection,
            found,
            spec={**found.spec, "encrypted": encrypted},
            external_id=found.external_id,
            as_of=as_of,
            now=write.now,
        )
    entities.touch(connection, found, Removals.FEW, now=write.now)
    return Done(found.ref, touched=True)


def resync(connection: Connection, place: Place, write: Write) -> Done:
    """Have the entity's room, or that of an archived one, compared again from a fresh reading.

    Its picture is asked for again as well: it may be another one by now.

    ``confirmed`` also confirms what removal of many people is held.
    """
    tenant = require_tenant(connection, place.tenant)
    found = entities.find(connection, tenant.tenant, place.kind, place.slug, lock=True)
    if found is None:
        raise slugs.no_entity(connection, tenant, place.kind, place.slug)
    if is_older(write.as_of, found.as_of):
        return Done(found.ref, superseded=True)
    removals = Removals.CONFIRMED if write.confirmed else Removals.FEW
    entities.touch(connection, found, removals, now=write.now)
    pictures.recheck(connection, tenant.tenant, "entity", found.ref, now=write.now)
    return Done(found.ref, touched=True)


def _noted(connection: Connection, found: Entity, as_of: int | None) -> Done:
    entities.note_as_of(connection, found, as_of=as_of)
    return Done(found.ref)

"""When members are compared alone, and when something is in play that shows in the whole alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, update

from openmeet_appservice.domain.kinds import DEFAULT_CHAT_STATUSES, DEFAULT_POWER_LEVELS, Access, EntityKind
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.store import (
    checks,
    entities,
    event_log,
    gone,
    members,
    parts,
    pictures,
    rooms,
    sync,
    tenants,
    users,
)
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.parts import Part
from openmeet_appservice.store.pictures import Fetched
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.sync import SyncError
from openmeet_appservice.store.tables import rooms as rooms_table

DEFAULTS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)
URL = "https://img.test/a.png"

Deed = Callable[[Connection, Entity, Room], object]


def _settle(connection: Connection) -> None:
    for lease in sync.claim_due(connection, now=10**9, lease=1, limit=9):
        sync.finish(connection, lease, observed=lease.generation)


def _world(connection: Connection, kind: EntityKind, url: str | None, deed: Deed | None) -> Entity:
    """Have an entity that Synapse agrees with, then *deed* done, then a member changed."""
    tenants.create(connection, "t1", name="", settings={}, now=1)
    entity = entities.create(
        connection,
        "t1",
        kind,
        "games",
        alias="#a:x",
        spec={} if url is None else {"image_url": url},
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert entity is not None
    claimed = rooms.claim(connection, "t1", entity.ref, claim="c", lock_alias="#a:x", now=1, new_id=new_id)
    event_log.record_room_id(connection, "t1", claimed.ref, "!room", "12", now=1, bot="@bot:x")
    sync.touch(connection, "t1", "entity", entity.ref, now=1)
    _settle(connection)
    room = rooms.in_use(connection, "t1", entity.ref)
    assert room is not None
    if deed is not None:
        deed(connection, entity, room)
        _settle(connection)
    refs = users.ensure(connection, "t1", ["ada"], user_id=lambda slug: f"@{slug}:x", now=1, new_id=new_id)
    change = members.merge(connection, entity, {refs["ada"]: Standing("participant")}, [])
    assert change.were is not None
    touch = entities.touch(connection, entity, Removals.FEW, now=2, whole=False)
    checks.note(connection, "t1", entity.ref, change.were, touch)
    return entity


async def _due(
    database: Database,
    deed: Deed | None = None,
    *,
    kind: EntityKind = EntityKind.EVENT,
    url: str | None = None,
) -> Part | None:
    entity = await database.write(_world, kind, url, deed)
    return await database.read(parts.due, "t1", entity.ref, defaults=DEFAULTS)


def _fetch(connection: Connection, entity: Entity, error: SyncError | None) -> None:
    pictures.use(connection, "t1", "entity", entity.ref, URL, now=1)
    job = pictures.claim(connection, now=1, lease=10)
    assert job is not None
    pictures.taken(connection, job, Fetched("mxc://x/a", "a" * 64, None, None), now=1)
    if error is not None:
        pictures.recheck(connection, "t1", "entity", entity.ref, now=2)
        job = pictures.claim(connection, now=2, lease=10)
        assert job is not None
        pictures.failed(connection, job, error, retry_at=99, now=2)


def _guard(connection: Connection, entity: Entity, room: Room) -> None:
    connection.execute(update(rooms_table).where(rooms_table.c.id == room.ref).values(guarded=True))


def _replace(connection: Connection, entity: Entity, room: Room) -> None:
    """Give it another room, which is not told of yet."""
    rooms.replace(connection, room)
    rooms.set_state(connection, "t1", room.ref, "ended")
    made = rooms.claim(connection, "t1", entity.ref, claim="d", lock_alias="#b:x", now=2, new_id=new_id)
    event_log.record_room_id(connection, "t1", made.ref, "!other", "12", now=2, bot="@bot:x")


def _leave_unended(connection: Connection, entity: Entity, room: Room) -> None:
    _replace(connection, entity, room)
    made = rooms.in_use(connection, "t1", entity.ref)
    assert made is not None
    rooms.forget_replaced(connection, made)
    rooms.set_state(connection, "t1", room.ref, "replaced")


def _end(connection: Connection, entity: Entity, room: Room) -> None:
    _leave_unended(connection, entity, room)
    rooms.set_state(connection, "t1", room.ref, "ended")


def _hold(connection: Connection, entity: Entity, room: Room) -> None:
    gone.note(connection, entity, now=2)
    gone.hold(connection, entity, now=2)


def _purge(connection: Connection, entity: Entity, room: Room) -> None:
    entities.purge(connection, entity, as_of=None, now=2)


async def test_the_members_that_changed_are_compared_alone(database: Database) -> None:
    part = await _due(database)
    assert part is not None
    assert [check.user_id for check in part.checks] == ["@ada:x"]
    assert part.room == await database.read(rooms.in_use, "t1", part.ref)


@pytest.mark.parametrize("deed", [_guard, _replace, _leave_unended, _hold, _purge])
async def test_what_shows_in_the_whole_alone(database: Database, deed: Deed) -> None:
    assert await _due(database, deed) is None


async def test_the_rooms_of_before_do_not_matter_once_they_have_ended(database: Database) -> None:
    assert await _due(database, _end) is not None


async def test_a_direct_room_is_compared_as_a_whole(database: Database) -> None:
    assert await _due(database, kind=EntityKind.DIRECT) is None


@pytest.mark.parametrize(
    ("deed", "is_alone"),
    [
        (lambda connection, entity, room: None, False),
        (
            lambda connection, entity, room: pictures.use(connection, "t1", "entity", entity.ref, URL, now=1),
            False,
        ),
        (
            lambda connection, entity, room: _fetch(
                connection, entity, SyncError("image_unavailable", "", 1)
            ),
            False,
        ),
        (lambda connection, entity, room: _fetch(connection, entity, None), True),
    ],
    ids=["unknown", "awaited", "broken", "there"],
)
async def test_a_picture_that_is_lacking_is_not_forgotten(
    database: Database, deed: Deed, is_alone: bool
) -> None:
    assert (await _due(database, deed, url=URL) is not None) is is_alone


@pytest.mark.parametrize(
    "again",
    [
        lambda connection, ref: sync.poke(connection, "t1", "entity", ref, now=1),
        lambda connection, ref: sync.poke_by(connection, "t1", "entity", ref, at=10**6),
        lambda connection, ref: entities.touch_all(connection, "t1", now=1),
    ],
    ids=["poke", "poke_by", "touch_all"],
)
async def test_whatever_else_comes_meanwhile_has_the_whole_compared(
    database: Database, again: Callable[[Connection, str], object]
) -> None:
    entity = await database.write(_world, EntityKind.EVENT, None, None)
    await database.write(again, entity.ref)
    assert await database.read(parts.due, "t1", entity.ref, defaults=DEFAULTS) is None

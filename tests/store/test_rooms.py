"""Rooms: one in use for each entity, and none ever forgotten."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy.exc import IntegrityError

from openmeet_appservice.store import event_log, rooms
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.rooms import Room

BOT = "@openmeet-bot:hs.test"


@pytest.fixture
def new_id() -> NewId:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(numbers)}"


async def claim(database: Database, new_id: NewId, entity: str = "e1", claim: str = "c1") -> Room:
    return await database.write(
        rooms.claim, "t1", entity, claim=claim, lock_alias="#lock:hs.test", now=1, new_id=new_id
    )


async def record(database: Database, room: Room, room_id: str) -> bool:
    return await database.write(
        event_log.record_room_id, room.tenant, room.ref, room_id, "12", now=1, bot=BOT
    )


async def test_a_claim_becomes_a_room(database: Database, new_id: NewId) -> None:
    claimed = await claim(database, new_id)
    assert (claimed.state, claimed.room_id, claimed.claim, claimed.alias) == ("claimed", None, "c1", None)
    assert await database.read(rooms.in_use, "t1", "e1") == claimed
    assert await database.read(rooms.get, "t2", claimed.ref) is None
    await record(database, claimed, "!r")
    await database.write(rooms.set_alias, "t1", claimed.ref, "#a:hs.test")
    found = await database.read(rooms.in_use, "t1", "e1")
    assert found is not None
    assert (found.state, found.room_version, found.alias) == ("open", "12", "#a:hs.test")
    assert found.room_id == "!r"
    assert await database.read(rooms.in_use, "t2", "e1") is None


async def test_an_entity_has_one_room_in_use(database: Database, new_id: NewId) -> None:
    first = await claim(database, new_id)
    with pytest.raises(IntegrityError):
        await claim(database, new_id, claim="c2")
    await record(database, first, "!r")
    with pytest.raises(IntegrityError):
        await claim(database, new_id, claim="c3")
    await database.write(rooms.set_state, "t1", first.ref, "former")
    assert await database.read(rooms.in_use, "t1", "e1") is None
    second = await claim(database, new_id, claim="c4")
    assert {room.ref for room in await database.read(rooms.of_entity, "t1", "e1")} == {first.ref, second.ref}
    # Another entity's, and another tenant's, are their own.
    await claim(database, new_id, entity="e2", claim="c5")


async def test_an_orphan_is_kept_once(database: Database, new_id: NewId) -> None:
    claimed = await claim(database, new_id)
    await record(database, claimed, "!r")
    for _ in range(2):
        await database.write(rooms.add_orphan, claimed, "!second", "12", now=2, new_id=new_id)
    found = await database.read(rooms.of_entity, "t1", "e1")
    assert [(room.state, room.room_id) for room in found] == [("open", "!r"), ("orphan", "!second")]


async def test_the_lock_of_a_claim_can_be_changed_until_there_is_a_room(
    database: Database, new_id: NewId
) -> None:
    claimed = await claim(database, new_id)
    await database.write(rooms.relock, "t1", claimed.ref, "#other:hs.test")
    await record(database, claimed, "!r")
    await database.write(rooms.relock, "t1", claimed.ref, "#late:hs.test")
    found = await database.read(rooms.get, "t1", claimed.ref)
    assert found is not None
    assert found.lock_alias == "#other:hs.test"


async def test_a_claim_that_was_given_up_stays_so(database: Database, new_id: NewId) -> None:
    old = await claim(database, new_id)
    await database.write(rooms.set_state, "t1", old.ref, "former")
    new = await claim(database, new_id, claim="c2")
    assert not await record(database, old, "!late")
    assert await database.read(rooms.in_use, "t1", "e1") == new

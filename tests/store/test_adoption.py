"""Recording rooms of a former service as ours, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import adoption, entities, event_log, rooms, sync, tenants
from openmeet_appservice.store.adoption import Candidate
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import room_events
from openmeet_appservice.store.tables import rooms as rooms_table

BOT = "@openmeet-bot:hs.test"
ROOM = "!old:hs.test"
ALIAS = "#event-games-t1:hs.test"
NOW = 1_795_374_000_000
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


def make(connection: Connection, slug: str = "games", tenant: str = "t1") -> Entity:
    tenants.create(connection, tenant.upper(), name=tenant, settings={}, now=NOW)
    made = entities.create(
        connection,
        tenant,
        EntityKind.EVENT,
        slug,
        alias=f"#event-{slug}-{tenant}:hs.test",
        spec=SPEC,
        external_id=None,
        as_of=None,
        now=NOW,
        new_id=new_id,
    )
    assert made is not None
    entities.touch(connection, made, entities.Removals.FEW, now=NOW)
    return made


def all_candidates(connection: Connection, tenant: str | None = None, limit: int = 2) -> list[Candidate]:
    found: list[Candidate] = []
    after = None
    while page := adoption.candidates(connection, tenant, after=after, limit=limit):
        found += page
        after = (page[-1].tenant, page[-1].ref)
    return found


def adopt(connection: Connection, candidate: Candidate, room_id: str = ROOM) -> bool:
    return adoption.adopt(
        connection,
        candidate,
        room_id,
        version="10",
        alias=ALIAS,
        newest="$newest",
        claim="c" * 32,
        now=NOW,
        bot=BOT,
        new_id=new_id,
    )


def arrival(number: int) -> Arrival:
    found = read_event(
        {
            "type": "m.room.message",
            "event_id": f"${number}",
            "room_id": ROOM,
            "sender": "@ada:hs.test",
            "origin_server_ts": NOW,
            "content": {"body": str(number)},
        }
    )
    assert isinstance(found, Arrival)
    return found


async def test_an_adopted_room_is_open_guarded_and_has_what_was_held_of_it(database: Database) -> None:
    entity = await database.write(make)
    await database.write(event_log.append, [arrival(1), arrival(2)], now=NOW, bot=BOT)
    (candidate,) = await database.read(all_candidates)
    assert candidate.tenant_id == "T1"
    before = await database.read(sync.status, "t1", "entity", entity.ref)
    assert await database.write(adopt, candidate)

    room = await database.read(rooms.in_use, "t1", entity.ref)
    assert room is not None
    assert (room.state, room.room_id, room.room_version, room.alias) == ("open", ROOM, "10", ALIAS)
    assert room.guarded
    rows = await database.read(lambda c: c.execute(select(room_events).order_by("sequence")).all())
    assert [(row.sequence, row.event_id, row.origin) for row in rows] == [
        (1, "$1", "matrix"),
        (2, "$2", "matrix"),
    ]
    await database.write(event_log.append, [arrival(3)], now=NOW, bot=BOT)
    assert len(await database.read(lambda c: c.execute(select(room_events)).all())) == 3
    row = await database.read(lambda c: c.execute(select(rooms_table)).one())
    # Gap repair begins there: the history of before stays on Matrix.
    assert row.complete_event_id == "$newest"
    after = await database.read(sync.status, "t1", "entity", entity.ref)
    assert before is not None
    assert after is not None
    assert after.generation == before.generation + 1
    assert await database.read(all_candidates) == []


async def test_a_claim_that_found_the_alias_taken_becomes_the_room(database: Database) -> None:
    """A service that ran too early has claimed a room and waits for the alias."""
    entity = await database.write(make)
    claimed = await database.write(
        rooms.claim, "t1", entity.ref, claim="d" * 32, lock_alias=ALIAS, now=NOW, new_id=new_id
    )
    (candidate,) = await database.read(all_candidates)
    assert await database.write(adopt, candidate)
    (room,) = await database.read(rooms.of_entity, "t1", entity.ref)
    assert (room.ref, room.state, room.room_id, room.guarded) == (claimed.ref, "open", ROOM, True)


async def test_whoever_is_faster_wins(database: Database) -> None:
    await database.write(make)
    await database.write(make, "cards")
    first, second = await database.read(all_candidates)
    assert await database.write(adopt, first)
    assert not await database.write(adopt, first), "it has a room"
    assert not await database.write(adopt, first, "!another:hs.test")
    assert not await database.write(adopt, second), "the room is another's"
    assert [c.ref for c in await database.read(all_candidates)] == [second.ref]


async def test_an_entity_that_was_deleted_or_made_anew_meanwhile(database: Database) -> None:
    entity = await database.write(make)
    (candidate,) = await database.read(all_candidates)
    await database.write(entities.archive, entity, as_of=None, now=NOW)
    assert not await database.write(adopt, candidate)
    await database.write(make)
    assert not await database.write(adopt, candidate), "the slug is another's now"


async def test_candidates_come_page_by_page_and_by_tenant(database: Database) -> None:
    for tenant, slugs in (("t1", "abc"), ("t2", "de")):
        for slug in slugs:
            await database.write(make, slug, tenant)
    assert sorted(c.slug for c in await database.read(all_candidates)) == list("abcde")
    assert {c.tenant for c in await database.read(all_candidates, "t2")} == {"t2"}
    assert len(await database.read(all_candidates, "t1", 1)) == 3


async def test_enforcing_waits_for_a_whole_list(database: Database) -> None:
    entity = await database.write(make)
    (candidate,) = await database.read(all_candidates)
    await database.write(adopt, candidate)
    (guarded,) = await database.read(adoption.guarded, None, after=None, limit=10)
    assert (guarded.slug, guarded.room_id, guarded.members_listed) == ("games", ROOM, False)
    assert not await database.write(adoption.enforce, "t1", entity.ref, now=NOW)
    assert not await database.write(adoption.enforce, "t2", entity.ref, now=NOW)
    await database.write(entities.note_members_listed, entity)
    (guarded,) = await database.read(adoption.guarded, "t1", after=None, limit=10)
    assert guarded.members_listed
    assert await database.read(adoption.guarded, "t2", after=None, limit=10) == []
    assert await database.write(adoption.enforce, "t1", entity.ref, now=NOW)
    room = await database.read(rooms.in_use, "t1", entity.ref)
    assert room is not None
    assert not room.guarded
    assert await database.read(adoption.guarded, None, after=None, limit=10) == []


async def test_a_former_alias_is_expected_until_somebody_has_looked(database: Database) -> None:
    entity = await database.write(make)
    await database.write(adoption.expect_room, "t1", EntityKind.EVENT, "GAMES", "#event-Games-T1:hs.test")
    await database.write(adoption.expect_room, "t1", EntityKind.EVENT, "games", "#other:hs.test")
    found = await database.read(entities.get, "t1", entity.ref)
    assert found is not None
    assert found.former_alias == "#event-Games-T1:hs.test"
    (candidate,) = await database.read(all_candidates)
    assert candidate.expected
    await database.write(adoption.give_up, candidate, now=NOW + 5)
    found = await database.read(entities.get, "t1", entity.ref)
    status = await database.read(sync.status, "t1", "entity", entity.ref)
    assert found is not None
    assert status is not None
    assert (found.former_alias, status.due_at) == (None, NOW + 5)


@pytest.mark.parametrize("state", ["open", "archived"])
async def test_nothing_is_expected_of_what_has_a_room_or_is_gone(database: Database, state: str) -> None:
    entity = await database.write(make)
    (candidate,) = await database.read(all_candidates)
    if state == "open":
        await database.write(adopt, candidate)
    else:
        await database.write(entities.archive, entity, as_of=None, now=NOW)
    await database.write(adoption.expect_room, "t1", EntityKind.EVENT, "games", ALIAS)
    found = await database.read(entities.get, "t1", entity.ref)
    assert found is not None
    assert found.former_alias is None

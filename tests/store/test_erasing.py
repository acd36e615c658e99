"""Erasing an event: nothing of it is left, and nothing of others is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sqlalchemy import Connection, func, insert, select

from openmeet_appservice.domain.arrival import Arrival, read_transaction
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, erasing, event_log, members, rooms, sync, tenants, users
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.event_log import Appended
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.member_tables import member_checks, member_errors, member_kicks
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.tables import (
    batches,
    dead_letters,
    endpoints,
    held_events,
    lanes,
    messages,
    replays,
    room_events,
)
from openmeet_appservice.store.tables import entities as entities_table
from openmeet_appservice.store.tables import members as members_table
from openmeet_appservice.store.tables import rooms as rooms_table
from openmeet_appservice.store.tables import sync as sync_table

BOT = "@bot:hs.test"
SPEC: dict[str, Any] = {"name": "Games", "visibility": "public", "status": "published"}
EVERYWHERE = (
    entities_table,
    members_table,
    rooms_table,
    sync_table,
    room_events,
    lanes,
    batches,
    replays,
    messages,
    dead_letters,
    member_checks,
    member_errors,
    member_kicks,
)


def _make(connection: Connection, tenant: str, slug: str) -> Entity:
    """Make an event with a member, a room, and everything there can be about that room."""
    made = entities.create(
        connection,
        tenant,
        EntityKind.EVENT,
        slug,
        alias=f"#{slug}-{tenant}:hs.test",
        spec=SPEC,
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert made is not None
    refs = users.ensure(
        connection,
        tenant,
        [f"ada-{slug}"],
        user_id=lambda user: f"@{tenant}-{user}:hs.test",
        now=1,
        new_id=new_id,
    )
    members.replace(connection, made, {ref: Standing("host") for ref in refs.values()})
    entities.touch(connection, made, Removals.FEW, now=1)
    assert made.alias is not None
    claimed = rooms.claim(
        connection, tenant, made.ref, claim=new_id("c"), lock_alias=made.alias, now=1, new_id=new_id
    )
    event_log.record_room_id(connection, tenant, claimed.ref, f"!{tenant}-{slug}", "12", now=1, bot=BOT)
    here = {"tenant": tenant, "room_ref": claimed.ref}
    endpoint = {**here, "endpoint_ref": f"e-{tenant}"}
    connection.execute(
        insert(batches).values(
            **endpoint, webhook_id="m", first_sequence=1, last_sequence=2, body="secret", created_at=1
        )
    )
    connection.execute(
        insert(replays).values(
            **endpoint, id="r", owner=tenant, next_sequence=1, last_sequence=2, created_at=1
        )
    )
    connection.execute(
        insert(messages).values(
            **here, id=new_id("msg"), user_ref="u", transaction_id="t", content="secret", created_at=1
        )
    )
    person = {"tenant": tenant, "entity_ref": made.ref, "user_id": "@ada:hs.test"}
    connection.execute(insert(member_checks).values(**person, touch=1))
    connection.execute(insert(member_errors).values(**person, at=1, detail="refused"))
    connection.execute(insert(member_kicks).values(**person, at=1))
    connection.execute(
        insert(dead_letters).values(
            **endpoint,
            owner=tenant,
            at=1,
            id=new_id("letter"),
            first_sequence=1,
            last_sequence=1,
            reason="refused",
            detail="",
        )
    )
    return made


def _fill(connection: Connection) -> list[Entity]:
    made = []
    for tenant in ("t1", "t2"):
        tenants.create(connection, tenant, name=tenant, settings={}, now=1)
        connection.execute(
            insert(endpoints).values(
                tenant=tenant,
                id=f"e-{tenant}",
                name="main",
                url="https://x.example",
                secret="",
                revision=1,
                created_at=0,
                updated_at=0,
            )
        )
        made += [_make(connection, tenant, slug) for slug in ("games", "cards")]
    return made


def _push(connection: Connection, room_id: str, number: int, first: int = 1) -> Appended:
    content = {"msgtype": "m.text", "body": "secret"}
    plain = {"type": "m.room.message", "sender": "@ada:hs.test", "room_id": room_id, "content": content}
    events = [{**plain, "event_id": f"$e{n}{room_id}"} for n in range(first, first + number)]
    read = read_transaction(json.dumps({"events": events}).encode())
    assert read is not None
    arrivals = [element for element in read.elements if isinstance(element, Arrival)]
    return event_log.append(connection, arrivals, now=5, bot=BOT)


def _counts(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in EVERYWHERE
    }


async def test_nothing_is_left_of_it_and_others_stay_whole(database: Database) -> None:
    (gone, *others) = await database.write(_fill)
    for entity in (gone, *others):
        await database.write(_push, f"!{entity.tenant}-{entity.slug}", 3)
    before = await database.read(_counts)
    assert min(before.values()) == 4, before
    archived = await database.write(entities.archive, gone, as_of=None, now=2)
    (room,) = await database.read(rooms.of_entity, "t1", gone.ref)
    await database.write(erasing.drop_deliveries, "t1", [room.ref])
    assert await database.write(erasing.erase_events, "t1", room.ref) == 3
    assert await database.write(erasing.erase_events, "t1", room.ref) == 0
    # What Synapse pushes at the last moment goes with the rest.
    await database.write(_push, "!t1-games", 1, 4)
    assert await database.write(erasing.finish, archived, [room.ref])
    after = await database.read(_counts)
    assert after == {name: number * 3 // 4 for name, number in before.items()}
    for entity in others:
        assert await database.read(members.count, entity) == 1
    assert await database.read(sync.status, "t1", "entity", gone.ref) is None


async def test_a_room_that_comes_to_light_meanwhile_keeps_all_of_it(database: Database) -> None:
    (gone, *_) = await database.write(_fill)
    (room,) = await database.read(rooms.of_entity, "t1", gone.ref)
    await database.write(rooms.add_orphan, room, "!second", "12", now=2, new_id=new_id)
    before = await database.read(_counts)
    assert not await database.write(erasing.finish, gone, [room.ref])
    assert await database.read(_counts) == before


async def test_what_is_pushed_of_an_erased_room_is_held_and_dropped(database: Database) -> None:
    (gone, *_) = await database.write(_fill)
    (room,) = await database.read(rooms.of_entity, "t1", gone.ref)
    assert await database.write(erasing.finish, gone, [room.ref])
    pushed = await database.write(_push, "!t1-games", 2)
    assert (pushed.held, pushed.stored.total()) == (2, 0)
    assert await database.write(event_log.forget_held, before=6) == 2


async def test_erased_while_events_of_it_are_stored(database: Database) -> None:
    """On PostgreSQL both can be under way at once; whichever is later, nothing is left in the log."""
    (gone, *_) = await database.write(_fill)
    (room,) = await database.read(rooms.of_entity, "t1", gone.ref)
    pushes = [database.write(_push, "!t1-games", 5, 10 * n) for n in range(1, 9)]
    await asyncio.gather(*pushes[:4], database.write(erasing.finish, gone, [room.ref]), *pushes[4:])

    def left(connection: Connection) -> int:
        query = select(func.count()).select_from(room_events).where(room_events.c.room_ref == room.ref)
        return connection.execute(query).scalar_one()

    assert await database.read(left) == 0

    def held(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(held_events)).scalar_one()

    assert await database.read(held) <= 40

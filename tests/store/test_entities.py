"""Events and groups: one live one for each slug, archived ones behind it, look-ups that use indexes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.sync import SyncStatus

SPEC = {"name": "X", "topic": None, "visibility": "public", "access": None, "status": "published"}
EVENT = EntityKind.EVENT


async def create(database: Database, slug: str, now: int = 1) -> Entity | None:
    return await database.write(
        entities.create,
        "t1",
        EVENT,
        slug,
        alias=f"#event-{slug.lower()}-t1:example.org",
        spec=SPEC,
        external_id=None,
        as_of=None,
        now=now,
        new_id=new_id,
    )


async def test_a_slug_has_one_live_entity_and_many_archived(database: Database) -> None:
    made = []
    for now in (10, 20, 30):
        entity = await create(database, "Games", now)
        assert entity is not None
        assert await create(database, "gAMES", now) is None
        found = await database.write(entities.find, "t1", EVENT, "games", lock=True)
        assert found == entity
        made.append(await database.write(entities.archive, entity, as_of=None, now=now + 5))
    assert await database.read(entities.find, "t1", EVENT, "games") == made[-1]
    assert await database.read(entities.find, "t1", EntityKind.GROUP, "games") is None
    assert await database.read(entities.find, "t2", EVENT, "games") is None
    live = await create(database, "games", 40)
    assert await database.read(entities.find, "t1", EVENT, "games") == live
    assert await database.read(entities.by_alias, "#EVENT-games-t1:example.org") == live
    page = await database.read(entities.list_page, "t1", EVENT, after=None, limit=10)
    assert [view.entity for view in page] == [live]


async def test_whoever_waits_for_an_archived_one_sees_the_new_one(database: Database) -> None:
    entity = await create(database, "games")
    assert entity is not None

    def replace(connection: Connection) -> None:
        found = entities.find(connection, "t1", EVENT, "games", lock=True)
        assert found is not None
        entities.archive(connection, found, as_of=None, now=2)
        entities.create(
            connection,
            "t1",
            EVENT,
            "games",
            alias=found.alias,
            spec=SPEC,
            external_id=None,
            as_of=None,
            now=3,
            new_id=new_id,
        )
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(0.2)"))

    _, found = await asyncio.gather(
        database.write(replace), database.write(entities.find, "t1", EVENT, "games", lock=True)
    )
    assert found is not None
    # Whichever came first: never the archived one.
    assert found.archived_at is None


async def test_an_alias_is_free_once_its_entity_is_archived(database: Database) -> None:
    entity = await create(database, "games")
    assert entity is not None
    assert entity.alias is not None
    assert not await database.write(entities.alias_is_free, entity.alias)
    await database.write(entities.archive, entity, as_of=None, now=2)
    assert await database.write(entities.alias_is_free, entity.alias)


@pytest.mark.parametrize(
    ("removed", "of", "many"), [(20, 20, False), (21, 105, False), (21, 104, True), (21, 21, True)]
)
def test_many_is_more_than_twenty_and_more_than_a_fifth(removed: int, of: int, many: bool) -> None:
    assert entities.are_many(removed, of) is many


async def test_a_confirmation_is_for_one_generation(database: Database) -> None:
    entity = await create(database, "games")
    assert entity is not None
    await database.write(entities.touch, entity, Removals.MANY, now=1)
    assert not await confirmed(database)
    found = await database.read(entities.find, "t1", EVENT, "games")
    assert found is not None
    await database.write(entities.touch, found, Removals.CONFIRMED, now=2)
    assert await confirmed(database)
    [lease] = await database.write(sync.claim_due, now=3, lease=10, limit=10)
    assert await database.write(sync.finish, lease, observed=lease.generation)
    assert not await confirmed(database)


async def confirmed(database: Database) -> bool:
    view = await database.read(entities.view, "t1", EVENT, "games")
    assert view is not None
    assert isinstance(view.sync, SyncStatus)
    return entities.removals_are_confirmed(view.entity, view.sync)


async def test_an_event_is_found_by_its_index_across_tenants(database: Database) -> None:
    """Reading the whole log for one look-up would take minutes on a large one."""

    def plan(connection: Connection) -> str:
        is_postgresql = connection.dialect.name == "postgresql"
        if is_postgresql:
            # What it prefers for an empty table says nothing about a large one.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explained: list[str] = []

        def explain(_: object, __: object, statement: str, parameters: Any, *rest: object) -> None:
            if "room_events" in statement and not statement.startswith("EXPLAIN"):
                words = "EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN "
                explained.extend(
                    str(row) for row in connection.exec_driver_sql(words + statement, parameters)
                )

        event.listen(connection, "before_cursor_execute", explain)
        try:
            entities.by_event_id(connection, "$x")
        finally:
            event.remove(connection, "before_cursor_execute", explain)
        return "\n".join(explained)

    shown = await database.read(plan)
    assert "uq_room_events_tenant_event_id" in shown or "(tenant=? AND event_id=?)" in shown, shown

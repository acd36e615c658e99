"""Having a room compared again."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection, select, update

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, pictures, sync
from openmeet_appservice.store.tables import pictures as picture_rows

from .conftest import Api

EVENT = "/tenants/t1/events/Games"
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


async def test_a_settled_room_is_compared_again(api: Api) -> None:
    await api.put(EVENT, SPEC)
    await api.settle()
    asked = await api.post(f"{EVENT}/resync", None)
    assert (asked.status, asked.json["sync"]["phase"]) == (202, "pending")
    assert asked.json["etag"] == (await api.get(EVENT)).json["etag"]
    assert await api.settle() == 1
    waiting = asyncio.create_task(api.post(f"{EVENT}/resync?wait=20", None))
    async with asyncio.timeout(20):
        while await api.settle() == 0:
            await asyncio.sleep(0.01)
    assert ((await waiting).status, (await waiting).json["sync"]["phase"]) == (200, "ready")


async def test_the_picture_is_asked_for_again(api: Api) -> None:
    await api.put(EVENT, {**SPEC, "image_url": "https://pictures.test/games.png"})
    found = await api.database.read(entities.find, "t1", EntityKind.EVENT, "games")
    assert found is not None

    def fetched(connection: Connection) -> None:
        pictures.use(connection, "t1", "entity", found.ref, "https://pictures.test/games.png", now=1)
        connection.execute(update(picture_rows).values(due_at=None))

    def due(connection: Connection) -> list[int | None]:
        return list(connection.execute(select(picture_rows.c.due_at)).scalars())

    await api.database.write(fetched)
    await api.post(f"{EVENT}/resync", None)
    assert all(await api.database.read(due))


async def test_it_confirms_removals_that_are_held(api: Api) -> None:
    await api.put(EVENT, SPEC)
    await api.fail("mass_removal_held")
    await api.post(f"{EVENT}/resync", None)
    assert not await _confirmed(api)
    await api.post(f"{EVENT}/resync?confirm_removals=true", None)
    assert await _confirmed(api)
    # A further one without it does not take that back.
    await api.post(f"{EVENT}/resync", None)
    assert await _confirmed(api)


async def test_an_unknown_one_and_an_archived_one(api: Api) -> None:
    unknown = await api.post(f"{EVENT}/resync", None)
    assert (unknown.status, unknown.code) == (404, "event_not_found")
    await api.put(EVENT, SPEC)
    await api.settle()
    await api.delete(EVENT)
    await api.settle()
    again = await api.post(f"{EVENT}/resync", None)
    assert (again.status, again.json["sync"]["phase"]) == (202, "pending")
    assert await api.settle() == 1
    assert (await api.get(EVENT)).json["sync"]["phase"] == "archived"


async def test_an_older_request_is_superseded(api: Api) -> None:
    await api.put(f"{EVENT}?as_of=2026-11-22T18:00:00Z", SPEC)
    await api.settle()
    late = await api.post(f"{EVENT}/resync?as_of=2026-11-22T17:00:00Z", None)
    assert (late.status, late.json["superseded"]) == (200, True)
    assert await api.settle() == 0


async def _confirmed(api: Api) -> bool:
    def read(connection: Connection) -> bool:
        entity = entities.find(connection, "t1", EntityKind.EVENT, "games")
        assert entity is not None
        status = sync.status(connection, "t1", "entity", entity.ref)
        assert status is not None
        return entities.removals_are_confirmed(entity, status)

    return await api.database.read(read)

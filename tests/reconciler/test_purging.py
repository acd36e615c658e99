"""Rooms deleted for good, on a real Synapse with its admin API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import entities, members, rooms
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.members import Standing

from .conftest import TENANT, Service, World, until
from .proxy import internal_error, lost_answer, lost_request, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHO: dict[str, str | Standing] = {"ada": "host", "bob": "participant"}


@pytest_asyncio.fixture(loop_scope="session")
async def purging(service: Service, world: World) -> AsyncIterator[Service]:
    """A reconciler at work that has an admin's token."""
    service.admin_token = world.admin_token
    await service.start()
    yield service
    service.proxy.heal()


async def _is_gone(service: Service, event: Entity) -> bool:
    return await service.database.read(entities.get, TENANT, event.ref) is None


async def _gone(service: Service, event: Entity) -> None:
    async def look() -> bool:
        return await _is_gone(service, event)

    await until(look, "nothing is left of it")
    assert await service.rooms(event) == []
    assert await service.database.read(members.count, event) == 0


async def _exists(service: Service, world: World, room_id: str) -> bool:
    return await service.admin(service.proxy.target, world.admin_token).room_exists(room_id)


async def test_nothing_is_left_of_what_was_deleted_for_good(purging: Service, world: World) -> None:
    event = await purging.put("games", who=WHO, access="anyone")
    await purging.settled(event)
    await purging.rename("games", "cards")
    await purging.settled(event)
    room_id = await world.person.join(purging.alias("cards"))
    await purging.archive("cards", purge=True)
    await _gone(purging, event)
    assert not await _exists(purging, world, room_id)
    for name in ("games", "cards"):
        with pytest.raises(HomeserverRefused) as caught:
            await world.person.resolve_alias(purging.alias(name))
        assert caught.value.status == 404
    with pytest.raises(HomeserverRefused):
        await purging.homeserver.join(room_id)


async def test_former_rooms_are_deleted_too(purging: Service, world: World) -> None:
    event = await purging.put("twice", who=WHO)
    await purging.settled(event)
    await purging.recreate("twice")
    await purging.settled(event)
    both = [room.room_id for room in await purging.rooms(event)]
    assert len(both) == 2
    await purging.archive("twice", purge=True)
    await _gone(purging, event)
    for room_id in both:
        assert room_id is not None
        assert not await _exists(purging, world, room_id)


async def test_what_was_archived_before_and_what_never_had_a_room(purging: Service, world: World) -> None:
    event = await purging.put("old", who=WHO)
    await purging.settled(event)
    room_id = await purging.room_id(event)
    await purging.archive("old")
    await purging.settled(event)
    draft = await purging.put("draft", status="draft")
    await purging.settled(draft)
    for name, entity in (("old", event), ("draft", draft)):
        await purging.archive(name, purge=True)
        await _gone(purging, entity)
    assert not await _exists(purging, world, room_id)


async def test_the_slug_is_used_again_before_the_old_room_is_gone(purging: Service, world: World) -> None:
    event = await purging.put("annual", who=WHO)
    await purging.settled(event)
    old = await purging.room_id(event)
    purging.proxy.fail("DELETE", "/_synapse/admin", refused(403, "M_FORBIDDEN"), times=1)
    await purging.archive("annual", purge=True)
    newcomer = await purging.put("annual", who={"cyd": "host"})
    assert newcomer.ref != event.ref
    await purging.settled(newcomer)
    await _gone(purging, event)
    new = await purging.room_id(newcomer)
    assert new != old
    assert await world.person.resolve_alias(purging.alias("annual")) == new
    assert await purging.inside(new) == {purging.user_id("cyd")}
    assert not await _exists(purging, world, old)


async def _not_found(request: web.Request, forward: Any) -> web.StreamResponse:
    return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}, status=404)


async def _proxys_404(request: web.Request, forward: Any) -> web.StreamResponse:
    return web.Response(status=404, text="<html>404</html>", content_type="text/html")


REFUSALS = {
    "no admin": (refused(403, "M_FORBIDDEN", "You are not a server admin"), "admin_token_refused"),
    "unknown token": (refused(401, "M_UNKNOWN_TOKEN"), "admin_token_refused"),
    "no admin API": (_not_found, "admin_api_unavailable"),
    "hidden by a proxy": (_proxys_404, "admin_api_unavailable"),
    "a fault": (refused(400, "M_UNKNOWN"), "purge_failed"),
    "an outage": (internal_error, "homeserver_unreachable"),
}


@pytest.mark.parametrize(("fault", "code"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_stands_in_the_way_is_told_and_tried_again(
    purging: Service, world: World, fault: Any, code: str
) -> None:
    event = await purging.put("stuck", who=WHO)
    await purging.settled(event)
    room_id = await purging.room_id(event)
    purging.proxy.fail("GET", "/_synapse/admin", fault, times=None)
    purging.proxy.fail("DELETE", "/_synapse/admin", fault, times=None)
    await purging.archive("stuck", purge=True)
    await purging.failed(event, code)
    assert await _exists(purging, world, room_id)
    # It is closed all the same.
    assert await purging.inside(room_id) == set()
    with pytest.raises(HomeserverRefused):
        await world.person.resolve_alias(purging.alias("stuck"))
    purging.proxy.heal()
    await _gone(purging, event)
    assert not await _exists(purging, world, room_id)


async def test_an_admin_token_that_was_taken_away(service: Service, world: World) -> None:
    await service.start()
    event = await service.put("later", who=WHO)
    await service.settled(event)
    room_id = await service.room_id(event)
    await service.archive("later", purge=True)
    await service.failed(event, "purge_unavailable")
    await service.stop()
    assert await _exists(service, world, room_id)
    service.admin_token = world.admin_token
    await service.start()
    await _gone(service, event)


POINTS = {
    "asked, and nobody told": ("DELETE", "/_synapse/admin", lost_answer),
    "not asked": ("DELETE", "/_synapse/admin", lost_request),
    "how it stands is unknown": ("GET", "/delete_status", lost_answer),
    "whether it is there is unknown": ("GET", "/_synapse/admin/v1/rooms/", lost_answer),
}


@pytest.mark.parametrize(("method", "part", "fault"), POINTS.values(), ids=POINTS.keys())
async def test_killed_on_the_way(service: Service, world: World, method: str, part: str, fault: Any) -> None:
    service.admin_token = world.admin_token
    await service.start()
    event = await service.put("games", who=WHO)
    await service.settled(event)
    room_id = await service.room_id(event)
    service.proxy.fail(method, part, fault, times=None)
    await service.archive("games", purge=True)

    async def reached() -> bool:
        return service.proxy.count(method, part) > 0

    await until(reached, "the point where it dies")
    await service.stop()
    service.proxy.heal()
    await service.start()
    await _gone(service, event)
    assert not await _exists(service, world, room_id)


async def test_a_room_that_the_bot_cannot_enter_is_deleted_too(purging: Service, world: World) -> None:
    event = await purging.put("locked", who=WHO)
    await purging.settled(event)
    room_id = await purging.room_id(event)
    await purging.homeserver.leave(room_id)
    await purging.archive("locked", purge=True)
    await _gone(purging, event)
    assert not await _exists(purging, world, room_id)


async def test_an_older_one_under_the_slug_does_not_come_to_light(purging: Service) -> None:
    first = await purging.put("again")
    await purging.settled(first)
    await purging.archive("again")
    await purging.settled(first)
    second = await purging.put("again")
    await purging.settled(second)
    await purging.archive("again", purge=True)
    await _gone(purging, second)
    found = await purging.database.read(entities.find, TENANT, second.kind, purging.slug("again"))
    assert found is None
    assert await purging.database.read(rooms.of_entity, TENANT, first.ref) != []

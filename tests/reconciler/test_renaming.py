"""Renamed events on a real Synapse: the aliases lead where they should, and nobody gets another's history."""

from __future__ import annotations

import pytest

from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import former_slugs

from .conftest import TENANT, Service, World, until
from .proxy import lost_answer, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

CANONICAL = "m.room.canonical_alias"


async def test_fault_44_every_older_alias_is_kept(running: Service, world: World) -> None:
    event = await running.put("first", who={"ada": "host"})
    await running.settled(event)
    room_id = await running.room_id(event)
    for old, new in (("first", "second"), ("second", "third")):
        await running.rename(old, new)
        await running.settled(event)
    assert await running.room_id(event) == room_id
    for name in ("first", "second", "third"):
        assert await world.person.resolve_alias(running.alias(name)) == room_id
    assert (await running.state(room_id))[CANONICAL] == {
        "alias": running.alias("third"),
        "alt_aliases": sorted([running.alias("first"), running.alias("second")]),
    }
    assert [room.alias for room in await running.rooms(event)] == [running.alias("third")]
    # Back again: the first is the main one, and the others stay.
    await running.rename("third", "first")
    await running.settled(event)
    assert (await running.state(room_id))[CANONICAL] == {
        "alias": running.alias("first"),
        "alt_aliases": sorted([running.alias("second"), running.alias("third")]),
    }


async def test_fault_32_who_takes_a_freed_slug_gets_a_fresh_room(running: Service, world: World) -> None:
    event = await running.put("annual", who={"ada": "host"})
    await running.settled(event)
    old = await running.room_id(event)
    await running.rename("annual", "jubilee")
    await running.settled(event)
    newcomer = await running.put("annual", who={"bob": "host"})
    await running.settled(newcomer)
    await running.settled(event)
    fresh = await running.room_id(newcomer)
    assert fresh != old
    assert await world.person.resolve_alias(running.alias("annual")) == fresh
    assert await world.person.resolve_alias(running.alias("jubilee")) == old
    assert (await running.state(old))[CANONICAL] == {"alias": running.alias("jubilee")}
    assert (await running.state(fresh))[CANONICAL] == {"alias": running.alias("annual")}
    assert await running.inside(old) == {running.user_id("ada")}
    assert await running.inside(fresh) == {running.user_id("bob")}
    assert await running.database.read(former_slugs.of_entity, TENANT, event.ref) == []


async def test_a_slug_freed_and_taken_before_synapse_heard_of_either(service: Service, world: World) -> None:
    await service.start()
    event = await service.put("annual")
    await service.settled(event)
    await service.stop()
    await service.rename("annual", "jubilee")
    newcomer = await service.put("annual")
    await service.start()
    await service.settled(newcomer)
    await service.settled(event)
    assert await world.person.resolve_alias(service.alias("jubilee")) == await service.room_id(event)
    assert await world.person.resolve_alias(service.alias("annual")) == await service.room_id(newcomer)
    assert await service.room_id(event) != await service.room_id(newcomer)


async def test_fault_44_a_new_alias_that_leads_elsewhere_is_reported_and_tried_again(
    running: Service, world: World
) -> None:
    event = await running.put("ours")
    await running.settled(event)
    room_id = await running.room_id(event)
    stray = await running.homeserver.create_room({"preset": "public_chat"})
    await running.homeserver.put_alias(running.alias("theirs"), stray)
    await running.rename("ours", "theirs")
    status = await running.failed(event, "alias_taken")
    assert stray in (status.error.detail if status.error else "")
    assert (await running.state(room_id))[CANONICAL] == {"alt_aliases": [running.alias("ours")]}
    assert await world.person.resolve_alias(running.alias("theirs")) == stray
    await running.homeserver.delete_alias(running.alias("theirs"))
    await running.settled(event)
    assert await world.person.resolve_alias(running.alias("theirs")) == room_id


@pytest.mark.parametrize(
    ("method", "part"), [("PUT", "/directory/room/"), ("PUT", "/state/m.room.canonical_alias")]
)
async def test_fault_44_a_renaming_that_failed_is_tried_again(
    running: Service, world: World, method: str, part: str
) -> None:
    event = await running.put("shaky")
    await running.settled(event)
    running.proxy.fail(method, part, refused(403, "M_FORBIDDEN"))
    running.proxy.fail(method, part, lost_answer)
    await running.rename("shaky", "steady")
    await running.failed(event, "homeserver_refused")
    await running.settled(event)
    room_id = await running.room_id(event)
    for name in ("shaky", "steady"):
        assert await world.person.resolve_alias(running.alias(name)) == room_id
    assert (await running.state(room_id))[CANONICAL] == {
        "alias": running.alias("steady"),
        "alt_aliases": [running.alias("shaky")],
    }


async def test_renamed_while_its_room_is_made(service: Service, world: World) -> None:
    service.proxy.fail("POST", "/createRoom", lost_answer, times=None)
    event = await service.put("early")
    await service.start()

    async def is_asked() -> bool:
        return service.proxy.count("POST", "/createRoom") > 0

    await until(is_asked, "a room is asked for")
    await service.stop()
    await service.rename("early", "late")
    service.proxy.heal()
    service.proxy.seen.clear()
    await service.start()
    await service.settled(event)
    room_id = await service.room_id(event)
    for name in ("early", "late"):
        assert await world.person.resolve_alias(service.alias(name)) == room_id
    assert service.proxy.count("POST", "/createRoom") == 0, "the room that was made is used"


async def test_a_private_event_is_renamed_without_a_trace(running: Service, world: World) -> None:
    event = await running.put("secret", visibility="private")
    await running.settled(event)
    await running.rename("secret", "secret2")
    await running.settled(event)
    room_id = await running.room_id(event)
    assert await running.homeserver.room_aliases(room_id) == set()
    for name in ("secret", "secret2"):
        with pytest.raises(HomeserverRefused) as caught:
            await world.person.resolve_alias(running.alias(name))
        assert caught.value.status == 404


async def test_what_is_archived_leaves_no_alias_behind(running: Service, world: World) -> None:
    event = await running.put("old")
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.rename("old", "new")
    await running.settled(event)
    await running.archive("new")
    await running.settled(event)
    assert (await running.state(room_id))[CANONICAL] == {}
    for name in ("old", "new"):
        with pytest.raises(HomeserverRefused):
            await world.person.resolve_alias(running.alias(name))
    assert await running.database.read(former_slugs.of_entity, TENANT, event.ref) == []


async def test_renaming_costs_a_few_requests_and_settles(running: Service) -> None:
    event = await running.put("cheap", who={"ada": "host"})
    await running.settled(event)
    running.proxy.seen.clear()
    await running.rename("cheap", "dear")
    await running.settled(event)
    assert running.proxy.count("PUT", "/state/") == 1
    assert running.proxy.count("PUT", "/directory/room/") == 1
    assert running.proxy.count("DELETE", "") == 0

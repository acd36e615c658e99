"""Direct rooms on a real Synapse: made and kept as the two puppets who own them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import rooms, schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.entities import Entity

from .conftest import BOT, SERVER, Service, World, make_service, until
from .proxy import Fault, Gate, internal_error, lost_answer, lost_request
from .test_told import listen, told

pytestmark = pytest.mark.asyncio(loop_scope="session")
both_versions = pytest.mark.parametrize("version", ["11", "12"])


@pytest_asyncio.fixture(loop_scope="session")
async def of_version(world: World, tmp_path: Path, version: str) -> AsyncIterator[Service]:
    """A reconciler at work that makes rooms of one version."""
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.write(schema.migrate)
    made = await make_service(world, database, version)
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await database.close()


async def state_as(service: Service, room_id: str, name: str) -> list[dict[str, Any]]:
    """Return the room's state as that puppet sees it."""
    return await service.homeserver.room_state(room_id, service.user_id(name))


async def chats(service: Service, name: str) -> dict[str, Any]:
    """Return that puppet's ``m.direct``."""
    return await service.homeserver.account_data(service.user_id(name), "m.direct") or {}


async def is_whole(service: Service, entity: Entity, one: str, other: str) -> str:
    """Check that the two are in the one room that they have, and return its id."""
    await service.settled(entity)
    room_id = await service.room_id(entity)
    a, b = service.user_id(one), service.user_id(other)
    assert await service.homeserver.joined_members(room_id, a) == {a, b}
    assert room_id in (await chats(service, one))[b]
    assert room_id in (await chats(service, other))[a]
    assert await service.homeserver.room_aliases(room_id, a) == set()
    return room_id


@both_versions
async def test_both_own_their_room_and_the_bot_is_not_inside(of_version: Service, version: str) -> None:
    service = of_version
    await listen(service)
    await service.put_user("ada", "Ada Lovelace")
    entity = await service.put_direct("bob", "ada")
    room_id = await is_whole(service, entity, "ada", "bob")
    ada, bob = service.user_id("ada"), service.user_id("bob")
    events = await state_as(service, room_id, "bob")
    assert {e["state_key"]: e["content"]["membership"] for e in events if e["type"] == "m.room.member"} == {
        ada: "join",
        bob: "join",
    }
    state = {e["type"]: e["content"] for e in events if e["state_key"] == ""}
    assert state["m.room.create"]["room_version"] == version
    assert state["m.room.join_rules"] == {"join_rule": "invite"}
    assert state["m.room.guest_access"] == {"guest_access": "forbidden"}
    assert state["m.room.history_visibility"] == {"history_visibility": "shared"}
    assert "m.room.encryption" not in state
    if version == "12":
        [create] = [e for e in events if e["type"] == "m.room.create"]
        assert {create["sender"], *state["m.room.create"]["additional_creators"]} == {ada, bob}
    else:
        assert state["m.room.power_levels"]["users"] == {ada: 100, bob: 100}
    # Either may do anything: also the one who did not make it.
    await service.homeserver.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"}, as_user=bob)
    [ready] = await told(service, "room.ready")
    assert ready["room"] == {
        "kind": "direct",
        "slug": f"{service.slug('ada')}~{service.slug('bob')}",
        "external_id": None,
        "room_id": room_id,
        "alias": None,
        "log_id": ready["room"]["log_id"],
    }
    assert ready["room_version"] == version


async def test_fault_34_no_name_no_topic_and_no_bot(running: Service, world: World) -> None:
    """Room name and topic of a direct room showed both handles, and the bot was in it with level 100."""
    entity = await running.put_direct("ada", "bob")
    room_id = await is_whole(running, entity, "ada", "bob")
    types = {event["type"] for event in await state_as(running, room_id, "ada")}
    assert types.isdisjoint({"m.room.name", "m.room.topic", "m.room.avatar"})
    assert BOT not in {event["state_key"] for event in await state_as(running, room_id, "ada")}
    assert room_id not in await running.homeserver.joined_rooms()
    with pytest.raises(HomeserverRefused):
        await running.homeserver.join(room_id)
    canonical = await running.homeserver.state_event(
        room_id, "m.room.canonical_alias", as_user=running.user_id("ada")
    )
    assert canonical in (None, {})


async def test_fault_43_m_direct_is_the_puppets_own_and_merged(running: Service) -> None:
    """It was written to the bot's account data, and two writers at once lost one another's rooms."""
    ada = running.user_id("ada")
    ref = await running.put_user("ada", "Ada")
    await running.settled(ref, "user")
    theirs = {"@friend:elsewhere.test": ["!old:elsewhere.test"], "odd": {"not": "a list"}}
    await running.homeserver.set_account_data(ada, "m.direct", theirs)
    others = [f"p{number}" for number in range(6)]
    made = await asyncio.gather(*(running.put_direct("ada", other) for other in others))
    ids = [await is_whole(running, entity, "ada", other) for entity, other in zip(made, others, strict=True)]
    expected = {running.user_id(other): [room_id] for other, room_id in zip(others, ids, strict=True)}
    assert await chats(running, "ada") == {**theirs, **expected}
    assert await running.homeserver.account_data(BOT, "m.direct") is None


async def test_fault_43_a_writer_that_is_overtaken_takes_nothing_away(running: Service) -> None:
    """Its list is older than what another has written meanwhile for another room of the same user."""
    ada, bob, cyd = (running.user_id(name) for name in ("ada", "bob", "cyd"))
    gate = Gate()
    running.proxy.fail("PUT", f"/user/{ada}/account_data", gate)
    first = await running.put_direct("ada", "bob")
    await asyncio.wait_for(gate.reached.wait(), 40)
    second = await running.put_direct("ada", "cyd")
    other_id = await is_whole(running, second, "ada", "cyd")
    gate.opened.set()
    room_id = await is_whole(running, first, "ada", "bob")
    assert await chats(running, "ada") == {bob: [room_id], cyd: [other_id]}


async def test_at_rest_nothing_is_written(running: Service) -> None:
    entity = await running.put_direct("ada", "bob")
    await is_whole(running, entity, "ada", "bob")
    assert running.reconciler is not None
    explained = await running.reconciler.explain("t1", EntityKind.DIRECT, entity.slug)
    assert explained is not None
    assert explained.plan.describe() == ()
    running.proxy.seen.clear()
    await running.poke(entity)
    await running.settled(entity)
    assert {seen.method for seen in running.proxy.seen} == {"GET"}
    assert len(running.proxy.seen) == 4


@both_versions
@pytest.mark.parametrize("who", ["ada", "bob"])
async def test_a_puppet_that_left_comes_back(of_version: Service, who: str) -> None:
    service = of_version
    entity = await service.put_direct("ada", "bob")
    room_id = await is_whole(service, entity, "ada", "bob")
    await service.homeserver.leave(room_id, service.user_id(who))
    await service.homeserver.set_account_data(service.user_id(who), "m.direct", {})
    await service.poke(entity)
    assert await is_whole(service, entity, "ada", "bob") == room_id


async def test_when_both_have_left_they_get_a_new_room(running: Service) -> None:
    await listen(running)
    entity = await running.put_direct("ada", "bob")
    first = await is_whole(running, entity, "ada", "bob")
    for name in ("ada", "bob"):
        await running.homeserver.leave(first, running.user_id(name))
    await running.poke(entity)
    second = await is_whole(running, entity, "ada", "bob")
    assert second != first
    assert (await chats(running, "ada"))[running.user_id("bob")] == [second]
    [replaced] = await told(running, "room.replaced")
    assert (replaced["replaced"]["room_id"], replaced["room"]["room_id"]) == (first, second)


@both_versions
async def test_archived_and_made_anew(of_version: Service, version: str) -> None:
    service = of_version
    await listen(service)
    entity = await service.put_direct("ada", "bob")
    first = await is_whole(service, entity, "ada", "bob")
    await service.archive_direct("bob", "ada")
    await service.settled(entity)
    for name in ("ada", "bob"):
        assert first not in await service.homeserver.joined_rooms(service.user_id(name))
        assert await chats(service, name) == {}
    [archived] = await told(service, "room.archived")
    assert archived["room"]["room_id"] == first
    again = await service.put_direct("ada", "bob")
    assert again.ref != entity.ref
    assert await is_whole(service, again, "ada", "bob") != first


async def test_archived_before_anything_was_made(service: Service) -> None:
    entity = await service.put_direct("ada", "bob")
    await service.archive_direct("ada", "bob")
    await service.start()
    await service.settled(entity)
    assert await service.rooms(entity) == []


async def test_encryption_is_added_and_stays(running: Service) -> None:
    entity = await running.put_direct("ada", "bob")
    room_id = await is_whole(running, entity, "ada", "bob")
    for encrypted in (True, False):
        await running.put_direct("ada", "bob", encrypted=encrypted)
        await running.settled(entity)
        content = await running.homeserver.state_event(
            room_id, "m.room.encryption", as_user=running.user_id("ada")
        )
        assert content == {"algorithm": "m.megolm.v1.aes-sha2"}
    at_once = await running.put_direct("ada", "cyd", encrypted=True)
    content = await running.homeserver.state_event(
        await is_whole(running, at_once, "ada", "cyd"),
        "m.room.encryption",
        as_user=running.user_id("cyd"),
    )
    assert content == {"algorithm": "m.megolm.v1.aes-sha2"}


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("POST", "/createRoom"),
        ("POST", "/register"),
        ("GET", "/state"),
        ("GET", "/aliases"),
        ("GET", "/account_data"),
        ("PUT", "/account_data"),
        ("POST", "/join"),
        ("DELETE", "/directory/room"),
    ],
)
@pytest.mark.parametrize("fault", [lost_request, lost_answer, internal_error])
async def test_every_request_may_fail_or_lose_its_answer(
    running: Service, method: str, part: str, fault: Fault
) -> None:
    running.proxy.fail(method, part, fault)
    entity = await running.put_direct("ada", "bob")
    await is_whole(running, entity, "ada", "bob")
    assert running.proxy.count(method, part) > 1
    assert [room.state for room in await running.rooms(entity)] == ["open"]
    for name in ("ada", "bob"):
        assert len(await running.homeserver.joined_rooms(running.user_id(name))) == 1


@pytest.mark.parametrize(
    ("method", "part"),
    [("POST", "/createRoom"), ("DELETE", "/directory/room"), ("POST", "/join"), ("PUT", "/account_data")],
)
@pytest.mark.parametrize("done", [False, True])
async def test_killed_anywhere_there_is_one_room(
    service: Service, method: str, part: str, done: bool
) -> None:
    gate = Gate()

    async def fault(request: Any, forward: Any) -> Any:
        if done:
            await forward()
        return await gate(request, forward)

    service.proxy.fail(method, part, fault)
    entity = await service.put_direct("ada", "bob")
    await service.start()
    await asyncio.wait_for(gate.reached.wait(), 40)
    await service.stop()
    service.proxy.heal()
    await service.start()
    await is_whole(service, entity, "ada", "bob")
    in_use = [room for room in await service.rooms(entity) if room.state in rooms.IN_USE]
    assert len(in_use) == 1
    for name in ("ada", "bob"):
        assert len(await service.homeserver.joined_rooms(service.user_id(name))) == 1


async def test_a_second_room_for_one_claim_is_closed(running: Service, world: World) -> None:
    entity = await running.put_direct("ada", "bob")
    room_id = await is_whole(running, entity, "ada", "bob")
    [room] = await running.rooms(entity)
    ada, bob = running.user_id("ada"), running.user_id("bob")
    second = await running.homeserver.create_room(
        {"creation_content": {"net.openmeet.claim": room.claim}, "invite": [bob]}, ada
    )

    def add(connection: Any) -> None:
        rooms.add_orphan(connection, room, second, "12", now=1, new_id=lambda prefix: f"{prefix}_second")

    await running.database.write(add)
    await running.poke(entity)

    async def is_closed() -> bool:
        return [one.state for one in await running.rooms(entity) if one.room_id == second] == ["former"]

    await until(is_closed, "the second room is closed")
    assert await is_whole(running, entity, "ada", "bob") == room_id
    assert await running.homeserver.joined_rooms(ada) == {room_id}
    assert f"_openmeet_{room.claim}" not in str(await running.homeserver.room_aliases(room_id, ada))
    assert SERVER in ada

"""Recreated rooms on a real Synapse: the old one leads to the new one, and everybody comes along."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from openmeet_appservice.domain.people import BANNED_BEFORE
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.members import Standing

from .conftest import BOT, Service, World, until
from .proxy import internal_error, lost_answer, lost_request
from .test_rooms import both_versions, of_version

__all__ = ["of_version"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHO: dict[str, str | Standing] = {"ada": "host", "bob": "moderator", "cyd": "participant"}


async def _two_rooms(service: Service, event: Entity) -> tuple[str, str]:
    """Return the ids of the room before and of the one in use; there are no others."""
    found = await service.rooms(event)
    states = {room.state: room.room_id for room in found}
    assert len(found) == len(states) == 2, found
    (before,) = (room_id for state, room_id in states.items() if state != "open")
    after = states["open"]
    assert before is not None
    assert after is not None
    return before, after


async def _check(service: Service, world: World, event: Entity, name: str) -> None:
    """Fail unless the new room is whole, the old one leads to it, and nobody can speak there."""
    old, new = await _two_rooms(service, event)
    everybody = {service.user_id(user) for user in WHO}
    before, after = await service.state(old), await service.state(new)
    assert before["m.room.tombstone"]["replacement_room"] == new
    assert after["m.room.create"]["predecessor"]["room_id"] == old
    assert await world.person.resolve_alias(service.alias(name)) == new
    assert after["m.room.canonical_alias"] == {"alias": service.alias(name)}
    assert before["m.room.canonical_alias"] == {}
    assert await service.homeserver.room_aliases(old) == set()
    assert await service.inside(new) == everybody
    assert await service.inside(old) == everybody, "they see where it goes on"
    assert await service.homeserver.room_visibility(old) == "private"
    assert await service.homeserver.room_visibility(new) == "public"
    for user in ("ada", "cyd"):
        with pytest.raises(HomeserverRefused) as caught:
            await _say(service, old, user)
        assert caught.value.status == 403
        await _say(service, new, user)


async def _say(service: Service, room_id: str, user: str) -> str:
    return await service.homeserver.send(
        room_id,
        "m.room.message",
        f"{room_id}-{user}",
        {"msgtype": "m.text", "body": "Hello"},
        as_user=service.user_id(user),
    )


@both_versions
async def test_a_successor_with_tombstone_and_predecessor(
    of_version: Service, world: World, version: str
) -> None:
    event = await of_version.put("games", who=WHO)
    await of_version.settled(event)
    await of_version.recreate("games")
    await of_version.settled(event)
    await _check(of_version, world, event, "games")


async def test_the_alternatives_come_along(running: Service, world: World) -> None:
    event = await running.put("one", who=WHO)
    await running.settled(event)
    names = ("one", "two", "three", "four", "five")
    for old, new in itertools.pairwise(names):
        await running.rename(old, new)
    await running.settled(event)
    await running.recreate("five")
    await running.settled(event)
    before, room_id = await _two_rooms(running, event)
    for name in names:
        assert await world.person.resolve_alias(running.alias(name)) == room_id
    canonical = (await running.state(room_id))["m.room.canonical_alias"]
    assert (canonical["alias"], len(canonical["alt_aliases"])) == (running.alias("five"), 4)
    assert (await running.state(before))["m.room.canonical_alias"] == {}


async def test_out_of_encryption_and_into_it(running: Service) -> None:
    event = await running.put("quiet", who=WHO, encrypted=True)
    await running.settled(event)
    assert "m.room.encryption" in await running.state(await running.room_id(event))
    await running.recreate("quiet", encrypted=False)
    await running.settled(event)
    assert "m.room.encryption" not in await running.state(await running.room_id(event))
    await running.recreate("quiet", encrypted=True)
    await running.settled(event)
    assert "m.room.encryption" in await running.state(await running.room_id(event))
    assert [room.state for room in await running.rooms(event)].count("ended") == 2


async def test_who_was_banned_stays_so_by_whom_it_was(running: Service, world: World) -> None:
    outlaw, stranger = Standing("participant", None, banned=True), world.person.user_id
    event = await running.put("strict", who={**WHO, "dan": outlaw}, access="anyone")
    await running.settled(event)
    room_id = await running.room_id(event)
    bob, cyd, dan = (running.user_id(name) for name in ("bob", "cyd", "dan"))
    for user in (cyd, stranger):
        await running.homeserver.ban(room_id, user, "rude", as_user=bob)
    await running.recreate("strict")
    await running.failed(event, "member_banned")
    new = await running.room_id(event)
    assert new != room_id
    memberships = await running.memberships(new)
    assert [memberships.get(user) for user in (cyd, stranger, dan)] == ["ban"] * 3
    # OpenMeet's own ban it can take back; the moderators' are theirs.
    await running.put("strict", who={**WHO, "dan": "participant"}, access="anyone")

    async def dan_is_back() -> bool:
        return dan in await running.inside(new)

    await until(dan_is_back, "who was forgiven comes back")
    memberships = await running.memberships(new)
    assert (memberships[cyd], memberships[stranger]) == ("ban", "ban")
    reasons = [
        state["content"].get("reason")
        for state in await running.homeserver.room_state(new)
        if state["type"] == "m.room.member" and state["state_key"] in (cyd, stranger)
    ]
    assert reasons == [BANNED_BEFORE] * 2


FAULTS = {
    "the room is made and nobody told": ("POST", "/createRoom", lost_answer),
    "the room was not asked for": ("POST", "/createRoom", lost_request),
    "the alias is off the old room": ("DELETE", "/directory/room/", lost_answer),
    "the tombstone is set": ("PUT", "/state/m.room.tombstone", lost_answer),
    "the tombstone failed": ("PUT", "/state/m.room.tombstone", internal_error),
    "the old room is silent": ("PUT", "/state/m.room.power_levels", lost_answer),
    "a member is in": ("POST", "/join", lost_answer),
}


@pytest.mark.parametrize(("method", "part", "fault"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("dies", [False, True], ids=["goes on", "dies"])
async def test_whatever_fails_on_the_way_there_is_one_successor(
    service: Service, world: World, method: str, part: str, fault: Any, dies: bool
) -> None:
    await service.start()
    event = await service.put("games", who=WHO)
    await service.settled(event)
    reached = asyncio.Event()

    async def at_this_point(request: Any, forward: Any) -> Any:
        reached.set()
        return await fault(request, forward)

    service.proxy.fail(method, part, at_this_point, times=3 if dies else 2)
    await service.recreate("games")
    await asyncio.wait_for(reached.wait(), 20)
    if dies:
        await service.stop()
        service.proxy.heal()
        await service.start()
    await service.settled(event)
    await _check(service, world, event, "games")


async def test_an_old_room_that_the_bot_is_locked_out_of_is_left(running: Service, world: World) -> None:
    event = await running.put("lost", who=WHO)
    await running.settled(event)
    old = await running.room_id(event)
    await running.homeserver.leave(old)
    await running.recreate("lost")
    await running.settled(event)
    new = await running.room_id(event)
    assert new != old
    assert await world.person.resolve_alias(running.alias("lost")) == new
    assert [room.state for room in await running.rooms(event)] == ["former", "open"]


@pytest.mark.parametrize("version", ["11"])
async def test_fault_60_a_room_in_which_the_bot_has_no_power_can_be_recreated(
    of_version: Service, world: World, version: str
) -> None:
    event = await of_version.put("weak", who=WHO)
    await of_version.settled(event)
    old = await of_version.room_id(event)
    levels = (await of_version.state(old))["m.room.power_levels"]
    demoted = {**levels, "users": {of_version.user_id("ada"): 100}}
    await of_version.homeserver.set_state(old, "m.room.power_levels", demoted)
    await of_version.recreate("weak")
    await of_version.settled(event)
    new = await of_version.room_id(event)
    assert await of_version.inside(new) == {of_version.user_id(user) for user in WHO}
    assert await world.person.resolve_alias(of_version.alias("weak")) == new
    assert "m.room.tombstone" not in await of_version.state(old)
    assert [room.state for room in await of_version.rooms(event)] == ["former", "open"]


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "unpublished"])
async def test_what_is_closed_empties_its_old_rooms_too(running: Service, archived: bool) -> None:
    event = await running.put("over", who=WHO)
    await running.settled(event)
    await running.recreate("over")
    await running.settled(event)
    old, new = await _two_rooms(running, event)
    assert await running.inside(old)
    if archived:
        await running.archive("over")
    else:
        await running.put("over", status="draft")
    await running.settled(event)
    for room_id in (old, new):
        assert await running.inside(room_id) == set()
        assert BOT in await running.homeserver.joined_members(room_id)
    assert {room.state for room in await running.rooms(event)} == {"former", "open"}


async def test_recreated_and_archived_before_synapse_heard_of_it(service: Service, world: World) -> None:
    await service.start()
    event = await service.put("short", who=WHO)
    await service.settled(event)
    old = await service.room_id(event)
    await service.stop()
    await service.recreate("short")
    await service.archive("short")
    await service.start()
    await service.settled(event)
    assert await service.inside(old) == set()
    assert [room.state for room in await service.rooms(event)] == ["former"]
    with pytest.raises(HomeserverRefused):
        await world.person.resolve_alias(service.alias("short"))


async def test_a_person_who_walked_in_finds_the_way_to_the_new_room(running: Service, world: World) -> None:
    event = await running.put("open", who=WHO, access="anyone")
    await running.settled(event)
    old = await world.person.join(running.alias("open"))
    await running.recreate("open")
    await running.settled(event)
    assert world.person.user_id in await running.inside(old), "there the tombstone tells where to go"
    assert await world.person.join(running.alias("open")) == await running.room_id(event)

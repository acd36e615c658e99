"""A change of a few members has them compared alone, and the whole room wherever that goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from openmeet_appservice.domain.kinds import JoinPolicy
from openmeet_appservice.store import checks, schema, uninvited
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.member_tables import member_checks
from openmeet_appservice.store.members import Standing

from .conftest import TENANT, Service, World, make_service, until
from .proxy import lost_answer, refused
from .test_told import listen, told

pytestmark = pytest.mark.asyncio(loop_scope="session")


def whole_readings(service: Service) -> int:
    """Return how often the room was read as a whole."""
    return sum(seen.method == "GET" and seen.path.endswith("/state") for seen in service.proxy.seen)


def asked(service: Service) -> list[str]:
    """Return the requests since last time, in short."""
    return [f"{seen.method} {_what(seen.path)}" for seen in service.proxy.seen]


def _what(path: str) -> str:
    words = path.removeprefix("/_matrix/client/v3/").split("/")
    return words[2] if words[0] == "rooms" else words[0]


@pytest_asyncio.fixture(loop_scope="session")
async def lazy(world: World, tmp_path: Path) -> AsyncIterator[Service]:
    """A reconciler at work under which only those with power join."""
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.write(schema.migrate)
    made = await make_service(world, database, None, join=JoinPolicy.LAZY)
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await database.close()


async def club(service: Service, **who: str | Standing) -> tuple[Entity, str]:
    """Make an event and return it with its room."""
    event = await service.put("club", who={"ada": "host", "bob": "participant", **who})
    await service.settled(event)
    service.proxy.seen.clear()
    return event, await service.room_id(event)


async def noted(service: Service) -> list[Any]:
    return await service.database.read(lambda connection: list(connection.execute(select(member_checks))))


async def test_one_more_is_two_requests_and_nobody_reads_the_room(running: Service) -> None:
    await running.settled(await running.put_user("new", "New"), "user")
    event, room_id = await club(running)
    await running.change("club", {"new": "participant"})
    await running.settled(event)
    assert asked(running) == ["POST invite", "POST join"]
    assert running.user_id("new") in await running.inside(room_id)
    assert await noted(running) == []


async def test_one_role_change_is_one_state_event(running: Service) -> None:
    event, room_id = await club(running)
    await running.change("club", {"bob": "moderator"})
    await running.settled(event)
    assert asked(running) == ["GET state", "PUT state"]
    users = (await running.state(room_id))["m.room.power_levels"]["users"]
    assert users == {running.user_id("ada"): 100, running.user_id("bob"): 50}


async def test_one_less_is_one_request(running: Service) -> None:
    event, room_id = await club(running)
    await running.change("club", {}, ("bob",))
    await running.settled(event)
    assert asked(running) == ["POST kick"]
    assert await running.inside(room_id) == {running.user_id("ada")}


async def test_bans_mutes_and_statuses_are_compared_alone_too(running: Service) -> None:
    event, room_id = await club(running, cyd="speaker", dan="participant")
    await running.change(
        "club",
        {
            "bob": Standing("participant", muted=True),
            "cyd": Standing("speaker", banned=True),
            "dan": Standing("participant", "rejected"),
        },
    )
    await running.settled(event)
    assert whole_readings(running) == 0
    users = (await running.state(room_id))["m.room.power_levels"]["users"]
    assert users == {running.user_id("ada"): 100, running.user_id("bob"): -1}
    memberships = await running.memberships(room_id)
    assert (memberships[running.user_id("cyd")], memberships[running.user_id("dan")]) == ("ban", "leave")
    await running.change("club", {"cyd": "speaker", "dan": "participant", "bob": "participant"})
    await running.settled(event)
    assert whole_readings(running) == 0
    assert await running.inside(room_id) == {running.user_id(who) for who in ("ada", "bob", "cyd", "dan")}


async def test_what_is_not_as_expected_has_the_whole_compared(running: Service) -> None:
    event, room_id = await club(running)
    await running.homeserver.kick(room_id, running.user_id("bob"))
    await running.change("club", {}, ("bob",))
    await running.settled(event)
    assert whole_readings(running) == 1
    assert await running.inside(room_id) == {running.user_id("ada")}
    assert await noted(running) == []


async def test_a_refused_change_of_power_has_the_whole_compared(running: Service) -> None:
    event, room_id = await club(running)
    running.proxy.fail("PUT", "m.room.power_levels", refused(403, "M_FORBIDDEN"))
    await running.change("club", {"bob": "moderator"})
    await running.settled(event)
    assert whole_readings(running) == 1
    assert (await running.state(room_id))["m.room.power_levels"]["users"][running.user_id("bob")] == 50


async def test_whom_a_moderator_banned_is_reported_by_the_whole(running: Service) -> None:
    event, room_id = await club(running)
    await running.homeserver.ban(room_id, running.user_id("cyd"), as_user=running.user_id("ada"))
    await running.change("club", {"cyd": "participant"})
    await running.failed(event, "member_banned")
    # From now on the whole is compared until that has ended.
    running.proxy.seen.clear()
    await running.change("club", {"bob": "moderator"})

    async def is_moderator() -> bool:
        users = (await running.state(room_id))["m.room.power_levels"]["users"]
        return bool(users.get(running.user_id("bob")) == 50)

    await until(is_moderator, "the rest is done")
    assert whole_readings(running) > 0
    await running.homeserver.unban(room_id, running.user_id("cyd"))
    await running.change("club", {"bob": "participant"})
    await running.settled(event)
    assert running.user_id("cyd") in await running.inside(room_id)


async def test_a_lost_answer_is_tried_again(running: Service) -> None:
    event, room_id = await club(running)
    running.proxy.fail("POST", "/kick", lost_answer)
    await running.change("club", {}, ("bob",))
    await running.settled(event)
    assert await running.inside(room_id) == {running.user_id("ada")}


async def test_who_moved_by_another_hand_is_looked_at_alone(running: Service) -> None:
    event, room_id = await club(running)
    bob, eve = running.user_id("bob"), running.user_id("eve")
    await running.homeserver.kick(room_id, bob)
    await running.homeserver.register(eve[1:].partition(":")[0])
    await running.homeserver.invite(room_id, eve, as_user=running.user_id("ada"))
    await running.homeserver.join(room_id, as_user=eve)
    running.proxy.seen.clear()
    await running.database.write(checks.look_at, TENANT, event.ref, [bob, eve], now=1)
    running.wakeups.wake("reconcile")
    await running.settled(event)
    assert whole_readings(running) == 0
    assert await running.inside(room_id) == {running.user_id("ada"), bob}


async def test_a_spec_that_changes_as_well_has_the_whole_compared(service: Service) -> None:
    await service.start()
    event, room_id = await club(service)
    await service.stop()
    await service.change("club", {}, ("bob",))
    await service.put("club", name="Other")
    await service.start()
    await service.settled(event)
    assert whole_readings(service) == 1
    assert await service.inside(room_id) == {service.user_id("ada")}
    assert await noted(service) == []


async def test_lazy_members_cost_nothing_until_they_speak(lazy: Service) -> None:
    event, room_id = await club(lazy)
    assert await lazy.inside(room_id) == {lazy.user_id("ada")}
    await lazy.change("club", {"cyd": "participant"})
    await lazy.settled(event)
    assert asked(lazy) == []
    await lazy.change("club", {"cyd": "moderator"})
    await lazy.settled(event)
    assert asked(lazy)[:3] == ["GET state", "GET state", "PUT state"]
    assert await lazy.inside(room_id) == {lazy.user_id("ada"), lazy.user_id("cyd")}
    await lazy.change("club", {"cyd": "participant"})
    await lazy.settled(event)
    assert lazy.user_id("cyd") in await lazy.inside(room_id), "nobody has to leave for laziness"
    await lazy.change("club", {}, ("cyd", "bob"))
    await lazy.settled(event)
    assert await lazy.inside(room_id) == {lazy.user_id("ada")}
    assert whole_readings(lazy) == 0


async def test_a_lazy_member_is_let_in_once(lazy: Service) -> None:
    event, room_id = await club(lazy)
    bob = lazy.user_id("bob")
    assert lazy.reconciler is not None
    assert await lazy.reconciler.admit(TENANT, event.ref, bob)
    assert asked(lazy) == ["POST register", "PUT profile", "POST invite", "POST join"]
    assert bob in await lazy.inside(room_id)
    lazy.proxy.seen.clear()
    assert not await lazy.reconciler.admit(TENANT, event.ref, bob)
    assert asked(lazy) == ["GET state"]


async def test_who_comes_back_again_and_again_is_banned_until_entitled(running: Service) -> None:
    event = await running.put(
        "club", visibility="unlisted", access="anyone", who={"ada": "host", "bob": "participant"}
    )
    await running.settled(event)
    room_id, bob = await running.room_id(event), running.user_id("bob")
    await listen(running)
    await running.change("club", {"bob": Standing("participant", "rejected")})
    await running.settled(event)
    assert await told(running, "member.denied") == [], "that was OpenMeet's own doing"
    running.proxy.seen.clear()

    async def come_back() -> None:
        await running.homeserver.join(room_id, as_user=bob)
        found = await running.database.write(
            uninvited.look_at, {(room_id, bob)}, now=1, defaults=running.settings.rooms
        )
        assert found
        running.wakeups.wake("reconcile")
        await running.settled(event)

    for _ in range(2):
        await come_back()
        assert (await running.memberships(room_id))[bob] == "leave"
    await come_back()
    assert (await running.memberships(room_id))[bob] == "ban"
    assert whole_readings(running) == 0
    denied = await told(running, "member.denied")
    assert [data["member"]["user"] for data in denied] == [running.slug("bob")] * 3
    # Listed without a ban, and still not entitled: the whole room changes nothing about it.
    await running.put("club", visibility="unlisted", access="anyone", name="Other")
    await running.settled(event)
    assert (await running.memberships(room_id))[bob] == "ban"
    await running.change("club", {"bob": "participant"})
    await running.settled(event)
    assert bob in await running.inside(room_id)

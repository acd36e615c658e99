"""What OpenMeet is told of rooms and users on a real Synapse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from openmeet_appservice.store import endpoints, rooms
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import notices

from .conftest import TENANT, Service, World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def listen(service: Service) -> None:
    """Give the tenant an endpoint, so that there is somebody to tell."""
    await service.database.write(
        endpoints.put,
        TENANT,
        "main",
        Wanted("https://x.example"),
        secret_encrypted=None,
        fresh_secret_encrypted="",
        now=1,
        new_id=new_id,
    )


async def told(service: Service, type: str) -> list[dict[str, Any]]:
    """Return the data of what was told of that type."""
    query = select(notices.c.body).where(notices.c.type == type).order_by(notices.c.created_at)
    found = await service.database.read(lambda c: list(c.execute(query).scalars()))
    return [json.loads(body)["data"] for body in found]


async def test_rooms_and_users_that_are_ready_and_an_event_that_is_deleted(running: Service) -> None:
    await listen(running)
    await running.put_user("ada", "Ada")
    event = await running.put("picnic", who={"ada": "host", "bob": "guest"})
    await running.settled(event)
    room_id = await running.room_id(event)
    [ready] = await told(running, "room.ready")
    assert (ready["room"]["room_id"], ready["room"]["alias"]) == (room_id, running.alias("picnic"))
    assert ready["room_version"]
    # Also of one whom only a list of members named.
    users = [data["user"]["user_id"] for data in await told(running, "user.ready")]
    assert sorted(users) == [running.user_id("ada"), running.user_id("bob")]
    await running.put("picnic", topic="Bring cake")
    await running.settled(event)
    assert len(await told(running, "room.ready")) == 1
    await running.archive("picnic")
    await running.settled(event)
    [archived] = await told(running, "room.archived")
    assert archived["room"]["room_id"] == room_id
    assert await told(running, "room.degraded") == []
    # Those who had to leave a closed room were not denied it.
    assert await told(running, "member.denied") == []


async def test_a_stranger_who_was_let_in_is_denied_and_a_removed_member_is_not(
    running: Service, world: World
) -> None:
    await listen(running)
    event = await running.put("closed", who={"ada": "host", "bob": "guest"})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.homeserver.invite(room_id, world.person.user_id)
    await world.person.join(room_id)
    await running.put("closed", who={"ada": "host"})
    await running.settled(event)
    [denied] = await told(running, "member.denied")
    assert denied["member"] == {"user_id": world.person.user_id, "user": None, "external_id": None}
    assert denied["room"]["room_id"] == room_id
    assert world.person.user_id not in await running.inside(room_id)


async def test_what_a_person_must_confirm_is_told_at_once(running: Service) -> None:
    await listen(running)
    many = {f"p{n}": "guest" for n in range(22)}
    event = await running.put("many", who={"ada": "host", **many})
    await running.settled(event)
    await running.put("many", who={"ada": "host"})
    await running.failed(event, "mass_removal_held")
    [degraded] = await told(running, "room.degraded")
    assert degraded["error"]["code"] == "mass_removal_held"
    await running.put("many", who={"ada": "host"}, confirmed=True)
    await running.settled(event)
    assert len(await told(running, "room.ready")) == 2


async def test_a_room_that_nobody_can_enter_any_more_is_told_to_be_replaced(
    running: Service, world: World
) -> None:
    await listen(running)
    event = await running.put("lost", who={})
    await running.settled(event)
    [first] = await running.rooms(event)
    await running.database.write(rooms.set_state, TENANT, first.ref, "former")
    await running.put("lost", topic="new")
    await running.settled(event)
    [replaced] = await told(running, "room.replaced")
    assert replaced["replaced"] == {"room_id": first.room_id, "log_id": first.log_id}
    assert replaced["room"]["room_id"] == await running.room_id(event) != first.room_id
    assert replaced["room"]["alias"] == running.alias("lost")


async def test_an_outage_is_nobody_s_degradation(service: Service) -> None:
    await listen(service)
    await service.proxy.stop()
    await service.start()
    event = await service.put("away", who={"ada": "host"})
    await service.failed(event, "homeserver_unreachable")
    await service.proxy.start()
    await service.settled(event)
    assert await told(service, "room.degraded") == []
    assert len(await told(service, "room.ready")) == 1

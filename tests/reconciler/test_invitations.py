"""Puppets that people on a real Synapse invite into rooms of their own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, func, select, update

from openmeet_appservice.domain.arrival import Arrival, dumps, read_event
from openmeet_appservice.domain.invitations import InvitationPolicy
from openmeet_appservice.reconciler import invitations as answering
from openmeet_appservice.store import invitations
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import invitations as table
from openmeet_appservice.store.tables import sync as sync_table
from openmeet_appservice.store.tables import tenants

from .conftest import BOT, TENANT, Service, World, _now, until
from .proxy import Fault, Gate, internal_error, lost_answer, lost_request, refused
from .test_told import listen, told

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def invited(
    service: Service, world: World, name: str = "ada", *, direct: bool = True, age: int = 0
) -> str:
    """Have the person invite a puppet, and the event come in as Synapse pushes it; return the room's id."""
    room_id = await world.person.invite(service.user_id(name), direct=direct)
    await arrives(service, world, room_id, name, direct=direct, age=age)
    return room_id


async def arrives(
    service: Service, world: World, room_id: str, name: str, *, direct: bool = True, age: int = 0
) -> None:
    """Note the invitation, *age* milliseconds ago."""
    event = read_event(
        {
            "event_id": f"${room_id[1:]}",
            "room_id": room_id,
            "type": "m.room.member",
            "state_key": service.user_id(name),
            "sender": world.person.user_id,
            "content": {"membership": "invite", "is_direct": direct},
        }
    )
    noted = await service.database.write(
        invitations.note, [cast(Arrival, event)], bot=BOT, now=_now() - age, new_id=new_id
    )
    assert noted == 1
    service.wakeups.wake("reconcile")


async def answered(service: Service) -> list[dict[str, Any]]:
    """Return what was told once nothing waits for an answer."""

    async def is_done() -> bool:
        left = select(func.count()).select_from(table)
        rows = select(func.count()).select_from(sync_table).where(sync_table.c.subject == "invite")
        return await service.database.read(
            lambda c: c.execute(left).scalar_one() + c.execute(rows).scalar_one() == 0
        )

    await until(is_done, "every invitation is answered")
    return await told(service, "user.invited")


async def membership(world: World, room_id: str, user_id: str) -> str:
    """Return the puppet's membership as the inviter sees it."""
    state = await world.person.state(room_id)
    return str(state["m.room.member", user_id]["membership"])


async def choose(service: Service, policy: str) -> None:
    """Have the tenant choose a policy."""
    settings = dumps({"users": {"direct_invitations": policy}})
    await service.database.write(_choose, settings)


def _choose(connection: Connection, settings: str) -> None:
    connection.execute(update(tenants).where(tenants.c.tenant == TENANT).values(settings=settings))


async def ada(service: Service) -> None:
    """Make Ada, settled."""
    await listen(service)
    ref = await service.put_user("ada", "Ada")
    if service.reconciler is not None:
        await service.settled(ref, "user")


@pytest.mark.parametrize("direct", [True, False])
async def test_declined_unless_somebody_chose_otherwise(running: Service, world: World, direct: bool) -> None:
    await ada(running)
    room_id = await invited(running, world, direct=direct)
    [data] = await answered(running)
    assert data == {
        "tenant": TENANT,
        "user": {"user": running.slug("ada"), "external_id": None, "user_id": running.user_id("ada")},
        "room_id": room_id,
        "inviter": {"user_id": world.person.user_id, "user": None, "external_id": None},
        "direct": direct,
        "accepted": False,
    }
    assert await membership(world, room_id, running.user_id("ada")) == "leave"


@pytest.mark.parametrize("chosen_by", ["configuration", "tenant"])
async def test_accepted_where_that_was_chosen(service: Service, world: World, chosen_by: str) -> None:
    if chosen_by == "configuration":
        service.settings = replace(service.settings, direct_invitations=InvitationPolicy.ACCEPT)
    else:
        await choose(service, "accept")
    await service.start()
    await ada(service)
    direct = await invited(service, world)
    group = await invited(service, world, direct=False)
    said = {data["room_id"]: data["accepted"] for data in await answered(service)}
    assert said == {direct: True, group: False}
    assert await membership(world, direct, service.user_id("ada")) == "join"
    assert await membership(world, group, service.user_id("ada")) == "leave"


async def test_a_tenant_may_decline_where_others_accept(service: Service, world: World) -> None:
    service.settings = replace(service.settings, direct_invitations=InvitationPolicy.ACCEPT)
    await choose(service, "decline")
    await service.start()
    await ada(service)
    await invited(service, world)
    assert [data["accepted"] for data in await answered(service)] == [False]


async def test_a_puppet_that_synapse_does_not_know_yet_answers_too(service: Service, world: World) -> None:
    """A user whom only a list of members named; Synapse lets anybody invite who does not exist."""
    await choose(service, "accept")
    event = await service.put("games", status="draft", who={"bob": "guest"})
    await service.start()
    await listen(service)
    await service.settled(event)
    room_id = await invited(service, world, "bob")
    assert [data["accepted"] for data in await answered(service)] == [True]
    assert await membership(world, room_id, service.user_id("bob")) == "join"


@pytest.mark.parametrize("policy", ["accept", "decline"])
async def test_an_invitation_that_was_taken_back(service: Service, world: World, policy: str) -> None:
    await choose(service, policy)
    await ada(service)
    room_id = await world.person.invite(service.user_id("ada"))
    await world.person.leave(room_id)
    await arrives(service, world, room_id, "ada")
    await service.start()
    assert [data["accepted"] for data in await answered(service)] == [False]


@pytest.mark.parametrize("policy", ["accept", "decline"])
@pytest.mark.parametrize("done", [True, False])
async def test_killed_while_answering(service: Service, world: World, policy: str, done: bool) -> None:
    await choose(service, policy)
    await ada(service)
    gate = Gate()

    async def fault(request: Any, forward: Any) -> Any:
        if done:
            await forward()
        return await gate(request, forward)

    part = "/join" if policy == "accept" else "/leave"
    service.proxy.fail("POST", part, fault)
    room_id = await invited(service, world)
    await service.start()
    await asyncio.wait_for(gate.reached.wait(), 40)
    await service.stop()
    assert await told(service, "user.invited") == []
    service.proxy.heal()
    await service.start()
    assert [data["accepted"] for data in await answered(service)] == [policy == "accept"]
    expected = "join" if policy == "accept" else "leave"
    assert await membership(world, room_id, service.user_id("ada")) == expected


@pytest.mark.parametrize("fault", [lost_request, lost_answer, internal_error])
@pytest.mark.parametrize("policy", ["accept", "decline"])
async def test_a_request_that_fails_is_made_again(
    service: Service, world: World, policy: str, fault: Fault
) -> None:
    await choose(service, policy)
    part = "/join" if policy == "accept" else "/leave"
    service.proxy.fail("POST", part, fault, times=3)
    await service.start()
    await ada(service)
    await invited(service, world)
    assert [data["accepted"] for data in await answered(service)] == [policy == "accept"]


async def test_a_room_whose_server_never_answers_is_given_up_after_a_day(
    service: Service, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await choose(service, "accept")
    for part in ("/join", "/leave"):
        service.proxy.fail("POST", part, refused(502, "M_UNKNOWN"), times=None)
    await service.start()
    await ada(service)
    await invited(service, world, age=answering.GIVEN_UP_AFTER - 3_600_000)

    async def has_failed() -> bool:
        query = select(sync_table.c.error).where(sync_table.c.subject == "invite")
        return await service.database.read(lambda c: c.execute(query).scalar() is not None)

    await until(has_failed, "it fails")
    assert await told(service, "user.invited") == []
    monkeypatch.setattr(answering, "GIVEN_UP_AFTER", 1)
    assert [data["accepted"] for data in await answered(service)] == [False]


async def test_what_turns_out_to_be_a_room_of_ours_is_not_answered(service: Service, world: World) -> None:
    await ada(service)
    event = await service.put("games", who={"ada": "host"})
    await service.start()
    await service.settled(event)
    room_id = await service.room_id(event)
    await arrives(service, world, room_id, "ada")
    assert await answered(service) == []
    assert service.user_id("ada") in await service.inside(room_id)


async def test_an_outage_delays_the_answer(service: Service, world: World) -> None:
    await ada(service)
    await service.proxy.stop()
    await service.start()
    await invited(service, world)
    await service.proxy.start()
    assert len(await answered(service)) == 1


async def test_users_are_not_degraded_by_what_strangers_do(service: Service, world: World) -> None:
    service.proxy.fail("POST", "/leave", refused(502, "M_UNKNOWN"), times=None)
    await service.start()
    await ada(service)
    await invited(service, world)
    ref = await service.put_user("ada", "Countess")
    await service.settled(ref, "user")
    assert (await service.status(ref, "user")).error is None

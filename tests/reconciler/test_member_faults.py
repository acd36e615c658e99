"""What OpenMeet's own chat code gets wrong about members, fault by fault, where Synapse has to show it."""

from __future__ import annotations

import asyncio

import pytest

from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import member_errors
from openmeet_appservice.store.members import Standing

from .conftest import TENANT, Service, until
from .proxy import Gate, internal_error, limited, refused
from .test_parts import asked, club, lazy, whole_readings

pytestmark = pytest.mark.asyncio(loop_scope="session")
__all__ = ["lazy"]


async def test_fault_25_a_removal_works_and_a_refused_one_is_no_success(running: Service) -> None:
    event, room_id = await club(running)
    bob = running.user_id("bob")
    running.proxy.fail("POST", "/kick", refused(403, "M_FORBIDDEN"), times=None)
    await running.change("club", {}, ("bob",))
    status = await running.failed(event, "member_refused")
    assert status.error is not None
    assert bob in status.error.detail
    assert bob in await running.inside(room_id)
    told = await running.database.read(member_errors.of, TENANT, event.ref, bob)
    assert told is not None
    assert "M_FORBIDDEN" in told[0]
    running.proxy.heal()
    await running.change("club", {"cyd": "participant"})
    await running.settled(event)
    assert bob not in await running.inside(room_id)
    assert await running.database.read(member_errors.of, TENANT, event.ref, bob) is None


async def test_fault_45_an_error_is_never_read_as_no(lazy: Service) -> None:
    event, room_id = await club(lazy)
    bob = lazy.user_id("bob")
    assert lazy.reconciler is not None
    await lazy.reconciler.admit(TENANT, event.ref, bob)
    lazy.proxy.fail("GET", "/m.room.member/", internal_error, times=3)
    # Whether he is inside has to be asked for before he is removed.
    await lazy.change("club", {}, ("bob",))
    await lazy.failed(event, "homeserver_unreachable")
    await lazy.settled(event)
    assert bob not in await lazy.inside(room_id)
    lazy.proxy.fail("GET", "/m.room.member/", internal_error, times=2)
    await lazy.change("club", {"bob": "participant"})
    await lazy.settled(event)
    with pytest.raises(HomeserverRefused):
        await lazy.homeserver.kick(room_id, bob)


async def test_fault_46_and_47_too_many_requests_lose_nobody(running: Service) -> None:
    event, room_id = await club(running)
    running.proxy.fail("POST", "/invite", limited, times=5)
    await running.change("club", {"cyd": "participant", "dan": "participant"})
    await running.failed(event, "homeserver_limited")
    await running.settled(event)
    everybody = {running.user_id(who) for who in ("ada", "bob", "cyd", "dan")}
    assert await running.inside(room_id) == everybody


async def test_fault_49_who_never_used_matrix_is_in_the_room_all_the_same(running: Service) -> None:
    event, room_id = await club(running)
    await running.change("club", {"fresh": "participant"})
    await running.settled(event)
    assert asked(running) == ["POST register", "PUT profile", "POST invite", "POST join"]
    assert running.user_id("fresh") in await running.inside(room_id)


async def test_fault_54_members_come_side_by_side_and_nobody_asks_for_all_rooms(running: Service) -> None:
    event, room_id = await club(running)
    gate = Gate()
    running.proxy.fail("POST", "/invite", gate)
    crowd: dict[str, str | Standing] = {f"m{n}": "participant" for n in range(6)}
    await running.change("club", crowd)
    await asyncio.wait_for(gate.reached.wait(), 30)

    async def others_came() -> bool:
        return len(await running.inside(room_id)) == 2 + 5

    await until(others_came, "the others come while one is held up")
    gate.opened.set()
    await running.settled(event)
    assert len(await running.inside(room_id)) == 2 + 6
    assert running.proxy.count("GET", "/joined_rooms") == 0
    assert whole_readings(running) == 0

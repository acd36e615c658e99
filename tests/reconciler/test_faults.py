"""What goes wrong between the service and Synapse, and that it comes right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Concatenate, ParamSpec, TypeVar

import pytest
from aiohttp import web
from sqlalchemy import Connection, select, update

from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.errors import DatabaseUnavailable, HomeserverRefused
from openmeet_appservice.store import event_log, rooms, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.tables import entities
from openmeet_appservice.store.tables import rooms as rooms_table
from openmeet_appservice.store.tables import sync as table

from .conftest import BOT, TENANT, Service, World, names, until
from .proxy import (
    Fault,
    Forward,
    Gate,
    internal_error,
    limited,
    lost_answer,
    lost_request,
    refused,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
P = ParamSpec("P")
T = TypeVar("T")


async def _is_whole(service: Service, event: Entity, *who: str) -> str:
    """Check that there is one room in use, complete, and return its id."""
    await service.settled(event)
    room_id = await service.room_id(event)
    assert await service.inside(room_id) == {service.user_id(name) for name in who}
    assert [room.state for room in await service.rooms(event) if room.state in rooms.IN_USE] == ["open"]
    return room_id


@pytest.mark.parametrize("visibility", ["public", "private"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_an_answer_to_create_room_that_is_lost(
    service: Service, visibility: str, restarted: bool
) -> None:
    service.proxy.fail("POST", "/createRoom", lost_answer)
    before = await service.homeserver.joined_rooms()
    event = await service.put("lost", visibility=visibility, who={"ada": "host"})
    await service.start()
    await service.failed(event, "homeserver_unreachable")
    if restarted:
        await service.stop()
        await service.start()
    room_id = await _is_whole(service, event, "ada")
    assert await service.homeserver.joined_rooms() - before == {room_id}
    assert len(await service.rooms(event)) == 1


@pytest.mark.parametrize("fault", [lost_request, internal_error, limited])
async def test_a_request_for_a_room_that_comes_to_nothing(running: Service, fault: Fault) -> None:
    before = await running.homeserver.joined_rooms()
    running.proxy.fail("POST", "/createRoom", fault)
    event = await running.put("again", who={"ada": "host"})
    room_id = await _is_whole(running, event, "ada")
    assert await running.homeserver.joined_rooms() - before == {room_id}


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("GET", "/state"),
        ("GET", "/aliases"),
        ("GET", "/directory/list/room"),
        ("POST", "/register"),
        ("PUT", "/displayname"),
        ("POST", "/invite"),
        ("POST", "/join"),
        ("DELETE", "/directory/room"),
    ],
)
async def test_every_other_request_may_fail_or_lose_its_answer(
    running: Service, method: str, part: str
) -> None:
    event = await running.put("frail", visibility="private", who={})
    await running.settled(event)
    # More often than the client repeats a request by itself.
    running.proxy.fail(method, part, lost_answer, times=2)
    running.proxy.fail(method, part, internal_error, times=2)
    other = await running.put("other", visibility="private", who={"ada": "host"})
    await running.put("frail", visibility="private", who={"bob": "host"})
    await _is_whole(running, event, "bob")
    room_id = await _is_whole(running, other, "ada")
    assert await running.homeserver.room_aliases(room_id) == set()


async def test_provisioned_while_synapse_is_away(service: Service) -> None:
    await service.proxy.stop()
    await service.start()
    first = await service.put("first", who={"ada": "host"})
    await service.failed(first, "homeserver_unreachable")
    later = [await service.put(f"later{number}", who={"ada": "host"}) for number in range(5)]
    user = await service.put_user("ada", "Ada")
    for event in later:
        status = await service.failed(event, "homeserver_unreachable")
        assert status.due_at is not None
    assert service.reconciler is not None
    assert service.reconciler.trouble is not None
    await service.proxy.start()
    for event in (first, *later):
        await _is_whole(service, event, "ada")
    await service.settled(user, "user")
    assert service.reconciler.trouble is None


async def test_an_outage_costs_no_requests_but_the_probe(running: Service) -> None:
    event = await running.put("calm", who={})
    await running.settled(event)
    running.proxy.fail("GET", "/", internal_error, times=None)
    running.proxy.fail("POST", "/", internal_error, times=None)
    await running.put("calm", name="Calmer")
    await running.failed(event, "homeserver_unreachable")

    async def is_known() -> bool:
        return running.reconciler is not None and running.reconciler.trouble is not None

    await until(is_known, "the outage is noticed")
    running.proxy.seen.clear()
    others = [await running.put(f"calm{number}") for number in range(5)]
    for other in others:
        await running.failed(other, "homeserver_unreachable")
    assert {seen.path.rpartition("/")[2] for seen in running.proxy.seen} <= {"whoami"}
    running.proxy.heal()
    for other in others:
        await running.settled(other)


async def test_a_token_that_synapse_does_not_know(running: Service) -> None:
    unknown = refused(401, "M_UNKNOWN_TOKEN")
    for method in ("GET", "POST", "PUT"):
        running.proxy.fail(method, "/", unknown, times=None)
    event = await running.put("token", who={"ada": "host"})
    await running.failed(event, "as_token_refused")
    running.proxy.heal()
    await _is_whole(running, event, "ada")


async def test_an_alias_that_somebody_else_has_stops_nobody_else(running: Service, world: World) -> None:
    taken = await running.homeserver.create_room(
        {"room_alias_name": running.alias("taken")[1:].partition(":")[0]}
    )
    bad = await running.put("taken", who={"ada": "host"})
    good = await running.put("good", who={"ada": "host"})
    await _is_whole(running, good, "ada")
    status = await running.failed(bad, "alias_taken")
    assert status.error is not None
    assert taken in status.error.detail
    assert await world.person.resolve_alias(running.alias("taken")) == taken
    await running.homeserver.delete_alias(running.alias("taken"))
    assert await _is_whole(running, bad, "ada") != taken


async def test_an_alias_that_is_taken_when_a_room_gets_public(running: Service, world: World) -> None:
    event = await running.put("late", visibility="private", who={"ada": "host"})
    await running.settled(event)
    taken = await running.homeserver.create_room(
        {"room_alias_name": running.alias("late")[1:].partition(":")[0]}
    )
    await running.put("late", visibility="public", name="Too late")
    status = await running.failed(event, "alias_taken")
    assert status.error is not None
    assert taken in status.error.detail
    room_id = await running.room_id(event)
    assert names(await running.state(room_id))[0] == "Too late"
    await running.homeserver.delete_alias(running.alias("late"))
    await running.settled(event)
    assert await world.person.resolve_alias(running.alias("late")) == room_id


async def test_a_room_behind_the_alias_that_nobody_can_enter(running: Service) -> None:
    """As Synapse leaves it when it dies between making the alias and letting the bot in."""
    ghost = running.user_id("ghost")
    await running.homeserver.register(ghost[1:].partition(":")[0])
    dead = await running.homeserver.create_room(
        {"room_alias_name": running.alias("dead")[1:].partition(":")[0]}, as_user=ghost
    )
    await running.homeserver.leave(dead, as_user=ghost)
    event = await running.put("dead", who={"ada": "host"})
    await running.failed(event, "room_not_ready")
    # Synapse may still be making it, as far as can be known, until some minutes have passed.
    long_ago = update(rooms_table).where(rooms_table.c.entity_ref == event.ref).values(created_at=0)
    await running.database.write(lambda connection: connection.execute(long_ago))
    assert await _is_whole(running, event, "ada") != dead


async def test_a_second_room_for_the_same_claim_is_closed(running: Service, world: World) -> None:
    made: list[str] = []

    async def another_first(request: web.Request, forward: Forward) -> web.StreamResponse:
        """Make a room as an earlier request would have, and record it as its pushed event would."""
        body = await request.json()
        claim = body["creation_content"]["net.openmeet.claim"]
        content = CreateRoom(None, {"room_version": "12", "preset": "private_chat"}).request(claim)
        room_id = await running.homeserver.create_room(content)
        (room,) = await running.rooms(event)
        assert await running.database.write(
            event_log.record_room_id, TENANT, room.ref, room_id, "12", now=1, bot=BOT
        )
        made.append(room_id)
        return await forward()

    running.proxy.fail("POST", "/createRoom", another_first)
    event = await running.put("twin", who={"ada": "host"})
    assert await _is_whole(running, event, "ada") == made[0]
    assert await world.person.resolve_alias(running.alias("twin")) == made[0]
    recorded = await running.rooms(event)
    assert sorted(room.state for room in recorded) == ["former", "open"]
    (orphan,) = [room.room_id for room in recorded if room.state == "former"]
    assert orphan is not None
    assert orphan not in await running.homeserver.joined_rooms()
    assert await running.homeserver.room_visibility(orphan) == "private"


async def test_an_alias_taken_off_the_successor_by_mistake_comes_back(running: Service, world: World) -> None:
    first = await running.put("heir", who={})
    await running.settled(first)
    gate = Gate()
    running.proxy.fail("DELETE", running.alias("heir"), gate)
    await running.archive("heir")
    # It has seen the alias on its own room; until it deletes it, the successor has taken it over.
    await asyncio.wait_for(gate.reached.wait(), 20)
    second = await running.put("heir", who={"ada": "host"})
    await running.settled(second)
    assert await world.person.resolve_alias(running.alias("heir")) == await running.room_id(second)
    gate.opened.set()
    await running.settled(first)
    await running.settled(second)
    assert await world.person.resolve_alias(running.alias("heir")) == await running.room_id(second)
    assert [room.alias for room in await running.rooms(second)] == [running.alias("heir")]


async def test_the_pushed_event_tells_what_a_lost_answer_does_not(running: Service, world: World) -> None:
    async def pushed_but_not_answered(request: web.Request, forward: Forward) -> web.StreamResponse:
        await forward()
        made = await world.person.resolve_alias(running.alias("push"))
        (room,) = await running.rooms(event)
        assert await running.database.write(
            event_log.record_room_id, TENANT, room.ref, made, "12", now=1, bot=BOT
        )
        return await lost_request(request, forward)

    running.proxy.fail("POST", "/createRoom", pushed_but_not_answered)
    event = await running.put("push", who={"ada": "host"})
    await _is_whole(running, event, "ada")
    assert running.proxy.count("POST", "/createRoom") == 1
    assert [room.alias for room in await running.rooms(event)] == [running.alias("push")]


async def test_whoever_asks_for_the_alias_need_not_wait_for_the_rest(running: Service) -> None:
    gate = Gate()
    running.proxy.fail("GET", "/state", gate)
    event = await running.put("early", who={"ada": "host"})
    await asyncio.wait_for(gate.reached.wait(), 20)
    assert [room.alias for room in await running.rooms(event)] == [running.alias("early")]
    gate.opened.set()
    await _is_whole(running, event, "ada")


async def test_one_member_who_is_refused_stops_no_other(running: Service) -> None:
    async def not_bob(request: web.Request, forward: Forward) -> web.StreamResponse:
        if request.query.get("user_id") == running.user_id("bob"):
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "Not you"}, status=403)
        return await forward()

    running.proxy.fail("POST", "/join", not_bob, times=None)
    event = await running.put("picky", who={"ada": "host", "bob": "participant", "cyd": "participant"})
    status = await running.failed(event, "member_refused")
    assert status.error is not None
    assert running.user_id("bob") in status.error.detail
    room_id = await running.room_id(event)
    assert await running.inside(room_id) == {running.user_id("ada"), running.user_id("cyd")}
    assert await running.homeserver.room_visibility(room_id) == "public", "what comes after people is done"
    running.proxy.heal()
    await _is_whole(running, event, "ada", "bob", "cyd")


async def test_somebody_who_left_by_himself_is_no_error(
    running: Service, caplog: pytest.LogCaptureFixture
) -> None:
    event = await running.put("leaver", who={"ada": "host", "bob": "participant"})
    await running.settled(event)
    room_id = await running.room_id(event)

    async def gone_already(request: web.Request, forward: Forward) -> web.StreamResponse:
        await running.homeserver.leave(room_id, as_user=running.user_id("bob"))
        return await forward()

    running.proxy.fail("POST", "/kick", gone_already)
    await running.put("leaver", who={"ada": "host"})
    await _is_whole(running, event, "ada")
    assert "failed" not in caplog.text


async def test_state_that_is_refused_stops_what_builds_on_it(running: Service) -> None:
    event = await running.put("order", who={})
    await running.settled(event)
    running.proxy.fail("PUT", "/state/m.room.power_levels", refused(403, "M_FORBIDDEN"), times=None)
    await running.put("order", who={"ada": "host"})
    status = await running.failed(event, "homeserver_refused")
    assert status.error is not None
    assert "m.room.power_levels" in status.error.detail
    assert await running.inside(await running.room_id(event)) == set()
    running.proxy.heal()
    await _is_whole(running, event, "ada")


async def test_a_directory_that_the_bot_may_not_publish_in(running: Service) -> None:
    event = await running.put("list", visibility="unlisted", who={"ada": "host"})
    await running.settled(event)
    running.proxy.fail("PUT", "/directory/list/room", refused(403, "M_UNKNOWN"), times=None)
    await running.put("list", visibility="public", name="Listed")
    status = await running.failed(event, "directory_refused")
    assert status.error is not None
    assert "room_list_publication_rules" in status.error.detail
    assert names(await running.state(await running.room_id(event)))[0] == "Listed"


async def test_killed_in_the_middle_of_joins(service: Service) -> None:
    everybody: dict[str, str | Standing] = {f"m{number}": "participant" for number in range(8)}
    gate = Gate()
    service.settings = replace(service.settings, member_concurrency=1)
    await service.start()
    room = await service.put("joins", who={})
    await service.settled(room)

    async def stuck_at_the_fifth(request: web.Request, forward: Forward) -> web.StreamResponse:
        if request.query.get("user_id") == service.user_id("m4"):
            return await gate(request, forward)
        return await forward()

    service.proxy.fail("POST", "/join", stuck_at_the_fifth, times=None)
    await service.put("joins", who=everybody)
    await asyncio.wait_for(gate.reached.wait(), 20)
    await service.stop()
    service.proxy.heal()
    gate.opened.set()
    await service.start()
    await _is_whole(service, room, *everybody)


async def test_stopping_gives_back_what_was_under_way(running: Service) -> None:
    gate = Gate()
    running.proxy.fail("POST", "/createRoom", gate)
    event = await running.put("stop", who={})
    await asyncio.wait_for(gate.reached.wait(), 20)
    await running.stop()
    status = await running.status(event.ref)
    assert (status.error, status.observed_generation) == (None, 0)
    gate.opened.set()
    now = time.time_ns() // 1_000_000
    found = await running.database.write(sync.claim_due, now=now, lease=1, limit=1)
    assert [lease.ref for lease in found] == [event.ref], "nobody has to wait for the lease to end"


async def test_stopping_lets_work_end_in_its_time(running: Service) -> None:
    gate = Gate()
    running.proxy.fail("POST", "/createRoom", gate)
    event = await running.put("drain", who={})
    await asyncio.wait_for(gate.reached.wait(), 20)
    stopping = asyncio.create_task(running.stop(timeout=20))
    gate.opened.set()
    await stopping
    status = await running.status(event.ref)
    assert status.observed_generation == status.generation


async def test_what_is_newly_wanted_is_not_kept_waiting_by_long_work(service: Service) -> None:
    service.settings = replace(service.settings, member_concurrency=1, lease_ms=300)
    await service.start()
    room = await service.put("switch", who={})
    await service.settled(room)
    room_id = await service.room_id(room)
    gate = Gate()
    service.proxy.fail("POST", f"{room_id}/join", gate)
    await service.put("switch", who={"a": "participant", "b": "participant", "c": "participant"})
    await asyncio.wait_for(gate.reached.wait(), 20)
    await service.put("switch", who={"a": "participant"})
    before = await service.database.read(_lease_of, room.ref)

    async def is_renewed() -> bool:
        return await service.database.read(_lease_of, room.ref) > before

    await until(is_renewed, "the lease is renewed, and with it what is known of the row")
    gate.opened.set()
    await _is_whole(service, room, "a")
    joined = {seen.user_id for seen in service.proxy.seen if seen.path.endswith(f"{room_id}/join")}
    assert joined == {service.user_id("a")}, "the others were never let in"


async def test_a_lost_lease_ends_the_work(service: Service) -> None:
    service.settings = replace(service.settings, lease_ms=300)
    await service.start()
    gate = Gate()
    service.proxy.fail("POST", "/createRoom", gate)
    event = await service.put("stolen", who={"ada": "host"})
    await asyncio.wait_for(gate.reached.wait(), 20)
    stolen = await service.database.write(_steal, event.ref)
    gate.opened.set()

    async def is_given_up() -> bool:
        return service.reconciler is not None and not service.reconciler.busy

    await until(is_given_up, "the work ends")
    assert (await service.status(event.ref)).observed_generation == 0
    await service.database.write(sync.release, stolen, now=1)
    service.wakeups.wake("reconcile")
    await _is_whole(service, event, "ada")


async def test_an_error_of_ours_in_one_entity_stops_no_other(running: Service) -> None:
    bad = await running.put("broken", status="draft")
    await running.settled(bad)
    await running.database.write(_break, bad.ref)
    running.wakeups.wake("reconcile")
    await running.failed(bad, "internal_error")
    good = await running.put("sound", who={"ada": "host"})
    await _is_whole(running, good, "ada")


class Flaky(Database):
    """A database that can be away."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.dialect = inner.dialect
        self.is_away = False
        self.refusals = 0

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._check()
        return await self.inner.write(do, *args, **kwargs)

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check()
        return await self.inner.read(do, *args, **kwargs)

    async def close(self) -> None:
        await self.inner.close()

    def _check(self) -> None:
        if self.is_away:
            self.refusals += 1
            raise DatabaseUnavailable("away")


async def test_a_database_that_is_away_for_a_while(service: Service) -> None:
    database = Flaky(service.database)
    database.is_away = True
    service.settings = replace(service.settings, lease_ms=2_000)
    service.database = database
    await service.start()

    async def was_asked(times: int = 2) -> bool:
        return database.refusals >= times

    await until(was_asked, "the worker notices")
    database.is_away = False
    event = await service.put("back", who={"ada": "host"})
    await _is_whole(service, event, "ada")
    gate = Gate()
    service.proxy.fail("GET", "/state", gate)
    await service.put("back", name="Back again", who={"ada": "host"})
    await asyncio.wait_for(gate.reached.wait(), 20)
    database.is_away, database.refusals = True, 0
    gate.opened.set()
    await until(was_asked, "the work cannot be recorded")
    database.is_away = False
    room_id = await _is_whole(service, event, "ada")
    assert names(await service.state(room_id))[0] == "Back again"


async def test_a_room_that_the_bot_was_put_out_of_is_entered_again(running: Service) -> None:
    event = await running.put("away", access="anyone", who={"ada": "host"})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.homeserver.leave(room_id)
    await running.put("away", access="anyone", name="Here again")
    await _is_whole(running, event, "ada")
    assert names(await running.state(room_id))[0] == "Here again"


async def test_a_room_that_the_bot_is_locked_out_of_says_so(running: Service) -> None:
    event = await running.put("locked", who={"ada": "host"})
    await running.settled(event)
    await running.homeserver.leave(await running.room_id(event))
    await running.put("locked", name="Locked")
    await running.failed(event, "bot_locked_out")
    assert len(await running.rooms(event)) == 1
    with pytest.raises(HomeserverRefused):
        await running.homeserver.join(await running.room_id(event))


def _lease_of(connection: Connection, ref: str) -> int:
    return int(connection.execute(select(table.c.lease_until).where(table.c.ref == ref)).scalar_one() or 0)


def _steal(connection: Connection, ref: str) -> sync.Lease:
    connection.execute(update(table).where(table.c.ref == ref).values(lease_until=None, due_at=1))
    (lease,) = sync.claim_due(connection, now=10, lease=10**15, limit=1)
    return lease


def _break(connection: Connection, ref: str) -> None:
    connection.execute(update(entities).where(entities.c.id == ref).values(spec='{"status": "unheard of"}'))
    sync.touch(connection, TENANT, "entity", ref, now=1)

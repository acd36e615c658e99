"""Several processes on one PostgreSQL database share the work, and one that dies is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from sqlalchemy import func, select, update

from benchmarks.delivery_proof.databases import Server
from benchmarks.delivery_proof.proof import World, open_world
from benchmarks.delivery_proof.scenario import Scale, Transaction, make_rooms, transactions
from benchmarks.delivery_proof.synapse import Pusher
from benchmarks.delivery_proof.verdict import Fault, Room, digest_of_event
from openmeet_appservice.app import LEASE_MARGIN
from openmeet_appservice.store import breaker
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import endpoints, lanes, room_events
from openmeet_appservice.wiring import now, open_database

ATTEMPTS = "openmeet_as_delivery_attempts_total"
TIMEOUT = 60
"""Seconds that a webhook may take: so long that nothing is repeated on a slow machine."""

SHARE = 32
"""The most batches of one endpoint that one process has under way."""

_events = count(1)


@asynccontextmanager
async def world_of(
    url: str, rooms: dict[str, Room], *, replicas: int = 2, timeout: int = TIMEOUT
) -> AsyncIterator[World]:
    """So many replicas, started by the test, with one endpoint for each tenant.

    Parameters
    ----------
    timeout
        How many seconds a webhook may take.
    """
    settings = {"WEBHOOKS__TIMEOUT": f"{timeout}s"}
    async with open_world(
        Server(url),
        replicas=replicas,
        rooms=rooms,
        platform=False,
        settings=settings,
    ) as world:
        yield world


async def start(world: World, *numbers: int) -> None:
    """Start replicas, all of them where none is named."""
    replicas = [world.replicas[number] for number in numbers or range(len(world.replicas))]
    for replica in replicas:
        replica.launch()
    for replica in replicas:
        await replica.ready(world.session)


async def until(reached: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something is so; fail when it takes far too long."""
    async with asyncio.timeout(90):
        while True:
            is_so = reached()
            if not isinstance(is_so, bool):
                is_so = await is_so
            if is_so:
                return
            await asyncio.sleep(0.02)


def say(rooms: Mapping[str, Room], *room_ids: str) -> Transaction:
    """Return a transaction with one new event in each of these rooms, all where none is named."""
    said = []
    for room_id in room_ids or rooms:
        event_id = f"$e{next(_events)}"
        event = {
            "event_id": event_id,
            "room_id": room_id,
            "type": "m.room.message",
            "sender": "@bob:proof.example",
            "content": {"body": "hello"},
        }
        rooms[room_id].events.append((event_id, digest_of_event(event)))
        said.append(event)
    return Transaction(f"t{next(_events)}", tuple(said))


def pusher_to(world: World, *numbers: int) -> Pusher:
    """Return what pushes to these replicas only."""
    pusher = world.pusher(1)
    pusher.urls = [world.replicas[number].url for number in numbers]
    return pusher


@asynccontextmanager
async def database_of(world: World) -> AsyncIterator[Database]:
    """The database, beside the replicas."""
    database = open_database(world.replicas[0].config)
    try:
        yield database
    finally:
        await database.close()


async def attempts(world: World) -> list[float]:
    """Return how many webhooks each replica has sent."""
    return [await replica.metric(world.session, ATTEMPTS) for replica in world.replicas]


async def test_both_share_the_work_and_none_does_it_twice(postgresql_url: str) -> None:
    rooms = make_rooms(Scale(tenants=1, rooms=2 * SHARE, events=0))
    async with world_of(postgresql_url, rooms) as world:
        await start(world)
        world.receiver.gate.clear()
        await world.pusher(1).push(say(rooms))
        # One of them alone may not have so many on their way.
        await until(lambda: world.receiver.waiting == 2 * SHARE)
        world.receiver.gate.set()
        await world.pusher(1).push_all(transactions(1, Scale(1, 2 * SHARE, 1000), rooms))
        assert await world.all_arrived()
        sent = await attempts(world)
        assert min(sent) >= SHARE
        verdict = world.judge.verdict()
        assert verdict.holds, verdict
        assert (verdict.repeats, verdict.splits) == (0, 0)
        assert sum(sent) == verdict.requests


async def test_one_that_is_killed_loses_nothing_and_its_rooms_go_on(postgresql_url: str) -> None:
    rooms = make_rooms(Scale(tenants=1, rooms=2 * SHARE, events=0))
    async with world_of(postgresql_url, rooms, timeout=5) as world:
        await start(world)
        world.receiver.gate.clear()
        await world.pusher(1).push(say(rooms))
        await until(lambda: world.receiver.waiting >= 2 * SHARE)
        dead, alive = world.replicas
        dead.kill()
        killed = now()
        async with database_of(world) as database:
            until_when = await database.read(
                lambda c: c.execute(select(func.max(lanes.c.lease_until))).scalar_one()
            )
        # What it held comes back by then, and it never comes back itself.
        assert until_when - killed <= 5000 + LEASE_MARGIN
        world.receiver.gate.set()
        await pusher_to(world, 1).push(say(rooms))
        assert await world.all_arrived()
        verdict = world.judge.verdict()
        assert verdict.holds, verdict
        assert verdict.needless >= 1
        assert not alive.ended_by_itself


async def test_a_breaker_that_one_opened_holds_for_all(postgresql_url: str) -> None:
    rooms = make_rooms(Scale(tenants=2, rooms=20, events=0))
    down, well = "Tenant0", "Tenant1"
    theirs = [room_id for room_id, room in rooms.items() if room.tenant == down]
    others = [room_id for room_id, room in rooms.items() if room.tenant == well]
    async with world_of(postgresql_url, rooms, replicas=3) as world, database_of(world) as database:

        async def row() -> Any:
            query = select(endpoints).where(endpoints.c.name == down)
            return await database.read(lambda connection: connection.execute(query).one())

        async def open_until(moment: int) -> None:
            change = update(endpoints).where(endpoints.c.name == down).values(breaker_until=moment)
            await database.write(lambda connection: connection.execute(change))

        async def nothing_under_way() -> bool:
            query = select(func.count()).where(lanes.c.lease_until.is_not(None))
            return await database.read(lambda connection: connection.execute(query).scalar()) == 0

        def came() -> int:
            return world.judge.requests_to(down)

        async def opened(times: int) -> bool:
            found = await row()
            return bool(found.breaker == breaker.OPEN and found.breaker_opens == times)

        world.receiver.down.add(down)
        await start(world, 0)
        await pusher_to(world, 0).push(say(rooms, *theirs))
        await until(lambda: opened(1))
        await until(nothing_under_way)
        await open_until(now() + 3_600_000)
        world.replicas[0].kill()
        before = came()
        await start(world, 1, 2)
        # These two never failed themselves. They send what is for the other, and nothing to this one.
        for number in (1, 2):
            await pusher_to(world, number).push(say(rooms, *theirs, *others))
        await until(lambda: world.judge.taken_by(well) == 2 * len(others))
        assert came() == before
        # When its time is up, one of the two makes one try.
        await open_until(now())
        await until(lambda: opened(2))
        await until(nothing_under_way)
        assert came() == before + 1
        world.receiver.down.clear()
        await open_until(now())
        assert await world.all_arrived()
        assert (await row()).breaker == breaker.CLOSED
        assert world.judge.verdict().holds


async def test_the_same_events_pushed_to_both_at_once_are_stored_once_and_in_order(
    postgresql_url: str,
) -> None:
    scale = Scale(tenants=2, rooms=6, events=800)
    rooms = make_rooms(scale)
    said = list(transactions(1, scale, rooms))
    async with world_of(postgresql_url, rooms) as world:
        await start(world)
        await asyncio.gather(*(pusher_to(world, number).push_all(said) for number in (0, 1)))
        assert await world.all_arrived()
        verdict = world.judge.verdict()
        assert verdict.holds, verdict
        assert verdict.repeats == 0
        await check_counters(world)


async def test_counters_have_no_gap_when_both_write_at_once(postgresql_url: str) -> None:
    scale = Scale(tenants=2, rooms=6, events=1500)
    rooms = make_rooms(scale)
    said = list(transactions(1, scale, rooms))
    async with world_of(postgresql_url, rooms) as world:
        await start(world)
        await asyncio.gather(*(pusher_to(world, number).push_all(said[number::2]) for number in (0, 1)))
        assert await world.all_arrived()
        await check_counters(world)
        # Which of two transactions came first nobody knows. All else is as always.
        faults = set(world.judge.verdict().faults)
        assert faults <= {Fault.ORDER}


async def check_counters(world: World) -> None:
    """Check that every event is stored once, numbered without gaps in its room and in its tenant."""
    stored: list[Any] = []
    async with database_of(world) as database:
        query = select(
            room_events.c.tenant,
            room_events.c.position,
            room_events.c.room_ref,
            room_events.c.sequence,
            room_events.c.event_id,
        ).order_by(room_events.c.position)
        stored = await database.read(lambda connection: list(connection.execute(query)))
    sent = {event_id for room in world.rooms.values() for event_id, _ in room.events}
    assert len(stored) == len(sent)
    assert {each.event_id for each in stored} == sent
    in_room: dict[str, int] = {}
    in_tenant: dict[str, int] = {}
    for each in stored:
        in_room[each.room_ref] = in_room.get(each.room_ref, 0) + 1
        in_tenant[each.tenant] = in_tenant.get(each.tenant, 0) + 1
        assert (each.sequence, each.position) == (in_room[each.room_ref], in_tenant[each.tenant])

"""What waits for an endpoint that is down costs no memory, slows nobody, and is sent in order in the end."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import orjson
import pytest
from sqlalchemy import text

from benchmarks.delivery_proof.databases import Server
from benchmarks.delivery_proof.faults import TAKEN, Treatment
from benchmarks.delivery_proof.proof import World, open_world
from benchmarks.delivery_proof.scenario import BOT, Transaction
from benchmarks.delivery_proof.verdict import Request, Room, digest_of
from openmeet_appservice.domain.arrival import Arrival, dumps
from openmeet_appservice.store import event_log
from openmeet_appservice.wiring import now, open_database

DEAD, LIVE = "dead", "live"
DEAD_ROOMS, LIVE_ROOMS = 50, 5

GROWTH = 50 * 1024 * 1024
"""How many bytes more than at first the process may hold."""

AT_ONCE = 100
"""How many events Synapse sends in one transaction."""


@dataclass(slots=True)
class Clocked:
    """Notes when each event came; takes everything."""

    moments: dict[str, float] = field(default_factory=dict)

    def __call__(self, request: Request, tries: int) -> Treatment:
        """Note the moment, and take it."""
        if request.endpoint == LIVE:
            self.moments |= {seen.event_id: time.monotonic() for seen in request.events}
        return TAKEN


def events(prefix: str, rooms: dict[str, Room], tenant: str, number: int) -> Iterator[Arrival]:
    """Yield so many messages, in turn for each room of the tenant."""
    theirs = [room_id for room_id, room in rooms.items() if room.tenant == tenant]
    for n in range(number):
        room_id = theirs[n % len(theirs)]
        event = {
            "event_id": f"${prefix}{n}",
            "room_id": room_id,
            "type": "m.room.message",
            "sender": "@bob:proof.example",
            "content": {"msgtype": "m.text", "body": f"{n}: See you on Friday! " + "x" * 200},
        }
        body = dumps(event)
        rooms[room_id].events.append((f"${prefix}{n}", digest_of(body.encode())))
        yield Arrival(f"${prefix}{n}", room_id, "m.room.message", "@bob:proof.example", body)


async def fill(world: World, number: int) -> None:
    """Write the backlog into the log as intake does, beside the running service."""
    database = open_database(world.replicas[0].config)
    flow = events("b", world.rooms, DEAD, number)
    try:
        for turn in count():
            if not (some := list(islice(flow, AT_ONCE))):
                break
            await database.write(event_log.append, some, now=now(), bot=BOT)
            if turn == 20:
                # PostgreSQL does so itself within a minute. Until then it knows nothing of a table that is
                # new, and reads all of the tenant's events to find out which are stored already.
                await database.write(lambda connection: connection.execute(text("ANALYZE")))
    finally:
        await database.close()


async def talk(world: World, clocked: Clocked, prefix: str, number: int) -> list[float]:
    """Push events for the tenant that is well, one by one; return how many seconds each took."""
    pusher = world.pusher(1)
    waits = []
    for arrival in events(prefix, world.rooms, LIVE, number):
        begun = time.monotonic()
        await pusher.push(Transaction(arrival.event_id, (orjson.loads(arrival.body),)))
        async with asyncio.timeout(60):
            while arrival.event_id not in clocked.moments:
                await asyncio.sleep(0.001)
        waits.append(clocked.moments[arrival.event_id] - begun)
    return waits


async def backlog(url: str, number: int) -> None:
    """Play it through, with so many events that wait."""
    clocked = Clocked()
    rooms = {f"!{DEAD}{n}": Room(DEAD) for n in range(DEAD_ROOMS)}
    rooms |= {f"!{LIVE}{n}": Room(LIVE) for n in range(LIVE_ROOMS)}
    settings = {"WEBHOOKS__TIMEOUT": "10s", "WEBHOOKS__MAX_BATCH": "50"}
    async with open_world(
        Server(url), replicas=1, rooms=rooms, platform=False, treat=clocked, settings=settings
    ) as world:
        [replica] = world.replicas
        replica.launch()
        await replica.ready(world.session)
        before = await talk(world, clocked, "first", 100)
        at_first = replica.memory()

        world.receiver.down.add(DEAD)
        await fill(world, number)
        during = await talk(world, clocked, "during", 200)
        # Everything for the one has come, and all that waits for the other still waits.
        assert world.judge.taken_by(LIVE) == 300
        assert world.judge.taken_by(DEAD) == 0
        assert world.judge.requests_to(DEAD) < 200
        waiting = replica.memory()

        world.receiver.down.clear()
        begun = time.monotonic()
        key = replica.config.provisioning.admin_key.get_secret_value()
        async with world.session.post(
            f"{replica.provisioning_url}/v1/tenants/{DEAD}/webhooks/{DEAD}/resume",
            headers={"Authorization": f"Bearer {key}"},
        ) as answer:
            assert answer.status == 200, await answer.text()
        beside = await talk(world, clocked, "beside", 50)
        assert await world.all_arrived()
        seconds = time.monotonic() - begun
        drained = replica.memory()

    _tell("before", before)
    _tell("while it waits", during)
    _tell("while it drains", beside)
    print(f"{number:,} events drained in {seconds:.1f} s, {number / seconds:,.0f} a second")
    print("MiB at first, waiting, drained:", *(n // 1024**2 for n in (at_first, waiting, drained)))
    verdict = world.judge.verdict()
    assert verdict.holds, verdict
    assert verdict.splits == 0
    assert waiting - at_first < GROWTH
    assert drained - at_first < GROWTH


def _tell(when: str, waits: list[float]) -> None:
    p50, p99 = statistics.median(waits) * 1000, statistics.quantiles(waits, n=100)[98] * 1000
    print(f"the other tenant's events {when}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def test_fifty_thousand_events_wait(database_url: str) -> None:
    await backlog(database_url, 50_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_million_events_wait(database_url: str) -> None:
    await backlog(database_url, 1_000_000)

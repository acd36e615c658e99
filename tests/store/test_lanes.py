"""Lanes: leases, what follows a try, and what waits. On both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text, update

from openmeet_appservice.domain.arrival import read_event
from openmeet_appservice.store import event_log, lanes
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.endpoint_key import EPOCHS
from openmeet_appservice.store.lanes import Backlog, Lane
from openmeet_appservice.store.tables import endpoints, rooms, tenants
from openmeet_appservice.store.tables import lanes as table

ROOMS = ("a", "b", "c")


@pytest.fixture
async def store(database: Database) -> Database:
    """Tenants ``t1`` and ``t2`` with one endpoint and three rooms each."""

    def fill(connection: Connection) -> None:
        for tenant in ("t1", "t2"):
            connection.execute(
                insert(tenants).values(
                    tenant=tenant,
                    tenant_id=tenant,
                    name="",
                    settings="{}",
                    revision=1,
                    last_position=0,
                    created_at=0,
                    updated_at=0,
                )
            )
            connection.execute(
                insert(endpoints).values(
                    tenant=tenant,
                    id="e",
                    name="main",
                    url="https://x.example",
                    secret="",
                    revision=1,
                    created_at=0,
                    updated_at=0,
                )
            )
            for room in ROOMS:
                connection.execute(
                    insert(rooms).values(
                        tenant=tenant,
                        id=room,
                        entity_ref=room,
                        state="open",
                        claim=room,
                        lock_alias="#lock:example.org",
                        room_id=f"!{tenant}{room}",
                        room_version="12",
                        log_id="log",
                        last_sequence=0,
                        created_at=0,
                    )
                )

    await database.write(fill)
    return database


async def say(store: Database, room: str, event_id: str, *, now: int, tenant: str = "t1") -> None:
    arrival = read_event({"event_id": event_id, "room_id": f"!{tenant}{room}"})
    await store.write(event_log.append, [arrival], now=now, bot="@bot:example.org")  # type: ignore[list-item]


async def take(store: Database, *, now: int, limit: int = 10, until: int = 1000, but: Any = ()) -> list[Lane]:
    def do(connection: Connection) -> list[Lane]:
        taken: list[Lane] = []
        for endpoint in lanes.endpoints_due(connection, now=now, but=but):
            found = lanes.due(connection, endpoint.key, now=now, limit=limit - len(taken))
            taken += lanes.lease(connection, found, until=until)
        return taken

    return await store.write(do)


async def row(store: Database, room: str = "a", tenant: str = "t1") -> Any:
    newest = select(rooms.c.last_sequence).where(rooms.c.tenant == tenant, rooms.c.id == room)
    query = select(table, newest.scalar_subquery().label("last_sequence")).where(
        table.c.tenant == tenant, table.c.room_ref == room
    )
    return await store.read(lambda connection: connection.execute(query).one())


async def test_the_longest_due_is_first_and_nothing_is_given_twice(store: Database) -> None:
    for now, room in enumerate("bca", 1):
        await say(store, room, f"${room}", now=now)
    first = await take(store, now=5, limit=2)
    assert [lane.room_ref for lane in first] == ["b", "c"]
    assert [(lane.epoch, lane.until, lane.acked) for lane in first] == [(EPOCHS + 1, 1000, 0)] * 2
    assert [lane.room_ref for lane in await take(store, now=5)] == ["a"]
    assert await take(store, now=999) == []
    assert len(await take(store, now=1000, until=2000)) == 3


async def test_what_is_not_due_yet_is_left(store: Database) -> None:
    await say(store, "a", "$1", now=10)
    assert await take(store, now=9) == []
    assert await store.read(lanes.next_due, now=9) == 10
    assert await store.read(lanes.next_due, now=10) is None


async def test_endpoints_can_be_passed_over(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    await say(store, "a", "$1", now=2, tenant="t2")
    assert [lane.tenant for lane in await take(store, now=5, but=[("t1", "e"), ("t3", "e")])] == ["t2"]
    assert await take(store, now=5, but=[("t1", "e")]) == []
    assert [lane.endpoint for lane in await take(store, now=5)] == [("t1", "e")]


async def test_endpoints_are_found_whosever_they_are(store: Database) -> None:
    """However they lie in the index: several of one owner, some with nothing due, the platform's."""
    keys = [(owner, ref) for owner in ("", "t1", "t3") for ref in ("a", "f", "g")]

    def fill(connection: Connection) -> None:
        for owner, ref in keys:
            connection.execute(
                insert(endpoints).values(
                    tenant=owner,
                    id=ref,
                    name=ref,
                    url="https://x.example",
                    secret="",
                    revision=1,
                    created_at=0,
                    updated_at=0,
                )
            )
            for number, room in enumerate(ROOMS):
                connection.execute(
                    insert(table).values(
                        tenant=owner or "t2",
                        endpoint_ref=ref,
                        room_ref=room,
                        owner=owner,
                        began_after=0,
                        acked_sequence=0,
                        due_at=None if ref == "f" else 5 + number,
                        attempts=0,
                        lease_epoch=0,
                    )
                )

    await store.write(fill)
    found = await store.read(lanes.endpoints_due, now=5)
    assert sorted(one.key for one in found) == [key for key in keys if key[1] != "f"]
    assert await store.read(lanes.endpoints_due, now=4) == []
    assert await store.read(lanes.next_due, now=4) == 5
    assert await store.read(lanes.next_due, now=5) == 6


async def test_endpoints_with_nothing_due_are_never_looked_at(store: Database) -> None:
    if store.dialect != "sqlite":
        pytest.skip("PostgreSQL's plan depends on how much there is")
    steps: list[str] = []

    def explain(_: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps.extend(row[3] for row in cursor.fetchall())

    def look(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", explain)
        lanes.endpoints_due(connection, now=5)
        lanes.next_due(connection, now=5)
        event.remove(connection, "before_cursor_execute", explain)

    await store.read(look)
    assert any("SEARCH endpoints" in step for step in steps)
    assert not any("SCAN endpoints" in step for step in steps)


async def test_claims_at_the_same_time_share_the_lanes(store: Database) -> None:
    for room in ROOMS:
        for tenant in ("t1", "t2"):
            await say(store, room, f"${room}", now=1, tenant=tenant)
    got = await asyncio.gather(*(take(store, now=5, limit=2) for _ in range(6)))
    taken = [(*lane.endpoint, lane.room_ref) for some in got for lane in some]
    assert len(taken) == len(set(taken))
    # Whoever found everything locked finds the rest at the next look.
    rest = await take(store, now=5)
    assert len(taken) + len(rest) == 6


async def test_taken_with_nothing_more_makes_it_idle(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    assert await store.write(lanes.taken, lane, last=1, now=6)
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since, found.lease_until) == (
        1,
        None,
        None,
        None,
    )
    assert await store.read(lanes.backlog) == Backlog(0, 0, None)
    await say(store, "a", "$2", now=9)
    found = await row(store)
    assert (found.last_sequence, found.due_at, found.waiting_since) == (2, 9, 9)


async def test_taken_with_more_makes_it_due_at_once(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    await say(store, "a", "$2", now=6)
    await say(store, "a", "$3", now=7)
    assert (await row(store)).due_at == 1000
    assert await store.write(lanes.taken, lane, last=1, now=8)
    found = await row(store)
    assert (found.acked_sequence, found.last_sequence, found.due_at, found.waiting_since) == (1, 3, 8, 6)


async def test_a_failure_keeps_its_wait_though_events_come_in(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    await say(store, "a", "$2", now=6)
    assert await store.write(lanes.fail, lane, retry_at=500)
    await say(store, "a", "$3", now=7)
    found = await row(store)
    assert (found.due_at, found.attempts, found.waiting_since, found.lease_until) == (500, 1, 1, None)
    [again] = await take(store, now=500, until=2000)
    assert (again.attempts, again.epoch) == (1, EPOCHS + 2)
    assert await store.write(lanes.taken, again, last=1, now=501)
    assert (await row(store)).attempts == 0


async def test_a_parked_lane_stays_so_though_events_come_in(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    assert await store.write(lanes.park, lane, now=6)
    await say(store, "a", "$2", now=7)
    found = await row(store)
    assert (found.due_at, found.parked_at, found.last_sequence, found.waiting_since) == (None, 6, 2, 1)
    assert await take(store, now=10**6) == []
    assert await store.read(lanes.backlog) == Backlog(waiting=1, parked=1, oldest=1)


@pytest.mark.parametrize("ended", ["fail", "park", "give_back"])
async def test_what_was_poked_during_a_try_is_tried_again_at_once(store: Database, ended: str) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    await store.write(lambda connection: connection.execute(update(table).values(due_at=7, attempts=0)))
    if ended == "fail":
        assert await store.write(lanes.fail, lane, retry_at=500)
    elif ended == "park":
        assert await store.write(lanes.park, lane, now=8)
    else:
        assert await store.write(lanes.give_back, lane, due_at=500)
    found = await row(store)
    assert (found.due_at, found.attempts, found.parked_at, found.lease_until) == (7, 0, None, None)


async def test_late_results_are_refused(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [late] = await take(store, now=5)
    [current] = await take(store, now=1000, until=2000)
    before = await row(store)
    assert not await store.write(lanes.taken, late, last=1, now=1001)
    assert not await store.write(lanes.fail, late, retry_at=1001)
    assert not await store.write(lanes.park, late, now=1001)
    assert not await store.write(lanes.give_back, late, due_at=1001)
    assert await row(store) == before
    assert await store.write(lanes.taken, current, last=1, now=1001)
    assert not await store.write(lanes.fail, current, retry_at=1001)


async def test_a_lane_given_back_is_due_as_before(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    assert await store.write(lanes.give_back, lane, due_at=6)
    [again] = await take(store, now=6)
    assert (again.attempts, again.epoch) == (0, EPOCHS + 2)


async def test_the_sole_process_ends_all_leases(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    await say(store, "b", "$2", now=1)
    await take(store, now=5, limit=1)
    assert await store.write(lanes.release_all, now=6) == 1
    assert await store.write(lanes.release_all, now=6) == 0
    assert len(await take(store, now=6)) == 2


async def test_an_event_stored_while_a_batch_is_recorded_is_never_forgotten(store: Database) -> None:
    """Storing and recording race for the lane; whoever is second sees what the first left."""
    await say(store, "a", "$0", now=1)
    for n in range(1, 40):
        [lane] = await take(store, now=10)
        await asyncio.gather(store.write(lanes.taken, lane, last=n, now=5), say(store, "a", f"${n}", now=3))
        found = await row(store)
        assert (found.last_sequence, found.acked_sequence, found.waiting_since) == (n + 1, n, 3)
        assert found.due_at is not None


@pytest.mark.parametrize("first", ["stored", "recorded"])
async def test_storing_and_recording_wait_for_one_another(
    store: Database, migrated_url: str, first: str
) -> None:
    """The very orders of events that would leave a room with something to send idle."""
    if store.dialect != "postgresql":
        pytest.skip("SQLite lets nobody write meanwhile")
    replica = open_database(migrated_url)
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=10)
    new = read_event({"event_id": "$2", "room_id": "!t1a"})

    def store_event(connection: Connection) -> None:
        event_log.append(connection, [new], now=3, bot="@bot:example.org")  # type: ignore[list-item]

    def record(connection: Connection) -> None:
        assert lanes.taken(connection, lane, last=1, now=5)

    def slowly(connection: Connection, do: Callable[[Connection], None]) -> None:
        do(connection)
        connection.execute(text("SELECT pg_sleep(1)"))

    def somebody_sleeps(connection: Connection) -> bool:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return bool(connection.execute(query).scalar())

    slow, quick = (store_event, record) if first == "stored" else (record, store_event)
    writing = asyncio.create_task(store.write(slowly, slow))
    async with asyncio.timeout(10):
        while not await replica.read(somebody_sleeps):
            await asyncio.sleep(0.01)
    await replica.write(quick)
    await writing
    found = await row(store)
    assert (found.last_sequence, found.acked_sequence, found.waiting_since) == (2, 1, 3)
    assert found.due_at is not None
    await replica.close()

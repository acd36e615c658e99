"""Replays in their lanes: what goes next, and what a lane does when a part is done. On both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.store import event_log, lanes, replay_parts
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.lanes import Lane
from openmeet_appservice.store.replay_parts import Part
from openmeet_appservice.store.tables import endpoints, replays, room_events, rooms, tenants
from openmeet_appservice.store.tables import lanes as lane_rows

LANE = ("t1", "e", "a")


@pytest.fixture
async def store(database: Database) -> Database:
    """Tenant ``t1`` whose room ``a`` has ten events, stored at 1 to 10; the endpoint took the first eight."""

    def fill(connection: Connection) -> None:
        at = {"created_at": 0, "updated_at": 0, "revision": 1}
        connection.execute(
            insert(tenants).values(tenant="t1", tenant_id="t1", name="", settings="{}", last_position=0, **at)
        )
        connection.execute(
            insert(endpoints).values(
                tenant="t1", id="e", name="main", url="https://x.example", secret="", **at
            )
        )
        connection.execute(
            insert(rooms).values(
                tenant="t1",
                id="a",
                entity_ref="a",
                state="open",
                claim="a",
                lock_alias="#lock:example.org",
                room_id="!a",
                room_version="12",
                log_id="log",
                last_sequence=0,
                created_at=0,
            )
        )
        for n in range(1, 11):
            arrival = read_event({"event_id": f"${n}", "room_id": "!a"})
            assert isinstance(arrival, Arrival)
            event_log.append(connection, [arrival], now=n, bot="@bot:example.org")
        connection.execute(lane_rows.update().values(acked_sequence=8, waiting_since=9))

    await database.write(fill)
    return database


async def queue(store: Database, *parts: tuple[str, int, int], at: int = 40) -> None:
    def do(connection: Connection) -> None:
        for ref, first, last in parts:
            row = {"tenant": "t1", "endpoint_ref": "e", "room_ref": "a", "id": ref, "owner": "t1"}
            span = {"next_sequence": first, "last_sequence": last, "created_at": at}
            connection.execute(insert(replays), {**row, **span})

    await store.write(do)


async def take(store: Database, *, now: int = 100, until: int = 1000) -> Lane:
    def do(connection: Connection) -> Lane:
        [lane] = lanes.lease(connection, lanes.due(connection, ("t1", "e"), now=now, limit=1), until=until)
        return lane

    return await store.write(do)


async def row(store: Database) -> Any:
    return await store.read(lambda connection: connection.execute(select(lane_rows)).one())


async def queued(store: Database) -> list[Any]:
    columns = (replays.c.id, replays.c.next_sequence, replays.c.last_sequence)
    query = select(*columns).order_by(replays.c.id)
    return await store.read(lambda connection: [tuple(row) for row in connection.execute(query)])


async def test_the_lowest_sequences_go_first(store: Database) -> None:
    assert await store.write(replay_parts.next_part, LANE) is None
    await queue(store, ("r1", 5, 6), ("r2", 1, 4))
    assert await store.write(replay_parts.next_part, LANE) == Part("r2", 1, 4)


async def test_parts_of_which_nothing_is_left_in_the_log_are_dropped(store: Database) -> None:
    await queue(store, ("r1", 1, 2), ("r2", 3, 4), ("r3", 5, 7))

    async def purge(upto: int) -> None:
        gone = delete(room_events).where(room_events.c.sequence <= upto)
        await store.write(lambda connection: connection.execute(gone))

    await purge(3)
    assert await store.write(replay_parts.next_part, LANE) == Part("r2", 3, 4)
    assert await queued(store) == [("r2", 3, 4), ("r3", 5, 7)]
    await purge(7)
    assert await store.write(replay_parts.next_part, LANE) is None
    assert await queued(store) == []


async def test_a_part_that_is_done_leaves_new_events_as_they_are(store: Database) -> None:
    await queue(store, ("r1", 1, 4))
    lane = await take(store)
    assert await store.write(lanes.taken, lane, last=2, now=101, replay_ref="r1")
    assert await queued(store) == [("r1", 3, 4)]
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since, found.lease_until) == (8, 101, 9, None)
    lane = await take(store, now=101)
    assert await store.write(lanes.taken, lane, last=4, now=102, replay_ref="r1")
    assert await queued(store) == []
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since) == (8, 102, 9)


async def test_a_lane_is_idle_when_neither_events_nor_replays_are_left(store: Database) -> None:
    await queue(store, ("r1", 1, 4), at=40)
    lane = await take(store)
    assert await store.write(lanes.taken, lane, last=10, now=101)
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since) == (10, 101, 40)
    lane = await take(store, now=101)
    await queue(store, ("r2", 5, 6), at=50)
    assert await store.write(lanes.taken, lane, last=4, now=102, replay_ref="r1")
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since) == (10, 102, 50)
    lane = await take(store, now=102)
    assert await store.write(lanes.taken, lane, last=6, now=103, replay_ref="r2")
    found = await row(store)
    assert (found.acked_sequence, found.due_at, found.waiting_since) == (10, None, None)


async def test_a_late_result_changes_no_replay(store: Database) -> None:
    await queue(store, ("r1", 1, 4))
    late = await take(store)
    current = await take(store, now=1000, until=2000)
    assert not await store.write(lanes.taken, late, last=4, now=1001, replay_ref="r1")
    assert await queued(store) == [("r1", 1, 4)]
    assert await store.write(lanes.taken, current, last=4, now=1001, replay_ref="r1")
    assert await queued(store) == []


async def test_a_lane_with_nothing_to_send_rests_until_an_event_comes_in(store: Database) -> None:
    lane = await take(store)
    await store.write(lanes.rest, lane)
    found = await row(store)
    assert (found.due_at, found.waiting_since, found.lease_until) == (None, None, None)
    arrival = read_event({"event_id": "$11", "room_id": "!a"})
    await store.write(event_log.append, [arrival], now=70, bot="@bot:example.org")  # type: ignore[list-item]
    found = await row(store)
    assert (found.due_at, found.waiting_since) == (70, 70)

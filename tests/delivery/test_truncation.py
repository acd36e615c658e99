"""`webhooks.max_backlog`: the oldest of what waits is given up, no more than needed. On both databases."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import insert, update

from openmeet_appservice import metrics
from openmeet_appservice.delivery import truncation
from openmeet_appservice.delivery.claim import claim
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.store import dead_letters, endpoints, lanes, waiting
from openmeet_appservice.store import truncation as store
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.tables import lanes as lane_rows
from openmeet_appservice.store.tables import replays

from .conftest import BOT, RETRY, START, World

SETTINGS = DeliverySettings(bot=BOT, retry=RETRY, max_batch=3)


async def main(world: World, name: str = "main") -> Endpoint:
    found = await world.database.read(endpoints.get, "t1", name)
    assert found is not None
    return found


async def say_at(world: World, moment: int, *bodies: str, room: str = "!a") -> None:
    world.clock.now = START + moment
    await world.say(room, *bodies)


async def bound(world: World, most: int) -> bool:
    return await truncation.bound(world.database, most, now=world.clock, new_id=world.new_id)


async def letters(world: World, endpoint: Endpoint | None = None) -> list[tuple[str, int, int]]:
    """The truncated ranges, by room."""
    key = (endpoint or await main(world)).key
    found = await world.database.read(dead_letters.list_page, key, limit=100)
    assert {letter.reason for letter in found} <= {Reason.TRUNCATED}
    return sorted((letter.room_ref.removeprefix("room_"), letter.first, letter.last) for letter in found)


async def take(world: World) -> Any:
    """Claim what is due, with a batch of it, as the worker does."""
    claimed = await world.database.write(claim, Shares(16), SETTINGS, now=world.clock(), new_id=world.new_id)
    return list(claimed.jobs)


async def left(world: World, endpoint: Endpoint | None = None) -> int:
    return await world.database.read(waiting.all_events, (endpoint or await main(world)).key)


async def test_the_oldest_go_first_whichever_room_they_are_of(world: World) -> None:
    for moment, room in enumerate(("!a", "!b", "!b", "!a", "!a", "!b")):
        await say_at(world, moment, "x", room=room)
    assert await bound(world, 6)
    assert await letters(world) == []
    assert await bound(world, 2)
    assert await letters(world) == [("!a", 1, 2), ("!b", 1, 2)]
    for room, since in (("!a", 4), ("!b", 5)):
        lane = await world.lane(room)
        assert (lane.acked_sequence, lane.last_sequence) == (2, 3)
        assert (lane.waiting_since, lane.due_at) == (START + since, START if room == "!a" else START + 1)


async def test_nothing_is_dropped_that_need_not_be(world: World) -> None:
    await say_at(world, 1, *"12345")
    await bound(world, 5)
    assert (await left(world), await letters(world)) == (5, [])
    await bound(world, 4)
    assert (await left(world), await letters(world)) == (4, [("!a", 1, 1)])


async def test_what_is_left_is_delivered_in_order(world: World) -> None:
    await say_at(world, 1, *"12345")
    await say_at(world, 2, *"123", room="!b")
    await bound(world, 5)
    world.worker()
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[4, 5]]
    assert [got.sequences for got in world.receiver.of("!b")] == [[1, 2, 3]]


async def test_a_room_that_lost_everything_goes_on_with_the_next_event(world: World) -> None:
    await say_at(world, 1, "1", "2")
    await say_at(world, 2, "1", room="!b")
    await bound(world, 1)
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.due_at, lane.waiting_since) == (2, None, None)
    await say_at(world, 3, "3")
    world.worker()
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[3]]


async def test_each_endpoint_has_a_bound_of_its_own(world: World) -> None:
    second = await world.add_endpoint(name="second")
    platforms = await world.add_endpoint("", "everybodys")
    await say_at(world, 1, *"1234")
    await world.database.write(
        lambda connection: connection.execute(
            update(lane_rows).where(lane_rows.c.endpoint_ref == second.ref).values(acked_sequence=3)
        )
    )
    await bound(world, 2)
    assert await letters(world) == [("!a", 1, 2)]
    assert await letters(world, second) == []
    assert await letters(world, platforms) == [("!a", 1, 2)]


async def test_the_platforms_endpoint_loses_the_oldest_of_all_tenants(world: World) -> None:
    await world.database.write(endpoints.delete, "t1", "main")
    platforms = await world.add_endpoint("", "everybodys")
    await world.add_tenant("T2")
    await world.add_room("!c", "t2")
    await say_at(world, 1, "1", room="!c")
    await say_at(world, 2, "1", "2")
    await say_at(world, 3, "2", room="!c")
    await bound(world, 2)
    found = await world.database.read(dead_letters.list_page, platforms.key, limit=9)
    assert {(one.tenant, one.room_ref, one.first, one.last) for one in found} == {
        ("t2", "room_!c", 1, 1),
        ("t1", "room_!a", 1, 1),
    }


async def test_a_batch_on_its_way_is_left_alone_and_its_room_comes_later(world: World) -> None:
    await say_at(world, 1, *"12345")
    [job] = await take(world)
    assert not await bound(world, 1)
    assert (await left(world), await letters(world)) == (5, [])
    assert [batch.webhook_id for batch in await world.batches()] == [job.batch.webhook_id]
    assert await world.database.write(lanes.fail, job.lane, retry_at=START + 5_000)
    assert await bound(world, 1)
    assert (await left(world), await letters(world)) == (1, [("!a", 1, 4)])


async def test_another_room_gives_way_for_one_that_is_being_tried(world: World) -> None:
    await say_at(world, 1, "1", "2")
    await take(world)
    await say_at(world, 2, "1", "2", room="!b")
    assert await bound(world, 3)
    assert await letters(world) == [("!b", 1, 1)]


async def test_a_late_result_of_a_lease_that_ran_out_changes_nothing(world: World) -> None:
    await say_at(world, 1, *"12345")
    [job] = await take(world)
    world.clock.turn(SETTINGS.lease)
    assert await bound(world, 1)
    assert not await world.database.write(lanes.taken, job.lane, last=job.batch.last, now=world.clock())
    assert (await world.lane("!a")).acked_sequence == 4


async def test_a_batch_that_waits_for_its_next_try_goes_with_its_events(world: World) -> None:
    await say_at(world, 1, *"12345")
    [job] = await take(world)
    assert job.events == 3
    assert await world.database.write(lanes.fail, job.lane, retry_at=START + 5_000)
    await bound(world, 3)
    assert await world.batches() == []
    lane = await world.lane("!a")
    # Whoever does not take it is not tried more often for it, but what is left has a whole schedule.
    assert (lane.acked_sequence, lane.attempts, lane.due_at) == (2, 0, START + 5_000)
    world.clock.now = START + 5_000
    [again] = await take(world)
    assert (again.batch.first, again.batch.last) == (3, 5)
    assert again.batch.webhook_id != job.batch.webhook_id


async def test_a_parked_room_stays_parked_and_keeps_what_comes_in(world: World) -> None:
    await say_at(world, 1, *"12")
    [job] = await take(world)
    assert await world.database.write(lanes.park, job.lane, now=world.clock())
    await say_at(world, 2, "1", room="!b")
    await bound(world, 1)
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.waiting_since, lane.due_at) == (2, None, None)
    assert lane.parked_at is not None
    await say_at(world, 3, "3")
    lane = await world.lane("!a")
    assert (lane.waiting_since, lane.due_at) == (START + 3, None)
    assert (await world.database.read(lanes.backlog)).parked == 1
    await world.database.write(lanes.try_again, (await main(world)).key, now=world.clock())
    world.worker()
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[3]]


async def replay_from(world: World, room: str, *, since: int) -> None:
    """Have the room's first event sent again, asked for at *since*."""
    endpoint = await main(world)

    def queue(connection: Any) -> None:
        lane = lane_rows.c.room_ref == f"room_{room}"
        connection.execute(update(lane_rows).where(lane).values(acked_sequence=1))
        connection.execute(
            insert(replays).values(
                tenant="t1",
                endpoint_ref=endpoint.ref,
                room_ref=f"room_{room}",
                id=f"replay_{room}",
                owner="t1",
                next_sequence=1,
                last_sequence=1,
                created_at=START + since,
            )
        )
        connection.execute(update(lane_rows).where(lane).values(waiting_since=START + since))

    await world.database.write(queue)


async def test_what_is_sent_again_is_not_given_up(world: World) -> None:
    await say_at(world, 1, "1", "2")
    await replay_from(world, "!a", since=0)
    [job] = await take(world)
    assert (job.batch.first, job.batch.replay_ref) == (1, "replay_!a")
    assert await world.database.write(lanes.fail, job.lane, retry_at=START + 5_000)
    await say_at(world, 2, "1", room="!b")
    await bound(world, 1)
    assert await letters(world) == [("!a", 2, 2)]
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.waiting_since, lane.due_at) == (2, START, START + 5_000)
    assert [batch.webhook_id for batch in await world.batches()] == [job.batch.webhook_id]
    assert lane.attempts == 1
    world.clock.now = START + 5_000
    world.worker()
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[1]]
    assert [got.sequences for got in world.receiver.of("!b")] == [[1]]


async def test_rooms_that_only_wait_for_a_replay_are_passed_over(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(store, "LANES_AT_ONCE", 1)
    await say_at(world, 1, "1")
    await replay_from(world, "!a", since=0)
    await say_at(world, 2, "1", "2", "3", room="!b")
    await replay_from(world, "!b", since=0)
    assert await bound(world, 1)
    assert await letters(world) == [("!b", 2, 2)]
    assert (await world.lane("!a")).waiting_since == START


async def test_two_at_once_drop_no_more_than_one(world: World) -> None:
    await say_at(world, 1, *"123456789")
    await say_at(world, 2, *"123456789", room="!b")
    for _ in range(20):
        await asyncio.gather(*(bound(world, 5) for _ in range(3)))
        if await left(world) <= 5:
            break
    assert await left(world) == 5


async def test_events_that_come_in_meanwhile_are_counted(world: World) -> None:
    async def store_some() -> None:
        for n in range(20):
            await world.say("!a" if n % 2 else "!b", "x", "y")

    async def bound_often() -> None:
        for _ in range(20):
            await bound(world, 7)

    await asyncio.gather(store_some(), bound_often())
    await bound(world, 7)
    assert await left(world) == 7
    world.worker()
    await world.until_all_idle()
    got = sum(len(one.sequences) for one in world.receiver.received)
    lost = sum(last - first + 1 for _, first, last in await letters(world))
    assert (got, lost) == (7, 33)


async def test_it_is_done_in_pieces_and_in_the_right_order(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(store, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(store, "LANES_AT_ONCE", 2)
    monkeypatch.setattr(store, "_PAGE", 2)
    names = [f"!r{n}" for n in range(4)]
    for name in names:
        await world.add_room(name)
    for moment in range(20):
        await say_at(world, moment, "x", room=names[moment % 4])
    endpoint = await main(world)
    done = await world.database.write(
        store.truncate, endpoint.key, most=8, now=world.clock(), new_id=world.new_id
    )
    # No more than the first two rooms' events that are older than all of the third room's.
    assert (done.events, done.rooms, done.left) == (2, 2, 10)
    await bound(world, 8)
    assert await letters(world) == [(name, 1, 3) for name in names]


async def test_one_letter_tells_of_an_hours_loss(world: World) -> None:
    await say_at(world, 1, *"123")
    for moment, most in ((2, 2), (3, 1)):
        world.clock.now = START + moment
        await bound(world, most)
    assert await letters(world) == [("!a", 1, 2)]
    world.clock.now = START + 3 + store.LETTER_GROWS_MS
    await say_at(world, 3 + store.LETTER_GROWS_MS, "4")
    await bound(world, 1)
    assert await letters(world) == [("!a", 1, 2), ("!a", 3, 3)]


async def test_a_letter_of_another_reason_does_not_grow(world: World) -> None:
    endpoint = await main(world)
    await say_at(world, 1, *"123")
    await world.database.write(lambda c: c.execute(update(lane_rows).values(acked_sequence=1)))
    other = DeadLetter("t1", endpoint.ref, START, "l", "t1", "room_!a", 1, 1, Reason.REFUSED, "")
    await world.database.write(dead_letters.record, other, new_id=world.new_id)
    await bound(world, 1)
    found = await world.database.read(dead_letters.list_page, endpoint.key, limit=9)
    assert {(one.reason, one.first, one.last) for one in found} == {
        (Reason.REFUSED, 1, 1),
        (Reason.TRUNCATED, 2, 2),
    }


async def test_it_is_logged_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    events = metrics.DELIVERY_TRUNCATED
    made = metrics.DEAD_LETTERS.labels("truncated")
    before = (events._value.get(), made._value.get())
    await say_at(world, 1, *"12345")
    with caplog.at_level(logging.ERROR):
        await bound(world, 2)
        await bound(world, 2)
    assert (events._value.get() - before[0], made._value.get() - before[1]) == (3, 1)
    [told] = caplog.messages
    assert told.startswith("delivery.truncated: webhook t1/main does not get 3 events")


async def test_it_looks_at_start_soon_again_where_needed_and_now_and_then(world: World) -> None:
    await say_at(world, 1, "1", "2")
    [job] = await take(world)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise asyncio.CancelledError
        await world.database.write(lanes.fail, job.lane, retry_at=START + 5_000)

    with pytest.raises(asyncio.CancelledError):
        await truncation.keep_bounded(world.database, 1, now=world.clock, new_id=world.new_id, sleep=sleep)
    assert waits == [truncation.SOON, truncation.INTERVAL]
    assert await left(world) == 1

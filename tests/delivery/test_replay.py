"""What is asked for again, with a worker and a receiver."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import delete, select

from openmeet_appservice.delivery.claim import claim
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.replay import Asked, Only
from openmeet_appservice.store import dead_letters, endpoints
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.replays import replay
from openmeet_appservice.store.tables import batches, lanes, replays, room_events


async def endpoint(world: Any) -> Endpoint:
    found: Endpoint | None = await world.database.read(endpoints.get, "t1", "main")
    assert found is not None
    return found


async def ask(world: Any, only: Only = Only.ALL, **given: Any) -> int:
    key = (await endpoint(world)).key
    counts = await replay(world.database, key, Asked(only, **given), now=world.clock, new_id=world.new_id)
    world.wakeups.wake("deliver")
    return counts.events


async def queued(world: Any) -> list[tuple[int, int]]:
    query = select(replays.c.next_sequence, replays.c.last_sequence).order_by(replays.c.next_sequence)
    return [tuple(row) for row in await world.database.read(lambda c: c.execute(query).all())]


async def letters(world: Any) -> list[tuple[int, int]]:
    found = await world.database.read(dead_letters.list_page, (await endpoint(world)).key, limit=100)
    return sorted((one.first, one.last) for one in found)


async def test_what_was_taken_comes_again_in_order_before_what_is_new(world: Any) -> None:
    await world.say("!a", *"12345")
    await world.say("!b", "1")
    worker = world.worker(max_batch=2)
    await world.until_all_idle()
    await worker.stop(1)
    before = list(world.receiver.received)
    world.receiver.received.clear()
    await world.say("!a", "6")
    assert await ask(world, tenant="t1", room_ref="room_!a") == 5
    await world.say("!a", "7")
    world.worker(max_batch=2)
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[1, 2], [3, 4], [5], [6, 7]]
    assert world.receiver.of("!b") == []
    # The same events, in webhooks of their own.
    ids = [got.webhook_id for got in (*before, *world.receiver.received)]
    assert len(set(ids)) == len(ids)

    def events(received: list[Any]) -> list[Any]:
        of_a = [event for got in received if got.room == "!a" for event in got.data["events"]]
        return [(event["sequence"], event["event"]["event_id"]) for event in of_a]

    assert events(world.receiver.received)[:5] == events(before)
    assert (await world.lane("!a")).acked_sequence == 7


async def test_a_room_from_before_the_endpoint_is_sent_from_its_first_event(world: Any) -> None:
    await world.database.write(endpoints.delete, "t1", "main")
    await world.say("!a", "1", "2")
    await world.add_endpoint()
    world.worker()
    assert await ask(world, Only.MISSING) == 2
    await world.until_all_idle()
    await world.say("!a", "3")
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!a")] == [[1, 2], [3]]
    assert await ask(world, Only.MISSING) == 0


async def test_what_is_refused_again_is_split_and_becomes_a_dead_letter_again(world: Any) -> None:
    await world.say("!a", *"12345678")
    world.worker()
    await world.until_all_idle()
    world.receiver.received.clear()

    async def answer(got: Any) -> int:
        return 413 if 3 in got.sequences else 200

    world.receiver.answer = answer
    assert await ask(world) == 8
    await world.until_all_idle()
    taken = [got.sequences for got in world.receiver.received if await answer(got) == 200]
    assert sorted(sequence for some in taken for sequence in some) == [1, 2, 4, 5, 6, 7, 8]
    assert (await letters(world), await queued(world)) == ([(3, 3)], [])
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.narrow, lane.narrow_through) == (8, None, None)
    # Redriven, it is refused and a dead letter again; then it is taken.
    assert await ask(world, Only.FAILED) == 1
    await world.until_all_idle()
    assert await letters(world) == [(3, 3)]
    world.receiver.answer = None
    assert await ask(world, Only.FAILED) == 1
    await world.until_all_idle()
    assert (world.receiver.received[-1].sequences, await letters(world)) == ([3], [])


async def test_a_worker_that_died_within_a_replay_is_replaced_with_the_same_bytes(world: Any) -> None:
    await world.say("!a", "1", "2", "3")
    worker = world.worker()
    await world.until_all_idle()
    await worker.stop(1)
    world.receiver.received.clear()
    await ask(world)
    settings = DeliverySettings(bot="@openmeet-bot:example.org", retry=(5.0,), lease=60_000, max_batch=2)
    claimed = await world.database.write(claim, Shares(8), settings, now=world.clock(), new_id=world.new_id)
    [dead] = claimed.jobs
    assert (dead.batch.first, dead.batch.last) == (1, 2)
    # Asked for meanwhile, what is on its way is not queued twice.
    assert await ask(world) == 0
    world.worker()
    await world.say("!a", "4")
    await world.turn(60_000)
    await world.until_all_idle()
    first, second, third = world.receiver.of("!a")
    assert (first.webhook_id, first.raw.decode()) == (dead.batch.webhook_id, dead.batch.body)
    assert (first.sequences, second.sequences, third.sequences) == ([1, 2], [3], [4])


async def test_a_parked_room_is_sent_what_was_asked_for_when_it_is_resumed(world: Any) -> None:
    await world.say("!a", "1")
    world.worker(retry=())
    await world.until_all_idle()

    async def answer(got: Any) -> int:
        return 500

    world.receiver.answer = answer
    await world.say("!a", "2")

    async def parked() -> bool:
        return (await world.lane("!a")).parked_at is not None

    await world.until(parked)
    assert await ask(world) == 1
    world.receiver.answer = None
    world.receiver.received.clear()
    await world.say("!b", "other")
    await world.until(lambda: len(world.receiver.of("!b")) == 1)
    assert (world.receiver.of("!a"), await queued(world)) == ([], [(1, 1)])
    await world.database.write(endpoints.resume, await endpoint(world), now=world.clock())
    world.wakeups.wake("deliver")
    await world.until_all_idle()
    # First what was under way when it was parked, whose bytes are fixed.
    assert [got.sequences for got in world.receiver.of("!a")] == [[2], [1]]


async def test_what_is_skipped_in_a_replay_is_a_dead_letter_and_the_rest_goes_on(world: Any) -> None:
    await world.say("!a", "1", "2", "3")
    world.worker(retry=(), skip_exhausted=True, max_batch=1)
    await world.until_all_idle()

    async def answer(got: Any) -> int:
        return 500 if got.sequences == [2] else 200

    world.receiver.answer = answer
    world.receiver.received.clear()
    await ask(world)
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.received] == [[1], [2], [3]]
    assert await letters(world) == [(2, 2)]
    assert (await world.lane("!a")).acked_sequence == 3


async def test_events_that_left_the_log_meanwhile_hold_up_nothing(world: Any) -> None:
    await world.say("!a", "1", "2", "3")
    await world.say("!b", "1")
    worker = world.worker()
    await world.until_all_idle()
    await worker.stop(1)
    world.receiver.received.clear()
    await ask(world)
    gone = delete(room_events).where((room_events.c.room_ref == "room_!b") | (room_events.c.sequence <= 2))
    await world.database.write(lambda connection: connection.execute(gone))
    world.worker()
    await world.until_all_idle()
    assert ([got.sequences for got in world.receiver.received], await queued(world)) == ([[3]], [])
    await world.say("!b", "2")
    await world.until_all_idle()
    assert [got.sequences for got in world.receiver.of("!b")] == [[2]]


async def test_a_batch_with_a_hole_in_it_is_split_to_its_end(world: Any) -> None:
    await world.say("!a", "1", "2", "3", "4")
    worker = world.worker()
    await world.until_all_idle()
    await worker.stop(1)
    world.receiver.received.clear()
    await ask(world)
    gone = delete(room_events).where(room_events.c.sequence.in_((2, 3)))
    await world.database.write(lambda connection: connection.execute(gone))

    async def answer(got: Any) -> int:
        return 413 if 4 in got.sequences else 200

    world.receiver.answer = answer
    world.worker()
    await world.until_all_idle()
    assert await letters(world) == [(4, 4)]
    assert world.receiver.received[-1].sequences == [4]


async def test_what_is_on_its_way_to_an_endpoint_that_goes_leaves_nothing_behind(world: Any) -> None:
    await world.say("!a", "1")
    world.worker()
    await world.until_all_idle()
    answered = asyncio.Event()

    async def answer(got: Any) -> int:
        await answered.wait()
        return 200

    world.receiver.answer = answer
    world.receiver.received.clear()
    await ask(world)
    await world.until(lambda: len(world.receiver.received) == 1)
    await world.database.write(endpoints.delete, "t1", "main")
    answered.set()
    await world.say("!b", "1")
    for table in (lanes, batches, replays):
        query = select(table)
        assert await world.database.read(lambda c, query=query: c.execute(query).all()) == []


async def test_events_stored_while_replays_are_queued_and_sent_are_all_delivered(world: Any) -> None:
    """Storing, queueing and recording race for the lanes; whoever is second sees what the first left."""
    world.worker(max_batch=3)
    for n in range(15):
        await asyncio.gather(world.say("!a", f"a{n}"), world.say("!b", f"b{n}"), ask(world), ask(world))
    await world.until_all_idle()
    assert await queued(world) == []
    for room in ("!a", "!b"):
        new: list[int] = []
        for got in world.receiver.of(room):
            for sequence in got.sequences:
                if sequence == len(new) + 1:
                    new.append(sequence)
                # Never one that comes before those that it follows.
                assert sequence <= len(new)
        assert new == list(range(1, 16))

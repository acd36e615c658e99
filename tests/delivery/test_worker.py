"""Delivery from the event log to a receiver, over real HTTP, on both databases."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from openmeet_appservice import errors
from openmeet_appservice.delivery.claim import claim
from openmeet_appservice.store import endpoints, lanes
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.secretbox import SecretBox

RETRY_1, RETRY_2 = 5_000, 300_000


async def test_what_was_said_arrives_signed(world: Any) -> None:
    await world.add_puppet("Ada", "@openmeet_t1_ada:example.org", external_id="7")
    await world.say("!a", "hello", sender="@openmeet_t1_ada:example.org")
    world.worker()
    await world.until_idle("!a")
    [got] = world.receiver.received
    assert got.tenant_header == got.data["tenant"] == "T1"
    assert got.data["room"] == {
        "kind": "event",
        "slug": "Slug-a",
        "external_id": None,
        "room_id": "!a",
        "alias": "#event-slug-a-t1:example.org",
        "log_id": "log_!a",
    }
    [item] = got.data["events"]
    assert item["sender"] == {
        "user_id": "@openmeet_t1_ada:example.org",
        "kind": "puppet",
        "user": "Ada",
        "external_id": "7",
    }
    assert item["event"]["content"] == {"body": "hello"}
    assert got.webhook_id.startswith("msg_")
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.due_at, lane.waiting_since, lane.lease_until) == (1, None, None, None)
    assert await world.batches() == []


async def test_a_room_arrives_in_order_in_batches(world: Any) -> None:
    for part in range(5):
        await world.say("!a", *(f"{part}.{n}" for n in range(7)))
    world.worker(max_batch=10)
    await world.until_idle("!a")
    await world.say("!a", "last")
    await world.until_idle("!a")
    assert [got.sequences for got in world.receiver.received] == [
        list(range(1, 11)),
        list(range(11, 21)),
        list(range(21, 31)),
        list(range(31, 36)),
        [36],
    ]
    assert len({got.webhook_id for got in world.receiver.received}) == 5


async def test_batches_stay_under_their_limit_and_a_large_event_goes_alone(world: Any) -> None:
    await world.say("!a", "x" * 300, "y" * 300, "z" * 9000, "small", "smaller")
    world.worker(max_batch_bytes=1600)
    await world.until_idle("!a")
    assert [got.sequences for got in world.receiver.received] == [[1, 2], [3], [4, 5]]
    assert [len(got.raw) <= 1600 for got in world.receiver.received] == [True, False, True]


async def test_unusual_events_arrive_unchanged(world: Any) -> None:
    contents = [{"body": "a\0b"}, {"body": "\ud800 alone", "n": 2**53}, {"\0": "\N{GRINNING FACE}"}]
    await world.store(
        "!a", *({"type": "t\0ype", "sender": "@b:example.org", "content": content} for content in contents)
    )
    world.worker()
    await world.until_idle("!a")
    [got] = world.receiver.received
    assert [item["event"]["content"] for item in got.data["events"]] == contents
    assert {item["event"]["type"] for item in got.data["events"]} == {"t\0ype"}


async def test_a_refused_batch_is_repeated_as_it_was_on_the_schedule(world: Any) -> None:
    statuses = iter([500, 302, 204, 200])

    async def answer(got: Any) -> int:
        return next(statuses)

    world.receiver.answer = answer
    await world.say("!a", "first")
    world.worker()
    await world.until_tried("!a", 1)
    await world.say("!a", "came meanwhile")
    lane = await world.lane("!a")
    assert lane.due_at == world.clock() + RETRY_1
    assert lane.waiting_since == world.clock()
    await world.turn(RETRY_1 - 1)
    await world.turn(1)
    await world.until_tried("!a", 2)
    assert (await world.lane("!a")).due_at == world.clock() + RETRY_2
    await world.turn(RETRY_2)
    await world.until_idle("!a")
    first, second, third, fourth = world.receiver.received
    assert first.raw == second.raw == third.raw
    assert first.webhook_id == second.webhook_id == third.webhook_id != fourth.webhook_id
    assert [second.timestamp - first.timestamp, third.timestamp - second.timestamp] == [5, 300]
    assert fourth.sequences == [2]


async def test_a_try_is_not_made_early(world: Any) -> None:
    async def answer(got: Any) -> int:
        return 500 if got.room == "!a" else 200

    world.receiver.answer = answer
    await world.say("!a", "first")
    world.worker(random=0.0)
    await world.until_tried("!a", 1)
    assert (await world.lane("!a")).due_at == world.clock() + RETRY_1 * 0.8
    await world.turn(int(RETRY_1 * 0.8) - 1)
    # What comes later and arrives shows that the worker has looked.
    await world.say("!b", "other")
    await world.until_idle("!b")
    assert len(world.receiver.of("!a")) == 1


async def test_one_stuck_room_never_holds_up_another(world: Any) -> None:
    release = asyncio.Event()

    async def answer(got: Any) -> int:
        if got.room == "!a":
            await release.wait()
        return 200

    world.receiver.answer = answer
    await world.say("!a", "stuck")
    world.worker()
    await world.until(lambda: bool(world.receiver.of("!a")))
    for n in range(5):
        await world.say("!b", f"message {n}")
        await world.until_idle("!b")
    await world.say("!a", "behind the stuck one")
    assert [got.sequences for got in world.receiver.of("!a")] == [[1]]
    release.set()
    await world.until_idle("!a")
    assert [got.sequences for got in world.receiver.of("!a")] == [[1], [2]]


async def test_what_outlives_the_schedule_is_parked(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(got: Any) -> int:
        return 503 if got.room == "!a" else 200

    world.receiver.answer = answer
    await world.say("!a", "one")
    began = world.clock()
    world.worker()
    for attempts, wait in ((1, RETRY_1), (2, RETRY_2)):
        await world.until_tried("!a", attempts)
        await world.turn(wait)
    await world.until_tried("!a", 3)
    await world.say("!a", "two")
    await world.turn(10 * RETRY_2)
    await world.say("!b", "elsewhere")
    await world.until_idle("!b")
    lane = await world.lane("!a")
    assert (lane.due_at, lane.last_sequence, lane.acked_sequence) == (None, 2, 0)
    assert lane.parked_at == began + RETRY_1 + RETRY_2
    assert len(world.receiver.of("!a")) == 3
    assert any("is parked" in record.message for record in caplog.records if record.levelname == "ERROR")
    assert await world.database.read(lanes.backlog) == lanes.Backlog(waiting=1, parked=1, oldest=began)


async def test_a_changed_endpoint_is_tried_again_at_once_parked_rooms_too(world: Any) -> None:
    async def answer(got: Any) -> int:
        return 200 if got.path == "/mended" else 500

    world.receiver.answer = answer
    await world.say("!a", "parked")
    world.worker(retry=())
    await world.until_tried("!a", 1)
    assert (await world.lane("!a")).parked_at is not None
    await world.add_endpoint(url=world.receiver.url.replace("/hook", "/mended"))
    world.wakeups.wake("deliver")
    await world.until_idle("!a")
    first, second = world.receiver.received
    assert (first.raw, first.webhook_id) == (second.raw, second.webhook_id)
    assert (await world.lane("!a")).parked_at is None


async def test_a_change_during_a_try_outlives_its_failure(world: Any) -> None:
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def answer(got: Any) -> int:
        if got.path == "/mended":
            return 200
        in_flight.set()
        await go_on.wait()
        return 500

    world.receiver.answer = answer
    await world.say("!a", "one")
    world.worker()
    await asyncio.wait_for(in_flight.wait(), 10)
    await world.add_endpoint(url=world.receiver.url.replace("/hook", "/mended"))
    go_on.set()
    await world.until_idle("!a")
    assert [got.path for got in world.receiver.received] == ["/hook", "/mended"]


async def test_an_endpoint_gets_a_room_from_the_first_event_after_it_was_made(world: Any) -> None:
    await world.say("!a", "before", "before")
    second = await world.add_endpoint(name="second", url=world.receiver.url.replace("/hook", "/second"))
    await world.say("!a", "after")
    world.worker()
    await world.until(lambda: len(world.receiver.received) == 2)
    assert {got.path: got.sequences for got in world.receiver.received} == {
        "/hook": [1, 2, 3],
        "/second": [3],
    }
    assert second.ref


async def test_a_deleted_endpoint_gets_nothing_more_and_its_late_result_is_dropped(world: Any) -> None:
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def answer(got: Any) -> int:
        in_flight.set()
        await go_on.wait()
        return 200

    world.receiver.answer = answer
    await world.say("!a", "one", "two")
    worker = world.worker(max_batch=1)
    await asyncio.wait_for(in_flight.wait(), 10)
    assert await world.database.write(endpoints.delete, "t1", "main")
    go_on.set()
    await worker.stop(10)
    assert len(world.receiver.received) == 1
    assert await world.batches() == []
    assert await world.database.read(lanes.backlog) == lanes.Backlog(0, 0, None)


async def test_a_tenant_whose_endpoint_hangs_does_not_starve_another(world: Any) -> None:
    await world.add_tenant("T2")
    await world.add_endpoint("t2", url=world.receiver.url.replace("/hook", "/quick"))
    await world.add_room("!quick", "t2")
    release = asyncio.Event()

    async def answer(got: Any) -> int:
        if got.path == "/hook":
            await release.wait()
        return 200

    world.receiver.answer = answer
    for n in range(40):
        await world.add_room(f"!hang{n}")
        await world.say(f"!hang{n}", "stuck")
    world.clock.turn(1)
    await world.say("!quick", "one")
    world.worker(concurrency=4)
    await world.until_idle("!quick", "t2")
    for n in range(10):
        await world.say("!quick", str(n))
        await world.until_idle("!quick", "t2")
    assert len([got for got in world.receiver.received if got.path == "/hook"]) == 2
    release.set()
    await world.until(lambda: len([g for g in world.receiver.received if g.path == "/hook"]) == 40)


async def test_no_more_is_on_its_way_than_allowed(world: Any) -> None:
    now_open = most = 0

    async def answer(got: Any) -> int:
        nonlocal now_open, most
        now_open += 1
        most = max(most, now_open)
        await asyncio.sleep(0.01)
        now_open -= 1
        return 200

    world.receiver.answer = answer
    for n in range(60):
        await world.add_room(f"!r{n}")
        await world.say(f"!r{n}", "hello")
    world.worker(concurrency=8)
    await world.until(lambda: len(world.receiver.received) == 60)
    assert 1 < most <= 4


async def test_secrets_are_unreadable_in_the_database(world: Any) -> None:
    def everything(connection: Any) -> str:
        return str(connection.execute(text("SELECT * FROM endpoints")).all())

    assert "whsec_" not in await world.database.read(everything)


async def test_without_the_key_nothing_is_sent_nothing_is_lost_and_the_log_says_why(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await world.say("!a", "hello")
    without = world.worker(box=SecretBox([Fernet.generate_key().decode()]))
    await world.until(lambda: any("security.encryption_keys" in r.message for r in caplog.records))
    await without.stop(10)
    assert world.receiver.received == []
    lane = await world.lane("!a")
    assert (lane.attempts, lane.parked_at, lane.due_at) == (0, None, world.clock() + 60_000)
    world.worker()
    await world.turn(60_000)
    await world.until_idle("!a")


async def test_an_address_that_is_not_allowed_is_retried_like_any_failure(world: Any) -> None:
    await world.add_endpoint(url="https://10.1.2.3/hook")
    await world.say("!a", "hello")
    world.worker()
    await world.until_tried("!a", 1)
    assert world.receiver.received == []


class Flaky(Database):
    """A database that is away for a while: *fails* says for which calls."""

    def __init__(self, real: Database, fails: Callable[[str], bool], error: Exception) -> None:
        self.dialect = real.dialect
        self._real = real
        self._fails = fails
        self._error = error

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        if self._fails("claim" if do is claim else "record"):
            raise self._error
        return await self._real.write(do, *args, **kwargs)

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._real.read(do, *args, **kwargs)

    async def close(self) -> None:
        await self._real.close()


@pytest.mark.parametrize("function", ["claim", "record"])
@pytest.mark.parametrize("error", [errors.DatabaseUnavailable("away"), RuntimeError("a fault of ours")])
async def test_delivery_goes_on_after_a_fault(
    world: Any, function: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    left = 3

    def fails(name: str) -> bool:
        nonlocal left
        if name == function and left:
            left -= 1
            return True
        return False

    caplog.set_level(logging.WARNING)
    await world.say("!a", "hello")
    world.worker(database=Flaky(world.database, fails, error), lease=1000)

    async def idle() -> bool:
        # A lease can only end if time goes by.
        await world.turn(100)
        lane = await world.lane("!a")
        return bool(lane.acked_sequence == 1)

    await world.until(idle)
    assert left == 0
    assert len({got.webhook_id for got in world.receiver.received}) == 1
    assert len({got.raw for got in world.receiver.received}) == 1
    assert caplog.records


async def test_the_batch_is_committed_before_it_is_sent(world: Any) -> None:
    seen: list[Any] = []

    async def answer(got: Any) -> int:
        seen.extend(await world.batches())
        return 200

    world.receiver.answer = answer
    await world.say("!a", "hello")
    world.worker()
    await world.until_idle("!a")
    assert [(row.webhook_id, row.body.encode()) for row in seen] == [
        (got.webhook_id, got.raw) for got in world.receiver.received
    ]
    assert json.loads(seen[0].body)["data"]["events"][0]["sequence"] == seen[0].last_sequence == 1


async def test_nothing_sent_by_mistake_when_nothing_is_due(world: Any) -> None:
    world.worker()
    await world.say("!a", "hello")
    await world.until_idle("!a")
    for _ in range(3):
        await world.turn(10**9)
    await world.say("!b", "hello")
    await world.until_idle("!b")
    assert len(world.receiver.received) == 2
    query = select(text("count(*)")).select_from(text("lanes"))
    assert await world.database.read(lambda connection: connection.execute(query).scalar_one()) == 2

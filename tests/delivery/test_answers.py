"""What the endpoint's answers do, with a worker and a receiver."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from openmeet_appservice.store import attempts, breaker, dead_letters, endpoints
from openmeet_appservice.store.dead_letters import Reason
from openmeet_appservice.store.endpoint_row import Endpoint


async def endpoint(world: Any, owner: str = "t1") -> Endpoint:
    found: Endpoint | None = await world.database.read(endpoints.get, owner, "main")
    assert found is not None
    return found


async def letters(world: Any) -> list[tuple[Any, ...]]:
    found = await world.database.read(dead_letters.list_page, (await endpoint(world)).key, limit=100)
    return [(one.room_ref, one.first, one.last, one.reason) for one in reversed(found)]


async def test_410_disables_the_endpoint_and_resuming_sends_what_waited(world: Any) -> None:
    gone = True

    async def answer(got: Any) -> int:
        return 410 if gone and got.path == "/hook" else 200

    def at(path: str) -> list[Any]:
        return [got for got in world.receiver.received if got.path == path]

    def events_at(path: str) -> set[tuple[str, int]]:
        return {(got.room, sequence) for got in at(path) for sequence in got.sequences}

    world.receiver.answer = answer
    await world.add_endpoint("t1", "other", url=world.receiver.url.replace("/hook", "/other"))
    await world.say("!a", "one")
    world.worker()

    async def disabled() -> bool:
        return (await endpoint(world)).disabled_at is not None

    await world.until(disabled)
    tried = len(at("/hook"))
    await world.say("!a", "two")
    await world.say("!b", "three")
    await world.until(lambda: len(events_at("/other")) == 3)
    await world.turn(10**9)
    await world.say("!b", "four")
    await world.until(lambda: len(events_at("/other")) == 4)
    assert len(at("/hook")) == tried
    gone = False
    await world.database.write(endpoints.resume, await endpoint(world), now=world.clock())
    world.wakeups.wake("deliver")
    await world.until_all_idle()
    first, *_ = at("/hook")
    after = at("/hook")[tried:]
    assert len(events_at("/hook")) == 4
    assert first.webhook_id in [got.webhook_id for got in after]


async def test_413_splits_until_it_fits_and_gives_up_what_never_does(world: Any) -> None:
    async def answer(got: Any) -> int:
        bodies = [event["event"]["content"]["body"] for event in got.data["events"]]
        return 413 if len(bodies) > 2 or "huge" in bodies else 200

    world.receiver.answer = answer
    await world.say("!a", "1", "2", "huge", "4", "5", "6", "7")
    world.worker()
    await world.until_idle("!a")
    taken = [got.sequences for got in world.receiver.received if await answer(got) == 200]
    assert [sequence for some in taken for sequence in some] == [1, 2, 4, 5, 6, 7]
    assert await letters(world) == [("room_!a", 3, 3, Reason.REFUSED)]
    lane = await world.lane("!a")
    assert (lane.narrow, lane.narrow_through, lane.attempts) == (None, None, 0)
    ids = [got.webhook_id for got in world.receiver.received]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_batch_refused_three_times_goes_one_by_one(world: Any, status: int) -> None:
    async def answer(got: Any) -> int:
        return status if 2 in got.sequences else 200

    world.receiver.answer = answer
    await world.say("!a", "1", "2", "3")
    world.worker(retry=(5.0, 5.0, 5.0), skip_exhausted=True)
    for attempts_made in (1, 2):
        await world.until_tried("!a", attempts_made)
        await world.turn(5_000)
    # One by one now: the first is taken, the second has a whole schedule of its own.
    for attempts_made in (1, 2, 3):
        await world.until_tried("!a", attempts_made)
        await world.turn(5_000)
    await world.until_idle("!a")
    assert [got.sequences for got in world.receiver.received] == [
        *[[1, 2, 3]] * 3,
        [1],
        *[[2]] * 4,
        [3],
    ]
    assert await letters(world) == [("room_!a", 2, 2, Reason.EXHAUSTED)]


async def test_an_endpoint_decides_itself_what_becomes_of_the_exhausted(world: Any) -> None:
    async def answer(got: Any) -> int:
        return 500 if 1 in got.sequences else 200

    world.receiver.answer = answer
    await world.add_endpoint(on_exhausted="skip", max_batch=1)
    await world.say("!a", "1", "2")
    world.worker(retry=())
    await world.until_idle("!a")
    assert [got.sequences for got in world.receiver.received] == [[1], [2]]
    assert await letters(world) == [("room_!a", 1, 1, Reason.EXHAUSTED)]


async def test_retry_after_rests_the_whole_endpoint(world: Any) -> None:
    resting = {"Retry-After": "60"}

    async def answer(got: Any) -> int:
        return 503 if len(world.receiver.received) == 1 else 200

    world.receiver.answer = answer
    world.receiver.headers = resting
    await world.say("!a", "1")
    world.worker()
    await world.until_tried("!a", 1)

    async def rests() -> bool:
        until: int = world.clock() + 60_000
        return (await endpoint(world)).rest_until == until

    await world.until(rests)
    await world.say("!b", "2")
    await world.turn(59_999)
    await world.add_endpoint("t1", "witness")
    await world.say("!b", "3")
    await world.until(lambda: len(world.receiver.received) == 2)
    assert world.receiver.received[1].sequences == [2]
    await world.turn(1)
    await world.until_all_idle()
    assert sorted(got.sequences for got in world.receiver.received) == [[1], [1], [1, 2], [2]]


async def test_failures_in_several_rooms_open_the_breaker_and_a_probe_closes_it(world: Any) -> None:
    down = True

    async def answer(got: Any) -> int:
        return 500 if down else 200

    world.receiver.answer = answer
    for n in range(breaker.FAILURES):
        await world.add_room(f"!r{n}")
        await world.say(f"!r{n}", "hello")
    world.worker(retry=(1.0,) * 50)

    async def is_open() -> bool:
        return (await endpoint(world)).breaker == breaker.OPEN

    await world.until(is_open)
    for n in range(breaker.FAILURES):
        await world.until_tried(f"!r{n}", 1)
    tried = len(world.receiver.received)
    await world.turn(breaker.FIRST_MS)

    async def probed() -> bool:
        found = await endpoint(world)
        now: int = world.clock()
        failed: bool = found.breaker == breaker.OPEN and (found.breaker_until or 0) > now
        return failed

    await world.until(probed)
    assert len(world.receiver.received) == tried + 1
    down = False
    await world.turn(2 * breaker.FIRST_MS)
    await world.until_all_idle()
    assert (await endpoint(world)).breaker == breaker.CLOSED


async def test_successes_between_failures_keep_the_breaker_closed_whenever_they_were_claimed(
    world: Any,
) -> None:
    rooms = [f"!r{n}" for n in range(2 * breaker.FAILURES + 2)]
    gates = {room: asyncio.Event() for room in rooms}

    async def answer(got: Any) -> int:
        await gates[got.room].wait()
        return 500 if rooms.index(got.room) % 2 == 0 else 200

    world.receiver.answer = answer
    for room in rooms:
        await world.add_room(room)
        await world.say(room, "hello")
    world.worker()
    # All are on their way before anything is known of the endpoint.
    await world.until(lambda: len(world.receiver.received) == len(rooms))
    for number, room in enumerate(rooms):
        gates[room].set()
        if number % 2 == 0:
            await world.until_tried(room, 1)
        else:
            await world.until_idle(room)
    found = await endpoint(world)
    assert (found.breaker, found.breaker_failures) == (breaker.CLOSED, 0)


async def test_both_secrets_sign_until_the_overlap_ends(world: Any) -> None:
    world.worker()
    found = await endpoint(world)
    fresh = world.box.seal("whsec_" + "QUJD" * 10)
    await world.database.write(
        endpoints.rotate_secret,
        found,
        secret_encrypted=fresh,
        old_until=world.clock() + 1000,
        now=world.clock(),
    )
    # The receiver still knows the old secret only.
    await world.say("!a", "one")
    await world.until_idle("!a")
    assert len(world.receiver.received) == 1
    await world.turn(1000)
    await world.say("!a", "two")
    await world.until_tried("!a", 1)
    assert len(world.receiver.received) == 1
    assert world.receiver.faults
    world.receiver.faults.clear()


async def test_static_headers_are_sent_and_never_in_place_of_ours(world: Any) -> None:
    headers = world.box.seal(json.dumps({"X-Gateway": "open sesame", "x-tenant-id": "other"}))
    await world.add_endpoint(headers=headers)
    world.worker()
    await world.say("!a", "one")
    await world.until_idle("!a")
    assert world.receiver.seen_headers[-1]["X-Gateway"] == "open sesame"
    assert world.receiver.received[-1].tenant_header == "T1"


async def test_a_platform_endpoint_gets_the_tenants_it_is_for(world: Any) -> None:
    await world.add_tenant("T2")
    await world.add_room("!two", "t2")
    await world.add_endpoint("", "all", url=world.receiver.url.replace("/hook", "/all"))
    await world.add_endpoint("", "some", url=world.receiver.url.replace("/hook", "/some"), tenants=("t2",))
    world.worker()
    await world.say("!a", "one")
    await world.say("!two", "two")
    await world.until_all_idle()
    got = sorted((one.path, one.tenant_header, one.room) for one in world.receiver.received)
    assert got == [
        ("/all", "T1", "!a"),
        ("/all", "T2", "!two"),
        ("/hook", "T1", "!a"),
        ("/some", "T2", "!two"),
    ]


async def test_encrypted_events_are_marked(world: Any) -> None:
    world.worker()
    await world.store("!a", {"type": "m.room.encrypted", "sender": "@b:x"}, {"type": "m.room.message"})
    await world.until_idle("!a")
    [got] = world.receiver.received
    assert [event.get("encrypted") for event in got.data["events"]] == [True, None]


async def test_every_try_is_recorded_with_the_start_of_its_answer(world: Any) -> None:
    statuses = iter([500, 200])

    async def answer(got: Any) -> int:
        return next(statuses)

    world.receiver.answer = answer
    world.receiver.text = "Too bad\0" + "x" * 5000
    await world.say("!a", "one")
    world.worker()
    await world.until_tried("!a", 1)
    await world.turn(5_000)
    await world.until_idle("!a")
    key = (await endpoint(world)).key
    newest, oldest = await world.database.read(attempts.list_page, key, limit=10)
    assert (oldest.status, oldest.outcome, newest.status, newest.outcome) == (500, "5xx", 200, "2xx")
    assert (oldest.webhook_id, oldest.first, oldest.last) == (newest.webhook_id, 1, 1)
    assert oldest.answer == "Too bad\ufffd" + "x" * 992
    assert await world.database.read(attempts.list_page, key, limit=1) == [newest]
    page = await world.database.read(attempts.list_page, key, limit=9, before=(newest.at, newest.id))
    assert page == [oldest]
    assert await world.database.write(attempts.forget, before=newest.at) == 1
    assert await world.database.read(attempts.list_page, key, limit=10) == [newest]


async def test_a_late_410_of_the_old_url_does_not_disable_the_new_one(world: Any) -> None:
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def answer(got: Any) -> int:
        if got.path == "/mended":
            return 200
        in_flight.set()
        await go_on.wait()
        return 410

    world.receiver.answer = answer
    await world.say("!a", "one")
    world.worker()
    await asyncio.wait_for(in_flight.wait(), 10)
    await world.add_endpoint(url=world.receiver.url.replace("/hook", "/mended"))
    go_on.set()
    await world.until_all_idle()
    assert (await endpoint(world)).disabled_at is None
    assert [got.path for got in world.receiver.received] == ["/hook", "/mended"]


async def test_rooms_that_are_never_taken_do_not_keep_the_breaker_open_for_others(world: Any) -> None:
    async def answer(got: Any) -> int:
        return 200 if got.room == "!well" else 500

    world.receiver.answer = answer
    await world.add_room("!well")
    for room in ("!a", "!b"):
        await world.say(room, "poison")
    world.worker(retry=(1.0,) * 50)

    async def is_open() -> bool:
        return (await endpoint(world)).breaker == breaker.OPEN

    async def tries_again() -> bool:
        if not await is_open():
            await world.turn(2_000)
        return await is_open()

    await world.until(tries_again)
    await world.say("!well", "hello")
    await world.turn(2 * breaker.FIRST_MS)
    # The probe is made with the room that has not failed, though the others are due for longer.
    await world.until_idle("!well")


async def test_nothing_is_recorded_of_an_endpoint_that_is_gone(world: Any) -> None:
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def answer(got: Any) -> int:
        in_flight.set()
        await go_on.wait()
        return 500

    world.receiver.answer = answer
    await world.say("!a", "one")
    worker = world.worker()
    await asyncio.wait_for(in_flight.wait(), 10)
    key = (await endpoint(world)).key
    await world.database.write(endpoints.delete, "t1", "main")
    go_on.set()
    await worker.stop(10)
    assert await world.database.read(attempts.list_page, key, limit=10) == []


async def test_attempts_are_dropped_some_at_a_time(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FORGET_AT_ONCE", 2)
    world.worker()
    await world.add_endpoint("t1", "other")
    for text in ("one", "two", "three"):
        await world.say("!a", text)
        await world.until_all_idle()
    dropped = []
    while number := await world.database.write(attempts.forget, before=world.clock() + 1):
        dropped.append(number)
    assert dropped == [2, 2, 2]

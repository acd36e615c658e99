"""Notices from the database to a receiver, over real HTTP, on both databases."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from openmeet_appservice import metrics
from openmeet_appservice.delivery.notices import NoticeWorker, claim
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.store import attempts, breaker, endpoints, notices
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import endpoints as endpoint_rows

RETRY_1 = 5_000


def answers(world: Any, **status: int) -> None:
    """Have each path answered so; others with 200."""

    async def answer(got: Any) -> int:
        return status.get(got.path.strip("/"), 200)

    world.receiver.answer = answer


def at(world: Any, path: str) -> list[Any]:
    return [got for got in world.receiver.received if got.path == f"/{path}"]


def bodies(world: Any, path: str = "hook") -> list[tuple[str, Any]]:
    return [(got.type, got.body["data"]) for got in at(world, path)]


async def until_none(world: Any) -> None:
    async def none() -> bool:
        return not await world.notices()

    await world.until(none)


async def until_tried(world: Any, tries: int) -> None:
    async def tried() -> bool:
        found = await world.notices()
        return len(found) == 1 and found[0].attempts == tries and found[0].lease_until is None

    await world.until(tried)


async def endpoint(world: Any, name: str = "main") -> Any:
    query = select(endpoint_rows).where(endpoint_rows.c.name == name)
    return await world.database.read(lambda c: c.execute(query).one())


async def other(world: Any, name: str, owner: str = "t1", **wanted: Any) -> Any:
    url = world.receiver.url.removesuffix("hook") + name
    return await world.add_endpoint(owner, name, url, **wanted)


async def recorded(world: Any, key: Any) -> list[Any]:
    return list(reversed(await world.database.read(attempts.list_page, key, limit=99)))


async def test_a_notice_arrives_signed_and_is_gone(world: Any) -> None:
    world.notifier()
    await world.notify("room.ready", room={"slug": "Slug"})
    await until_none(world)
    [got] = world.receiver.received
    assert got.tenant_header == "T1"
    assert got.webhook_id.startswith("msg_")
    assert got.body["data"] == {"tenant": "T1", "room": {"slug": "Slug"}}
    main = await endpoint(world)
    [attempt] = await recorded(world, ("t1", main.id))
    assert (attempt.type, attempt.webhook_id, attempt.room_ref) == ("room.ready", got.webhook_id, None)
    assert (attempt.tenant, attempt.outcome, attempt.status) == ("t1", "2xx", 200)


async def test_every_retry_is_the_same_bytes_under_the_same_id(world: Any) -> None:
    answers(world, hook=500)
    world.notifier()
    await world.notify()
    await until_tried(world, 1)
    await world.turn(RETRY_1 - 1)
    await world.turn(1)
    await until_tried(world, 2)
    answers(world)
    await world.turn(300_000)
    await until_none(world)
    first, second, third = world.receiver.received
    assert first.raw == second.raw == third.raw
    assert first.webhook_id == second.webhook_id == third.webhook_id


async def test_a_killed_worker_s_notice_is_sent_again_as_it_was(world: Any) -> None:
    await world.notify()
    until = world.clock() + 60_000
    claimed = await world.database.write(claim, Shares(8), now=world.clock(), until=until)
    [job] = claimed.jobs
    world.notifier()
    await world.turn(60_000)
    await until_none(world)
    [got] = world.receiver.received
    assert (got.webhook_id, got.raw.decode()) == (job.notice.id, job.notice.body)
    # The dead one's result comes late and changes nothing.
    assert not await world.database.write(notices.drop, job.notice)


async def test_what_outlives_the_schedule_is_given_up(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    dropped = metrics.NOTICES_DROPPED.labels("exhausted")
    before = dropped._value.get()
    answers(world, hook=500)
    other_one = await other(world, "other")
    world.notifier(retry=(5.0,))
    await world.notify()
    await world.until(lambda: len(at(world, "other")) == 1)
    await until_tried(world, 1)
    await world.turn(10_000)
    await until_none(world)
    assert dropped._value.get() == before + 1
    assert [r.levelname for r in caplog.records if "did not take room.ready in 2 tries" in r.message] == [
        "ERROR"
    ]
    main = await endpoint(world)
    assert [one.outcome for one in await recorded(world, ("t1", main.id))] == ["5xx", "5xx"]
    # A notice that was given up is told to nobody: there would be no end of it.
    assert [one.type for one in await recorded(world, other_one.key)] == ["room.ready"]


async def test_413_is_final_and_400_is_not(world: Any) -> None:
    answers(world, hook=400)
    world.notifier()
    await world.notify()
    await until_tried(world, 1)
    answers(world, hook=413)
    await world.turn(RETRY_1 + 1000)
    await until_none(world)
    assert len(world.receiver.received) == 2
    assert (await endpoint(world)).breaker == breaker.CLOSED


async def test_410_disables_the_endpoint_and_tells_the_others(world: Any) -> None:
    answers(world, hook=410)
    await other(world, "other")
    await other(world, "platform", "")
    await other(world, "ready-only", types=("room.ready",))
    await world.add_tenant("T2")
    await other(world, "stranger", "t2")
    world.notifier()
    await world.notify()
    told = (
        "endpoint.disabled",
        {
            "tenant": "T1",
            "endpoint": {"name": "main", "url": world.receiver.url, "platform": False},
            "reason": "it answered 410",
        },
    )
    await world.until(lambda: told in bodies(world, "other") and told in bodies(world, "platform"))
    assert (await endpoint(world)).disabled_at == world.clock()
    assert [type for type, _ in bodies(world, "ready-only")] == ["room.ready"]
    assert bodies(world, "stranger") == []
    # It waits for the endpoint to be resumed, and nothing was told to the endpoint itself.
    await until_tried(world, 0)
    [waiting] = await world.notices()
    assert waiting.type == "room.ready"
    answers(world)
    found = await world.database.read(endpoints.get, "t1", "main")
    await world.database.write(endpoints.resume, found, now=world.clock())
    world.wakeups.wake("notify")
    await until_none(world)
    assert [got.webhook_id for got in at(world, "hook")] == [waiting.id] * 2


async def test_of_a_platform_endpoint_only_the_platform_s_are_told(world: Any) -> None:
    answers(world, gone=410)
    await other(world, "gone", "")
    await other(world, "limited", "", tenants=("T1",))
    world.notifier()
    await world.notify()
    await world.until(lambda: len(bodies(world, "limited")) == 2)
    type, data = bodies(world, "limited")[1]
    assert (type, data["tenant"], data["endpoint"]["platform"]) == ("endpoint.disabled", None, True)
    assert at(world, "limited")[1].tenant_header == ""
    await until_idle(world)
    assert [type for type, _ in bodies(world)] == ["room.ready"]


async def until_idle(world: Any) -> None:
    """Wait until nothing is left that an endpoint would be called for."""

    async def idle() -> bool:
        due = await world.database.read(notices.endpoints_due, now=world.clock())
        return not due and not any(one.lease_until for one in await world.notices())

    await world.until(idle)


async def test_the_lanes_tell_it_too_when_an_endpoint_is_disabled(world: Any) -> None:
    answers(world, hook=410)
    await other(world, "other", types=("endpoint.disabled",))
    world.worker()
    world.notifier(poll=60)
    await world.say("!a", "hello")
    await world.until(lambda: len(bodies(world, "other")) == 1)
    assert bodies(world, "other")[0][1]["endpoint"]["name"] == "main"


async def test_a_dead_letter_is_told_to_the_others(world: Any) -> None:
    answers(world, hook=413)
    await other(world, "other", types=("delivery.dead",))
    world.worker()
    world.notifier(poll=60)
    await world.say("!a", "huge")
    await world.until(lambda: len(bodies(world, "other")) == 1)
    room = {
        "kind": "event",
        "slug": "Slug-a",
        "external_id": None,
        "room_id": "!a",
        "alias": "#event-slug-a-t1:example.org",
        "log_id": "log_!a",
    }
    assert bodies(world, "other") == [
        (
            "delivery.dead",
            {
                "tenant": "T1",
                "endpoint": {"name": "main", "platform": False},
                "room": room,
                "first_sequence": 1,
                "last_sequence": 1,
                "reason": "refused",
                "detail": "the answer was 413",
            },
        )
    ]


async def test_retry_after_rests_the_endpoint(world: Any) -> None:
    answers(world, hook=503)
    world.receiver.headers["Retry-After"] = "60"
    world.notifier()
    await world.notify()
    await until_tried(world, 1)
    main = await endpoint(world)
    assert main.rest_until == world.clock() + 60_000
    await world.notify("user.ready")
    answers(world)
    await world.turn(59_000)
    await world.until(lambda: len(world.receiver.received) == 1)
    await world.turn(1_000)
    await until_none(world)
    assert len(world.receiver.received) == 3


async def test_a_receiver_that_chokes_on_one_type_still_gets_its_rooms(world: Any) -> None:
    """One that answers 500 to what it does not know, however much of that there is."""

    async def answer(got: Any) -> int:
        return 200 if got.type == "room.events" else 500

    world.receiver.answer = answer
    for _ in range(2 * breaker.FAILURES):
        await world.notify("room.ready")
    world.notifier()

    async def all_failed() -> bool:
        return all(one.attempts == 1 and one.lease_until is None for one in await world.notices())

    await world.until(all_failed)
    assert (await endpoint(world)).breaker == breaker.CLOSED
    await world.say("!a", "hello")
    world.worker()
    await world.until_idle("!a")


async def test_several_that_nobody_answers_open_the_breaker(world: Any) -> None:
    url = "http://127.0.0.1:1/nobody"
    await world.add_endpoint("t1", "main", url)
    for _ in range(breaker.FAILURES):
        await world.notify()
    world.notifier()

    async def opened() -> bool:
        return bool((await endpoint(world)).breaker == breaker.OPEN)

    await world.until(opened)


async def test_the_probe_of_an_open_breaker_is_left_to_the_rooms(world: Any) -> None:
    main = await endpoint(world)
    key = ("t1", main.id)
    for number in range(breaker.FAILURES):
        await world.database.write(breaker.failed, key, f"r{number}", now=world.clock(), random=0.5)
    await world.notify()
    await world.say("!a", "hello")
    world.clock.turn(breaker.FIRST_MS)
    assert await world.database.read(notices.endpoints_due, now=world.clock()) == []
    world.notifier(poll=60)
    world.worker()
    await world.until_idle("!a")
    await until_none(world)
    assert [got.type for got in world.receiver.received] == ["room.events", "room.ready"]


async def test_a_dead_endpoint_does_not_hold_up_the_others(world: Any) -> None:
    hang = asyncio.Event()

    async def answer(got: Any) -> int:
        if got.path == "/hook":
            await hang.wait()
        return 200

    world.receiver.answer = answer
    for _ in range(20):
        await world.notify()
    await other(world, "other")
    world.notifier()
    await world.until(lambda: len(at(world, "hook")) == 4)
    for _ in range(20):
        await world.notify("user.ready")
    await world.until(lambda: len(at(world, "other")) == 20)
    assert len(at(world, "hook")) == 4
    hang.set()
    await until_none(world)


async def test_a_notice_that_cannot_be_signed_waits(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    broken = world.notifier(box=SecretBox([Fernet.generate_key().decode()]))
    await world.notify()
    await world.until(lambda: any("cannot be signed" in record.message for record in caplog.records))
    await broken.stop(1)
    world.notifier()
    await world.turn(60_000)
    await until_none(world)


async def test_what_is_broken_off_is_given_back_and_sent_by_the_next(world: Any) -> None:
    hang = asyncio.Event()

    async def answer(got: Any) -> int:
        await hang.wait()
        return 200

    world.receiver.answer = answer
    first: NoticeWorker = world.notifier()
    await world.notify()
    await world.until(lambda: len(world.receiver.received) == 1)
    await first.stop(0)
    [waiting] = await world.notices()
    assert (waiting.lease_until, waiting.due_at, waiting.attempts) == (None, world.clock(), 0)
    hang.set()
    world.notifier()
    await until_none(world)
    assert {got.webhook_id for got in world.receiver.received} == {waiting.id}


async def test_no_body_is_logged(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers(world, hook=500)
    world.notifier(retry=())
    await world.notify("room.degraded", error={"detail": "a secret word"})
    await until_none(world)
    assert "a secret word" not in caplog.text

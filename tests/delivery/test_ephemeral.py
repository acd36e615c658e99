"""Typing and receipts from a transaction to a receiver, over real HTTP, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, update

from openmeet_appservice import errors, metrics
from openmeet_appservice.delivery import ephemeral as module
from openmeet_appservice.delivery.ephemeral import Ephemeral
from openmeet_appservice.store import breaker
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import delivery_attempts
from openmeet_appservice.store.tables import endpoints as endpoint_rows

from .conftest import BOT

ADA, BOB = "@openmeet_t1_ada:example.org", "@bob:example.org"


def typing(room: str, *users: str) -> dict[str, Any]:
    return {"type": "m.typing", "room_id": room, "content": {"user_ids": list(users)}}


def receipt(room: str, event: str, user: str, ts: int = 5, **more: Any) -> dict[str, Any]:
    content = {event: {"m.read": {user: {"ts": ts, **more}}}}
    return {"type": "m.receipt", "room_id": room, "content": content}


class Moments:
    """The moment for which updates are gathered: it passes when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.passed = 0
        self._pass = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        assert seconds == module.MOMENT
        self.begun += 1
        await self._pass.acquire()
        self.passed += 1

    def pass_one(self) -> None:
        self._pass.release()


class Stage:
    """The sender of updates, and its moments."""

    def __init__(self, world: Any, box: SecretBox | None = None, database: Any = None) -> None:
        self.world = world
        self.moments = Moments()
        self.ephemeral = Ephemeral(
            database or world.database,
            world.client,
            box or world.box,
            bot=BOT,
            now=world.clock,
            new_id=world.new_id,
            sleep=self.moments,
        )
        self.ephemeral.start()

    async def push(self, *elements: Any) -> None:
        """Push elements, and let their moment pass."""
        begun = self.moments.begun
        self.ephemeral.take(elements)
        await self.world.until(lambda: self.moments.begun == begun + 1)
        self.moments.pass_one()
        await self.world.until(lambda: self.moments.passed == begun + 1)

    async def got(self, number: int, path: str = "hook") -> list[Any]:
        """Return the data of what came to a path, once there is so much."""

        def found() -> list[Any]:
            return [got for got in self.world.receiver.received if got.path == f"/{path}"]

        await self.world.until(lambda: len(found()) >= number)
        assert len(found()) == number
        assert {got.type for got in found()} == {"room.ephemeral"}
        return [got.body["data"] for got in found()]


@pytest.fixture
async def stage(world: Any) -> AsyncIterator[Stage]:
    stage = Stage(world)
    yield stage
    await stage.ephemeral.stop()


async def main_is(world: Any, **values: Any) -> None:
    statement = update(endpoint_rows).where(endpoint_rows.c.name == "main").values(**values)
    await world.database.write(lambda c: c.execute(statement))


async def other(world: Any, name: str, owner: str = "t1", **wanted: Any) -> Any:
    url = world.receiver.url.removesuffix("hook") + name
    return await world.add_endpoint(owner, name, url, **wanted)


async def test_one_update_tells_who_types_and_who_has_read(world: Any, stage: Stage) -> None:
    await world.add_puppet("Ada", ADA, external_id="7")
    await stage.push(typing("!a", BOB), receipt("!a", "$1", BOB), receipt("!a", "$2", ADA, 6, thread_id="$t"))
    [data] = await stage.got(1)
    ada = {"user_id": ADA, "kind": "puppet", "user": "Ada", "external_id": "7"}
    bob = {"user_id": BOB, "kind": "other", "user": None, "external_id": None}
    assert data == {
        "tenant": "T1",
        "room": {
            "kind": "event",
            "slug": "Slug-a",
            "external_id": None,
            "room_id": "!a",
            "alias": "#event-slug-a-t1:example.org",
            "log_id": "log_!a",
        },
        "typing": {"users": [bob]},
        "receipts": [
            {"event_id": "$1", "receipt_type": "m.read", "sender": bob, "ts": 5},
            {"event_id": "$2", "receipt_type": "m.read", "sender": ada, "ts": 6, "thread_id": "$t"},
        ],
    }
    [got] = world.receiver.received
    assert got.tenant_header == "T1"


async def test_what_comes_within_a_moment_is_one_webhook_for_each_room(world: Any, stage: Stage) -> None:
    stage.ephemeral.take([typing("!a", BOB)])
    await world.until(lambda: stage.moments.begun == 1)
    for number in range(50):
        stage.ephemeral.take([typing("!a", BOB, ADA), receipt("!b", f"${number}", BOB, number)])
    stage.ephemeral.take([typing("!a")])
    stage.moments.pass_one()
    a, b = sorted(await stage.got(2), key=lambda data: str(data["room"]["room_id"]))
    assert a["typing"] == {"users": []}
    assert "receipts" not in a
    assert [one["event_id"] for one in b["receipts"]] == ["$49"]
    assert "typing" not in b


async def test_only_rooms_of_ours_and_what_can_be_read_are_told(world: Any, stage: Stage) -> None:
    await stage.push(
        typing("!unknown", BOB), {"type": "m.presence", "content": {}}, None, {"a": 1}, typing("!a", BOB)
    )
    [data] = await stage.got(1)
    assert data["room"]["room_id"] == "!a"


async def test_each_endpoint_gets_its_tenants_and_types_only(world: Any, stage: Stage) -> None:
    await world.add_tenant("T2")
    await world.add_room("!c", "t2")
    await other(world, "events", types=("room.events",))
    await other(world, "typing", types=("room.ephemeral",))
    await other(world, "second", "t2")
    await other(world, "platform", "")
    await other(world, "limited", "", tenants=("T2",))
    await stage.push(typing("!a", BOB), typing("!c", ADA))
    for path, rooms in {
        "hook": ["!a"],
        "typing": ["!a"],
        "second": ["!c"],
        "platform": ["!a", "!c"],
        "limited": ["!c"],
    }.items():
        found = await stage.got(len(rooms), path)
        assert sorted(data["room"]["room_id"] for data in found) == rooms
    assert len(world.receiver.received) == 6


@pytest.mark.parametrize(
    "values",
    [
        {"paused_at": 1},
        {"disabled_at": 1},
        {"rest_until": 2**50},
        {"breaker": "open", "breaker_until": 0},
        {"breaker": "half_open", "breaker_until": 2**50},
    ],
)
async def test_an_endpoint_that_is_not_well_gets_none(
    world: Any, stage: Stage, values: dict[str, Any]
) -> None:
    await other(world, "other")
    await main_is(world, **values)
    await stage.push(typing("!a", BOB))
    await stage.got(1, "other")
    assert len(world.receiver.received) == 1


async def test_a_failure_is_not_repeated_recorded_or_held_against_the_endpoint(
    world: Any, stage: Stage
) -> None:
    failed = metrics.EPHEMERAL.labels("5xx")
    before = failed._value.get()

    async def answer(got: Any) -> int:
        return 503

    world.receiver.answer = answer
    world.receiver.headers["Retry-After"] = "600"
    for number in range(2 * breaker.FAILURES):
        await stage.push(typing("!a", BOB))
        await world.until(lambda n=number: failed._value.get() == before + n + 1)
    [row] = await world.database.read(lambda c: list(c.execute(select(endpoint_rows))))
    assert (row.breaker, row.breaker_failures, row.rest_until) == ("closed", 0, None)
    assert await world.database.read(lambda c: list(c.execute(select(delivery_attempts)))) == []
    assert len(world.receiver.received) == 2 * breaker.FAILURES


async def test_410_to_an_update_disables_nothing(world: Any, stage: Stage) -> None:
    async def answer(got: Any) -> int:
        return 410

    world.receiver.answer = answer
    await stage.push(typing("!a", BOB))
    await stage.push(typing("!b", BOB))
    await stage.got(2)


async def test_an_endpoint_that_hangs_holds_up_no_other_and_gets_what_is_newest(
    world: Any, stage: Stage
) -> None:
    hang = asyncio.Event()

    async def answer(got: Any) -> int:
        if got.path == "/hook":
            await hang.wait()
        return 200

    world.receiver.answer = answer
    await other(world, "other")
    for room in "cdefgh":
        await world.add_room(f"!{room}")
    rooms = [f"!{room}" for room in "abcdefgh"]
    await stage.push(*(typing(room, BOB) for room in rooms))
    await stage.got(8, "other")
    held = await stage.got(module.SLOTS // 2)
    waiting = [room for room in rooms if room not in {data["room"]["room_id"] for data in held}]
    # More comes for what waits: it is merged into it.
    stopped, typing_still = waiting[:2], waiting[2:]
    await stage.push(*(receipt(room, "$1", BOB) for room in waiting), *(typing(r) for r in stopped))
    await stage.got(8 + len(waiting), "other")
    hang.set()
    late = {data["room"]["room_id"]: data for data in (await stage.got(8))[module.SLOTS // 2 :]}
    assert set(late) == set(waiting)
    assert all(data["receipts"] for data in late.values())
    assert [late[room]["typing"]["users"] for room in stopped] == [[], []]
    assert [late[room]["typing"]["users"][0]["user_id"] for room in typing_still] == [BOB, BOB]


async def test_what_waited_too_long_is_dropped_and_counted(world: Any, stage: Stage) -> None:
    dropped = metrics.EPHEMERAL.labels("dropped")
    before = dropped._value.get()
    hang = asyncio.Event()

    async def answer(got: Any) -> int:
        await hang.wait()
        return 200

    world.receiver.answer = answer
    for room in "cdefgh":
        await world.add_room(f"!{room}")
    await stage.push(*(typing(f"!{room}", BOB) for room in "abcdefgh"))
    await stage.got(4)
    world.clock.turn(module.STALE_MS + 1)
    hang.set()
    await world.until(lambda: dropped._value.get() == before + 4)
    assert len(world.receiver.received) == 4


async def test_no_more_waits_for_an_endpoint_than_so_much(
    world: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    for room in "cdef":
        await world.add_room(f"!{room}")
    dropped = metrics.EPHEMERAL.labels("dropped")
    before = dropped._value.get()
    await stage.push(*(typing(f"!{room}", BOB) for room in "abcdef"))
    assert {data["room"]["room_id"] for data in await stage.got(3)} == {"!d", "!e", "!f"}
    assert dropped._value.get() == before + 3


async def test_a_database_that_is_away_costs_the_updates_and_nothing_else(world: Any) -> None:
    class Away:
        dialect = world.database.dialect
        fails = True

        async def read(self, *args: Any, **kwargs: Any) -> Any:
            if self.fails:
                raise errors.DatabaseUnavailable("away")
            return await world.database.read(*args, **kwargs)

    away = Away()
    stage = Stage(world, database=away)
    try:
        await stage.push(typing("!a", BOB))
        stage.ephemeral.take([typing("!b", BOB)])
        await world.until(lambda: stage.moments.begun == 2)
        away.fails = False
        stage.moments.pass_one()
        [data] = await stage.got(1)
        assert data["room"]["room_id"] == "!b"
    finally:
        await stage.ephemeral.stop()


async def test_a_secret_that_cannot_be_read_stops_nothing(world: Any) -> None:
    unsigned = metrics.EPHEMERAL.labels("unsigned")
    before = unsigned._value.get()
    stage = Stage(world, SecretBox([Fernet.generate_key().decode()]))
    try:
        for number in (1, 2):
            await stage.push(typing("!a", BOB))
            await world.until(lambda n=number: unsigned._value.get() == before + n)
    finally:
        await stage.ephemeral.stop()


async def test_a_body_is_json_whatever_ids_hold(world: Any, stage: Stage) -> None:
    strange = '@\u2028"é:x'
    await stage.push(typing("!a", strange))
    [data] = await stage.got(1)
    assert data["typing"]["users"][0]["user_id"] == strange

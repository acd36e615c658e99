"""Gap repair of all rooms: when they are looked at, in which order, how fast, and when nothing is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sqlalchemy import Connection, insert

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.intake.pace import Pace
from openmeet_appservice.store import repair
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.tables import entities

from .repairing import HOUR, START, Breaking, Stage, no_wait


@pytest.fixture
async def stage(database: Database, rows: Any) -> AsyncIterator[Stage]:
    await database.write(rows.tenant)
    stage = Stage(database, rows)
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)


async def test_a_start_is_a_suspicion_and_then_nothing_is_asked(stage: Stage) -> None:
    for number in range(40):
        await stage.room(f"r{number}", last_event_at=number)
    stage.synapse.says("!r3", "$lost")
    stage.start()
    await stage.until_at_rest()
    assert await stage.repaired("r3") == {"$lost": "$r3"}
    asked = stage.synapse.asked.copy()
    assert asked == {"whoami": 1, "messages": 40}
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert stage.synapse.asked == asked


async def test_the_most_active_rooms_come_first(stage: Stage) -> None:
    for number in (2, 4, 1, 3):
        await stage.room(f"r{number}")
        at = {"last_event_at": None if number == 1 else number}
        await stage.change(f"r{number}", at)
    stage.start(at_once=1)
    await stage.until_at_rest()
    assert stage.synapse.order == ["!r4", "!r3", "!r2", "!r1"]


async def test_the_pace(stage: Stage) -> None:
    for number in range(50):
        await stage.room(f"r{number}")
    stage.start()
    await stage.until_at_rest()
    took = stage.clock - START
    # Fifty rooms at twenty a second, after three seconds of patience.
    assert 3_000 + 2_300 <= took <= 3_000 + 3_000


async def test_turns_are_spread_over_the_time_there_is(stage: Stage) -> None:
    for number in range(3):
        await stage.room(f"r{number}")
    one = stage.repairer()
    stage.suspicion.suspect("start")
    for _ in range(3):
        await one._step()
    assert stage.synapse.asked["messages"] == 3
    stage.synapse.says("!r1", "$lost")
    stage.synapse.order.clear()
    moments = []
    for _ in range(12):
        before = len(stage.synapse.order)
        stage.clock += 2 * HOUR
        await one._step()
        await one._step()
        moments.append(len(stage.synapse.order) - before)
    # Every six hours one of three rooms; each within eighteen.
    assert moments == [0, 0, 1] * 4
    assert set(stage.synapse.order[:3]) == {"!r0", "!r1", "!r2"}
    assert stage.synapse.order[3] == stage.synapse.order[0]
    assert await stage.repaired("r1") == {"$lost": "$r1"}


async def test_synapse_away(stage: Stage) -> None:
    """No room counts as looked at, and Synapse is not asked all the time."""
    for number in range(3):
        await stage.room(f"r{number}")
    stage.synapse.is_away = True
    stage.start()
    async with asyncio.timeout(20):
        while stage.synapse.asked["whoami"] < 8:
            await asyncio.sleep(0.001)
    assert stage.sleeps[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert stage.synapse.asked["messages"] == 0
    stage.synapse.is_away = False
    await stage.until_at_rest()
    assert stage.synapse.asked["messages"] == 3


async def test_synapse_going_away_in_the_midst(stage: Stage) -> None:
    for number in range(30):
        await stage.room(f"r{number}")

    def goes(operation: str) -> None:
        if stage.synapse.asked["messages"] == 10:
            stage.synapse.is_away = True
        if stage.synapse.asked["whoami"] == 12:
            stage.synapse.is_away = False

    stage.synapse.before_answer = goes
    stage.start()
    await stage.until_at_rest()
    # All of them after it was back: in the outage more may have been lost.
    assert set(stage.synapse.order[-30:]) == {f"!r{number}" for number in range(30)}
    assert all([(await stage.row(f"r{number}")).checked_at > START for number in range(30)])


async def test_it_waits_until_synapse_has_caught_up(stage: Stage) -> None:
    await stage.room("a")
    stage.announced = False
    late = 0

    def pushes() -> None:
        nonlocal late
        late += 1
        if late < 5:
            stage.suspicion.transaction("x", [cast(Arrival, read_event(OLD))])
        stage.announced = late >= 7

    sleep = stage.sleep

    async def watched(seconds: float) -> None:
        pushes()
        await sleep(seconds)

    stage.sleep = watched  # type: ignore[method-assign]
    stage.start()
    await stage.until_at_rest()
    assert stage.sleeps[:7] == [3.0] * 7
    assert stage.synapse.asked["messages"] == 1


OLD = {"event_id": "$old", "room_id": "!r", "unsigned": {"age": 60_000}}


async def test_a_suspicion_that_keeps_coming_back_is_looked_into_more_and_more_seldom(stage: Stage) -> None:
    await stage.room("a")
    stage.start(calm=10_000.0)
    for _ in range(9):
        await stage.until_at_rest()
        await stage.database.read(lambda c: None)
        seen = stage.synapse.asked["messages"]
        stage.clock += 1
        stage.suspicion.suspect("homeserver")
        async with asyncio.timeout(20):
            while stage.synapse.asked["messages"] == seen:
                await asyncio.sleep(0.001)
    pauses = [each for each in stage.sleeps if each not in (3.0,) and each >= 5]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]


async def test_a_suspicion_survives_a_crash(stage: Stage) -> None:
    await stage.room("a")
    await stage.check("a")
    stage.clock += 1
    stage.synapse.is_away = True
    task = stage.start()
    async with asyncio.timeout(20):
        while not (await stage.database.read(repair.due, since=0, now=stage.clock, limit=1)).suspicion:
            await asyncio.sleep(0.001)
    task.cancel()
    due = await stage.database.read(repair.due, since=stage.clock, now=stage.clock, limit=1)
    assert START < due.suspicion <= stage.clock
    assert due.rooms == [("t1", "a")]


async def test_another_replica_looks_into_it(stage: Stage) -> None:
    await stage.room("a")
    stage.start()
    await stage.until_at_rest()
    stage.synapse.says("!a", "$lost")
    stage.clock += 60_000
    # Somebody else's suspicion, of which this process hears from the database only.
    await stage.database.write(repair.suspect, stage.clock)
    async with asyncio.timeout(20):
        while not await stage.repaired("a"):
            await asyncio.sleep(0.005)


async def test_a_replica_that_died_leaves_its_room_to_others(stage: Stage) -> None:
    await stage.room("a")
    stage.start()
    await stage.until_at_rest()
    stage.synapse.says("!a", "$lost")
    stage.clock += 1
    await stage.claim("a")
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert await stage.repaired("a") == {}
    stage.clock += 180_000
    async with asyncio.timeout(20):
        while not await stage.repaired("a"):
            await asyncio.sleep(0.005)


async def test_two_replicas_share_the_rooms(stage: Stage, migrated_url: str) -> None:
    if stage.database.dialect == "sqlite":
        pytest.skip("one process only")
    for number in range(30):
        await stage.room(f"r{number}")
        stage.synapse.says(f"!r{number}", f"$lost{number}")
    other = open_database(migrated_url)
    try:
        stage.clock += 1
        await stage.database.write(repair.suspect, stage.clock)
        keys = [("t1", f"r{number}") for number in range(30)]

        async def work(database: Database) -> int:
            taken = await database.write(
                repair.claim, keys, since=stage.clock, now=stage.clock, lease=180_000
            )
            for room in taken:
                await stage.checker(database).check(room, no_wait)
            return len(taken)

        assert sum(await asyncio.gather(work(stage.database), work(other), work(other))) == 30
        assert stage.synapse.asked["messages"] == 30
        stage.start()
        stage.start(other)
        stage.synapse.says("!r7", "$more")
        stage.clock += 1
        stage.suspicion.suspect("start")
        async with asyncio.timeout(30):
            while "$more" not in await stage.repaired("r7"):
                await asyncio.sleep(0.005)
        await stage.until_at_rest()
        for number in range(30):
            assert next(iter(await stage.repaired(f"r{number}"))) == f"$lost{number}"
    finally:
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        stage.tasks.clear()
        await other.close()


async def test_one_bad_room_stops_no_other(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        await stage.room(name)
    stage.synapse.errors["!a"] = KeyError("a fault of ours")
    stage.synapse.says("!b", "$lost")
    stage.start()
    async with asyncio.timeout(20):
        while not await stage.repaired("b") or (await stage.row("a")).check_lease_until is None:
            await asyncio.sleep(0.005)
    assert "!a could not be looked at" in caplog.text


async def test_the_database_away(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await stage.room("a")
    stage.synapse.says("!a", "$lost")
    stage.start(Breaking(stage.database, failures=7))
    async with asyncio.timeout(30):
        while not await stage.repaired("a"):
            stage.clock += 1000
            await asyncio.sleep(0.005)
    assert "gap repair waits for the database" in caplog.text


async def test_rooms_that_are_not_looked_at(stage: Stage) -> None:
    for state in ("claimed", "former", "orphan"):
        await stage.room(state, state=state)
    await stage.room("quiet", entity_ref="archived")
    await stage.room("just", entity_ref="just-archived")
    for ref, at in (("archived", START - 25 * HOUR), ("just-archived", START - HOUR)):
        await stage.database.write(archived, ref, at)
    stage.start()
    await stage.until_at_rest()
    assert sorted(stage.synapse.order) == ["!just", "!quiet"]
    # What was archived long ago was looked at for the last time.
    assert (await stage.row("quiet")).checked_at is None
    stage.clock += 700_000
    stage.suspicion.suspect("homeserver")
    async with asyncio.timeout(20):
        while len(stage.synapse.order) < 3:
            await asyncio.sleep(0.005)
    await stage.until_at_rest()
    assert stage.synapse.order[2:] == ["!just"]


def archived(connection: Connection, ref: str, at: int) -> None:
    connection.execute(
        insert(entities).values(
            tenant="t1",
            id=ref,
            kind="event",
            slug=ref,
            slug_key=ref,
            alias=f"#{ref}:hs.test",
            spec="{}",
            revision=1,
            members_revision=1,
            removals_confirmed=0,
            created_at=0,
            updated_at=0,
            archived_at=at,
        )
    )


async def test_the_pace_of_many_who_ask_at_once() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(0.5, sleep, lambda: 100.0)
    await asyncio.gather(*(pace.turn() for _ in range(4)))
    assert slept == [0.5, 1.0, 1.5]

"""The full check: as often as allowed and no more, and what it finds is set right."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.reconciler.full_check import (
    LOOK_EVERY,
    PAUSE,
    REQUESTS,
    FullCheck,
    FullCheckSettings,
)
from openmeet_appservice.store import full_check
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import entities, rooms, sync
from openmeet_appservice.store.wakeups import Wakeups

from .conftest import Service, names, until

DAY = 24 * 3_600_000
with_synapse = pytest.mark.asyncio(loop_scope="session")
WEEKLY = FullCheckSettings(period=7 * DAY, rate=0.5)


class Time:
    """A clock that sleepers move."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000
        self.slept: list[float] = []

    def now(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += max(1, round(seconds * 1000))


def fill(connection: Connection, number: int, now: int) -> None:
    """Add so many events, each with a room that is as it should be."""
    for index in range(number):
        ref = f"e{index}"
        connection.execute(
            insert(entities).values(
                tenant="t1",
                id=ref,
                kind="event",
                slug=ref,
                slug_key=ref,
                alias=ref,
                spec="{}",
                revision=1,
                members_revision=1,
                removals_confirmed=0,
                created_at=0,
                updated_at=0,
            )
        )
        connection.execute(
            insert(rooms).values(
                tenant="t1",
                id=ref,
                entity_ref=ref,
                state="open",
                claim=ref,
                lock_alias=ref,
                room_id=ref,
                log_id=ref,
                last_sequence=0,
                created_at=0,
            )
        )
        connection.execute(
            insert(sync).values(
                tenant="t1",
                subject="entity",
                ref=ref,
                generation=1,
                observed_generation=1,
                attempts=0,
                lease_epoch=0,
                compared_at=now,
            )
        )


async def due_at(database: Database) -> dict[str, int]:
    query = select(sync.c.ref, sync.c.due_at).where(sync.c.due_at.is_not(None))
    return await database.read(lambda connection: {r.ref: r.due_at for r in connection.execute(query)})


def checking(database: Database, time: Time, settings: FullCheckSettings, away: bool = False) -> FullCheck:
    return FullCheck(database, Wakeups(), settings, lambda: away, time.now, time.sleep)


async def test_every_room_is_compared_once_in_the_period_spread_evenly(database: Database) -> None:
    time = Time()
    started = time.ms
    await database.write(fill, 20, started)
    check = checking(database, time, WEEKLY)
    while time.ms < started + 7 * DAY:
        await time.sleep(await check.step())
    due = sorted((await due_at(database)).values())
    assert len(due) == 20
    gaps = [later - earlier for earlier, later in pairwise(due)]
    even = 7 * DAY * 0.9 / 20
    assert all(even <= gap <= even * 1.1 for gap in gaps), gaps


async def test_with_many_rooms_synapse_is_asked_no_more_often_than_allowed(database: Database) -> None:
    time = Time()
    await database.write(fill, 50, time.ms)
    check = checking(database, time, FullCheckSettings(period=60_000, rate=0.5))
    await time.sleep(await check.step())
    started = time.ms
    for _ in range(30):
        await time.sleep(await check.step())
    requests = REQUESTS * len(await due_at(database))
    assert 0.45 < requests / ((time.ms - started) / 1000) <= 0.5


def test_the_figures_of_the_design_fit() -> None:
    assert WEEKLY.gap(100_000) * 100_000 <= 7 * DAY, "100,000 rooms in a week at half a request a second"


async def test_what_waits_longest_is_shown(database: Database) -> None:
    time = Time()
    await database.write(fill, 1, time.ms - DAY)
    await checking(database, time, WEEKLY).step()
    assert REGISTRY.get_sample_value("openmeet_as_full_check_oldest_age_seconds") == DAY / 1000


async def test_nothing_is_made_due_while_synapse_is_away(database: Database) -> None:
    time = Time()
    await database.write(fill, 5, time.ms - 30 * DAY)
    check = checking(database, time, WEEKLY, away=True)
    for _ in range(10):
        assert await check.step() == PAUSE
    assert await due_at(database) == {}


async def test_it_goes_on_when_the_database_was_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    check = checking(database, time, WEEKLY)
    for error in (DatabaseUnavailable("gone"), LookupError("a fault of ours")):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(full_check, "take_turn", fails)
            assert await check.step() == PAUSE
    assert await check.step() == LOOK_EVERY


@with_synapse
async def test_47_59_it_finds_what_nobody_noticed(service: Service) -> None:
    """OpenMeet's own service never compares by itself; lost aliases are mended there with SQL.

    Nothing is pushed to anybody here, so only the full check can see it.
    """
    service.settings = replace(service.settings, full_check=FullCheckSettings(period=1000, rate=30.0))
    await service.start()
    event = await service.put("games", who={"ada": "host"})
    await service.settled(event)
    room_id = await service.room_id(event)
    await service.homeserver.set_state(
        room_id, "m.room.name", {"name": "Party"}, as_user=service.user_id("ada")
    )
    await service.homeserver.set_room_visibility(room_id, "private")
    await service.homeserver.delete_alias(service.alias("games"))

    async def is_right() -> bool:
        shown = await service.homeserver.room_visibility(room_id)
        aliases = await service.homeserver.room_aliases(room_id)
        name = names(await service.state(room_id))[0]
        return (name, shown, aliases) == ("Games", "public", {service.alias("games")})

    await until(is_right, "the room is as OpenMeet wants it")
    service.proxy.seen.clear()

    async def was_looked_at() -> bool:
        return service.proxy.count("GET", "/state") >= 2

    await until(was_looked_at, "it is compared again and again")
    assert {one.method for one in service.proxy.seen} == {"GET"}


@with_synapse
async def test_off_it_asks_nothing(service: Service) -> None:
    await service.start()
    event = await service.put("games", who={"ada": "host"})
    await service.settled(event)
    assert not any(task.get_name() == "full check" for task in asyncio.all_tasks())

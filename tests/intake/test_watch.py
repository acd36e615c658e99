"""Letting Synapse know that we are here: at the start and after an outage, until it has heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Executable, insert, select

from openmeet_appservice.errors import (
    DatabaseUnavailable,
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.intake.control_room import ControlRoom
from openmeet_appservice.intake.housekeeping import HELD_MS, QUARANTINED_MS, keep_tidy, tidy
from openmeet_appservice.intake.watch import LONGEST_WAIT, Watch
from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.store import event_log, service
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import held_events, quarantine

FORBIDDEN = HomeserverRefused(403, "M_FORBIDDEN", "not inside")


@dataclass(slots=True)
class StandIn:
    """A homeserver with one control room at most; *refusals* are raised, once each, by operation."""

    rooms: dict[str, list[Any]] = field(default_factory=dict)
    alias_to: str | None = None
    refusals: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _called(self, operation: str) -> None:
        self.calls.append(operation)
        if self.refusals.get(operation):
            raise self.refusals[operation].pop(0)

    async def ping(self, transaction_id: str) -> int:
        self._called("ping")
        return 3

    async def set_state(self, room_id: str, event_type: str, content: Any) -> str:
        self._called("set_state")
        if room_id not in self.rooms:
            raise FORBIDDEN
        self.rooms[room_id].append((event_type, content))
        return "$x"

    async def resolve_alias(self, alias: str) -> str | None:
        self._called("resolve_alias")
        assert alias == "#_openmeet_control:hs.test"
        return self.alias_to

    async def join(self, room_id: str) -> None:
        self._called("join")
        if room_id not in self.rooms:
            raise FORBIDDEN

    async def delete_alias(self, alias: str) -> None:
        self._called("delete_alias")
        self.alias_to = None

    async def create_room(self, content: Any) -> str:
        self._called("create_room")
        assert content["room_alias_name"] == "_openmeet_control"
        if self.alias_to is not None:
            raise HomeserverRefused(400, "M_ROOM_IN_USE", "taken")
        self.alias_to = f"!control{len(self.calls)}"
        self.rooms[self.alias_to] = []
        return self.alias_to


def control_room(stand_in: StandIn, database: Database) -> ControlRoom:
    numbers = iter(range(1000))
    return ControlRoom(
        homeserver=cast(Homeserver, stand_in),
        database=database,
        server_name="hs.test",
        new_nonce=lambda: f"nonce-{next(numbers)}",
        now=lambda: 1_790_000_000_123,
    )


async def test_the_control_room_is_made_once_and_written_into(database: Database) -> None:
    stand_in = StandIn()
    room = control_room(stand_in, database)
    await room.write_event()
    await room.write_event()
    assert stand_in.calls == ["resolve_alias", "create_room", "set_state", "set_state"]
    [(room_id, written)] = stand_in.rooms.items()
    assert await database.read(service.get, "control_room") == room_id
    assert written == [
        ("net.openmeet.wake", {"nonce": f"nonce-{number}", "at": "2026-09-21T14:13:20.123Z"})
        for number in (0, 1)
    ]


async def test_a_control_room_of_another_replica_is_used(database: Database) -> None:
    stand_in = StandIn(rooms={"!theirs": []}, alias_to="!theirs")
    await control_room(stand_in, database).write_event()
    assert await database.read(service.get, "control_room") == "!theirs"
    assert "create_room" not in stand_in.calls


async def test_a_control_room_that_is_gone_is_made_anew(database: Database) -> None:
    await database.write(service.put, "control_room", "!gone")
    stand_in = StandIn(alias_to="!gone")
    await control_room(stand_in, database).write_event()
    assert "delete_alias" in stand_in.calls
    [(room_id, written)] = stand_in.rooms.items()
    assert await database.read(service.get, "control_room") == room_id
    assert len(written) == 1


async def test_unknown_is_not_gone(database: Database) -> None:
    await database.write(service.put, "control_room", "!r")
    for error in (HomeserverUnreachable("?"), HomeserverRefused(500, "M_UNKNOWN", "x")):
        stand_in = StandIn(rooms={"!r": []}, refusals={"set_state": [error]})
        with pytest.raises(type(error)):
            await control_room(stand_in, database).write_event()
        assert stand_in.calls == ["set_state"]


async def test_what_came_before_the_room_was_known_is_dropped(database: Database) -> None:
    stand_in = StandIn(rooms={"!control": []}, alias_to="!control")
    held = insert(held_events).values(room_id="!control", event_id="$1", received_at=0, body="{}")
    other = insert(held_events).values(room_id="!other", event_id="$2", received_at=0, body="{}")
    await database.write(lambda connection: connection.execute(held))
    await database.write(lambda connection: connection.execute(other))
    await control_room(stand_in, database).write_event()
    left = select(held_events.c.room_id)
    assert await database.read(lambda connection: connection.execute(left).scalars().all()) == ["!other"]


@dataclass(slots=True)
class Watched:
    """A watch that runs; each of its sleeps ends when the test says so."""

    watch: Watch
    stand_in: StandIn
    reports: list[str | None]
    sleeps: asyncio.Queue[float]
    wake: asyncio.Semaphore
    database: Any

    async def slept(self) -> float:
        """Wait until it sleeps, for how many seconds it wants to, and end that."""
        async with asyncio.timeout(10):
            seconds = await self.sleeps.get()
        self.wake.release()
        return seconds


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Callable[..., Watched]]:
    tasks = []

    def start(stand_in: StandIn, database: Any = database) -> Watched:
        sleeps: asyncio.Queue[float] = asyncio.Queue()
        wake = asyncio.Semaphore(0)

        async def sleep(seconds: float) -> None:
            sleeps.put_nowait(seconds)
            await wake.acquire()

        reports: list[str | None] = []
        watch = Watch(
            homeserver=cast(Homeserver, stand_in),
            control_room=control_room(stand_in, database),
            database=database,
            report=reports.append,
            new_txn_id=lambda: "txn",
            sleep=sleep,
            random_number=lambda: 0.0,
        )
        tasks.append(asyncio.create_task(watch.run()))
        return Watched(watch, stand_in, reports, sleeps, wake, database)

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_pings_and_writes_at_the_start_and_then_rests(watched: Callable[..., Watched]) -> None:
    running = watched(StandIn())
    await running.slept()
    assert running.stand_in.calls == ["ping", "resolve_alias", "create_room", "set_state"]
    assert running.reports == [None]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(running.stand_in.calls) == 4
    running.watch.rouse()
    await running.slept()
    assert running.stand_in.calls[4:] == ["ping", "set_state"]


async def test_it_tries_until_it_is_heard(
    watched: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    refused = HomeserverRefused(502, "M_CONNECTION_FAILED", "ConnectionRefusedError")
    running = watched(StandIn(refusals={"ping": [refused] * 8}))
    waits = [await running.slept() for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    await running.slept()
    assert running.reports[-1] is None
    assert all(report is not None and "appservice.url" in report for report in running.reports[:-1])
    # Said loudly once, not at each attempt.
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(loud) == 1
    assert "M_CONNECTION_FAILED" in loud[0].message


async def test_the_control_room_failing_is_a_problem_too(watched: Callable[..., Watched]) -> None:
    running = watched(StandIn(refusals={"create_room": [HomeserverUnreachable("no answer")]}))
    await running.slept()
    assert running.reports[0] is not None
    assert "control room" in running.reports[0]
    await running.slept()
    assert running.reports[-1] is None


async def test_a_database_that_is_away_is_waited_for(
    watched: Callable[..., Watched], database: Database
) -> None:
    class Away(Database):
        dialect = "sqlite"
        is_away = True

        async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            if self.is_away:
                raise DatabaseUnavailable("gone")
            return await database.read(do, *args, **kwargs)

        async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            return await database.write(do, *args, **kwargs)

        async def close(self) -> None:
            raise NotImplementedError

    away = Away()
    running = watched(StandIn(), away)
    await running.slept()
    # A ping now would only make Synapse send what cannot be stored.
    assert running.stand_in.calls == []
    async with asyncio.timeout(10):
        await running.sleeps.get()
        away.is_away = False
        running.wake.release()
    await running.slept()
    assert running.stand_in.calls[0] == "ping"
    assert running.reports[-1] is None


async def test_a_ping_that_never_helps_is_not_repeated_without_end(watched: Callable[..., Watched]) -> None:
    """A transaction that can never be stored rouses the watch again at each of its pings."""
    running = watched(StandIn())
    pauses = []
    for _ in range(9):
        running.watch.rouse()
        pauses.append(await running.slept())
    assert pauses[-1] == LONGEST_WAIT
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HomeserverRefused(400, "M_URL_NOT_SET", ""), "no `url`"),
        (HomeserverRefused(401, "M_UNKNOWN_TOKEN", ""), "as_token"),
        (HomeserverRefused(401, "M_MISSING_TOKEN", ""), "as_token"),
        (HomeserverRefused(403, "M_FORBIDDEN", ""), "appservice.id"),
        (HomeserverRefused(502, "M_CONNECTION_FAILED", ""), "cannot connect"),
        (HomeserverRefused(504, "M_CONNECTION_TIMEOUT", ""), "no answer in time"),
        (HomeserverRefused(502, "M_BAD_STATUS", "HTTP 403 Forbidden"), "refuse Synapse's hs_token"),
        (HomeserverRefused(502, "M_BAD_STATUS", "HTTP 401 Unauthorized"), "without the hs_token"),
        (HomeserverRefused(502, "M_BAD_STATUS", "HTTP 404 Not Found"), "but not we"),
        (HomeserverRefused(502, "M_BAD_STATUS", "HTTP 500"), "not with success"),
        (HomeserverRefused(502, "M_BAD_STATUS", ""), "not with success"),
        (HomeserverRefused(404, "M_UNRECOGNIZED", ""), "1.85"),
        (HomeserverLimited("M_LIMIT_EXCEEDED", "", None), "rate_limited: false"),
        (HomeserverRefused(418, "M_TEAPOT", ""), "log says more"),
        (HomeserverUnreachable(), "homeserver.url"),
    ],
)
def test_each_failure_has_its_own_advice(error: HomeserverError, words: str) -> None:
    assert words in advice(error)


def execute(connection: Connection, statement: Executable) -> None:
    connection.execute(statement)


async def test_old_leftovers_are_dropped_and_counted(database: Database) -> None:
    now = 100 * HELD_MS
    name = "openmeet_as_held_events_dropped_total"
    before = REGISTRY.get_sample_value(name) or 0.0
    for room_id, at in (("!old", now - HELD_MS - 1), ("!young", now - HELD_MS)):
        held = insert(held_events).values(room_id=room_id, event_id="$1", received_at=at, body="{}")
        await database.write(execute, held)
    for at in (now - QUARANTINED_MS - 1, now - QUARANTINED_MS):
        junk = insert(quarantine).values(received_at=at, reason="x", body="null")
        await database.write(execute, junk)
    await tidy(database, now=now)
    rooms_left = await database.read(lambda c: c.execute(select(held_events.c.room_id)).scalars().all())
    assert rooms_left == ["!young"]
    assert len(await database.read(lambda c: c.execute(select(quarantine.c.id)).all())) == 1
    assert REGISTRY.get_sample_value(name) == before + 1


async def test_tidying_goes_on_after_an_outage() -> None:
    class Away(Database):
        dialect = "sqlite"
        attempts = 0

        async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            self.attempts += 1
            raise DatabaseUnavailable("gone")

        async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def close(self) -> None:
            raise NotImplementedError

    away = Away()
    slept = 0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += 1
        if slept == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_tidy(away, now=lambda: 0, sleep=sleep)
    assert away.attempts == 3


def test_the_control_rooms_name_in_the_store() -> None:
    assert event_log.CONTROL_ROOM == "control_room"

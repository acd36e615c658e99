"""Wake-ups: none is missed between looking and waiting, and they reach other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from openmeet_appservice.store import wakeups as module
from openmeet_appservice.store.database import Database, PostgreSQLDatabase
from openmeet_appservice.store.wakeups import PostgreSQLWakeups, Wakeups


async def test_a_waiter_is_woken() -> None:
    wakeups = Wakeups()
    ticket = wakeups.ticket("deliver")
    waiting = asyncio.create_task(wakeups.wait("deliver", ticket, timeout=10))
    await asyncio.sleep(0)
    wakeups.wake("reconcile")
    await asyncio.sleep(0)
    assert not waiting.done()
    wakeups.wake("deliver")
    assert await waiting


async def test_nothing_is_missed_between_the_look_and_the_wait() -> None:
    wakeups = Wakeups()
    ticket = wakeups.ticket("deliver")
    wakeups.wake("deliver")
    assert await wakeups.wait("deliver", ticket, timeout=0)
    assert not await wakeups.wait("deliver", wakeups.ticket("deliver"), timeout=0)


async def test_all_who_wait_are_woken() -> None:
    wakeups = Wakeups()
    ticket = wakeups.ticket("reconciled")
    waiting = [asyncio.create_task(wakeups.wait("reconciled", ticket, timeout=10)) for _ in range(3)]
    await asyncio.sleep(0)
    wakeups.wake("reconciled")
    assert await asyncio.gather(*waiting) == [True] * 3


@pytest.fixture
async def replicas(postgresql_url: str) -> AsyncIterator[tuple[Wakeups, Wakeups]]:
    """Two processes' wake-ups over one database of their own, both connected."""
    pair = PostgreSQLWakeups(postgresql_url), PostgreSQLWakeups(postgresql_url)
    for one in pair:
        await one.start()
    await until_heard(*pair)
    await until_heard(*reversed(pair))
    yield pair
    for one in pair:
        await one.stop()


async def until_heard(sender: Wakeups, receiver: Wakeups) -> None:
    """Wake until the other hears it; a wake-up sent while it does not listen yet is lost."""
    ticket = receiver.ticket("deliver")
    async with asyncio.timeout(20):
        sender.wake("deliver")
        while not await receiver.wait("deliver", ticket, timeout=0.1):
            sender.wake("deliver")


async def test_other_processes_are_woken(replicas: tuple[Wakeups, Wakeups]) -> None:
    here, there = replicas
    ticket = there.ticket("reconcile")
    here.wake("reconcile")
    assert await there.wait("reconcile", ticket, timeout=10)


async def test_who_wakes_is_not_woken_twice(replicas: tuple[Wakeups, Wakeups]) -> None:
    here, there = replicas
    ticket, theirs = here.ticket("reconcile"), there.ticket("reconcile")
    here.wake("reconcile")
    assert await there.wait("reconcile", theirs, timeout=10)
    # What the other sends after it heard ours comes to us after our own echo.
    answer = here.ticket("reconciled")
    there.wake("reconciled")
    assert await here.wait("reconciled", answer, timeout=10)
    assert here.ticket("reconcile") == ticket + 1


async def test_a_lost_connection_is_made_anew(
    replicas: tuple[Wakeups, Wakeups], postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT_AFTER", 0.05)
    here, there = replicas
    connection = await asyncpg.connect(postgresql_url)
    # Nothing is sent meanwhile: that they are gone has to be noticed all the same.
    ended = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    assert ended == 2
    await until_heard(here, there)
    await until_heard(there, here)


async def test_a_command_wakes_the_service_once_it_has_committed(database: Database) -> None:
    if database.dialect == "sqlite":
        await database.write(module.notify, "deliver")  # nobody can be told, and nothing is written
        return
    assert isinstance(database, PostgreSQLDatabase)
    service = PostgreSQLWakeups(
        database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    await service.start()
    try:
        async with asyncio.timeout(20):
            ticket = service.ticket("deliver")
            while not await service.wait("deliver", ticket, timeout=0.1):
                await database.write(module.notify, "deliver")
    finally:
        await service.stop()

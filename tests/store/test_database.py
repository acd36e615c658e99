"""Transactions: whole or not at all, also when the caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from openmeet_appservice import errors
from openmeet_appservice.store import schema, service
from openmeet_appservice.store.database import Database, SQLiteDatabase, open_database
from openmeet_appservice.store.filelock import FileLock


async def test_what_raises_is_rolled_back(database: Database) -> None:
    def half(connection: Connection) -> None:
        service.put(connection, "a", "1")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(half)
    assert await database.read(service.get, "a") is None


async def test_a_cancelled_caller_leaves_the_database_usable(database: Database) -> None:
    inside = threading.Event()

    def slow(connection: Connection) -> None:
        service.put(connection, "a", "1")
        inside.set()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(5)"))
        service.put(connection, "b", "1")

    task = asyncio.create_task(database.write(slow))
    while not inside.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.write(service.put, "c", "1")
    a, b = await database.read(service.get, "a"), await database.read(service.get, "b")
    assert a == b, "the cancelled transaction is neither whole nor absent"
    assert await database.read(service.get, "c") == "1"


async def test_writers_take_turns(database: Database) -> None:
    await database.write(service.put, "n", "0")

    def increment(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT value FROM service WHERE name = 'n' FOR UPDATE"))
        value = int(service.get(connection, "n") or 0)
        connection.execute(text("UPDATE service SET value = :v WHERE name = 'n'"), {"v": str(value + 1)})

    await asyncio.gather(*(database.write(increment) for _ in range(50)))
    assert await database.read(service.get, "n") == "50"


async def test_a_prompt_transaction_is_one_like_any_other(database: Database) -> None:
    await database.write_promptly(service.put, "a", "1")
    assert await database.write_promptly(service.get, "a") == "1"

    def half(connection: Connection) -> None:
        service.put(connection, "a", "2")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write_promptly(half)
    assert await database.read(service.get, "a") == "1"


async def test_the_event_loop_goes_on_while_a_prompt_transaction_takes_long(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "x.db")
    goes_on = threading.Event()

    def slow(connection: Connection) -> bool:
        return goes_on.wait(30)

    asyncio.get_running_loop().call_soon(goes_on.set)
    assert await database.write_promptly(slow)
    await database.close()


async def test_a_cancelled_prompt_transaction_leaves_the_database_usable(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    await database.write(schema.migrate)
    inside, goes_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        inside.set()
        goes_on.wait(30)
        service.put(connection, "a", "1")

    task = asyncio.create_task(database.write_promptly(slow))
    while not inside.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    assert await database.write_promptly(service.get, "a") == "1"
    await database.close()


async def test_sqlite_survives_a_power_failure(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "x.db")

    def pragmas(connection: Connection) -> tuple[int, str]:
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        return synchronous, connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()

    assert await database.write(pragmas) == (2, "wal")
    await database.close()


async def test_a_new_file_can_be_opened_by_several_at_once(tmp_path: Path) -> None:
    def make(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE IF NOT EXISTS t (a INTEGER)"))

    for number in range(30):
        databases = [SQLiteDatabase(tmp_path / f"{number}.db") for _ in range(4)]
        await asyncio.gather(*(database.write(make) for database in databases))
        for database in databases:
            await database.close()


async def test_an_unreachable_database_is_said_so(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(errors.DatabaseUnavailable, match="unable to open"):
        await database.read(service.get, "a")
    await database.close()
    database = open_database("postgresql://u:secret-word@127.0.0.1:1/x")
    with pytest.raises(errors.DatabaseUnavailable) as raised:
        await database.read(service.get, "a")
    assert "secret-word" not in str(raised.value)
    await database.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"database\.url"):
        open_database(url)


async def test_a_file_that_becomes_unusable_works_again_afterwards(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    await database.write(schema.migrate)

    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT * FROM no_such_table")

    with pytest.raises(errors.DatabaseUnavailable):
        await database.write(broken)
    await database.write(service.put, "a", "1")
    assert await database.read(service.get, "a") == "1"
    await database.close()


def test_a_second_run_on_one_file_is_refused(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "x.db"), FileLock(tmp_path / "x.db")
    first.take()
    with pytest.raises(errors.DatabaseInUse, match=r"x\.db"):
        second.take()
    first.release()
    second.take()
    second.release()

"""Results that are written together, without one spoiling the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice import errors
from openmeet_appservice.delivery.recorder import MOST_TOGETHER, Recorder
from openmeet_appservice.store import service
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import service as table


class Counting(Database):
    """Counts transactions, and may be away."""

    def __init__(self, real: Database) -> None:
        self.dialect = real.dialect
        self.real = real
        self.transactions = 0
        self.away = False

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        self.transactions += 1
        if self.away:
            raise errors.DatabaseUnavailable("away")
        return await self.real.write(do, *args, **kwargs)

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.real.read(do, *args, **kwargs)

    async def close(self) -> None:
        await self.real.close()


def put(name: str, result: bool = True, fault: Exception | None = None) -> Callable[[Connection], bool]:
    def do(connection: Connection) -> bool:
        service.put(connection, name, "x")
        if fault is not None:
            raise fault
        return result

    return do


async def names(database: Database) -> set[str]:
    return await database.read(lambda connection: set(connection.execute(select(table.c.name)).scalars()))


async def test_each_gets_its_own_result_and_few_transactions_are_needed(database: Database) -> None:
    counting = Counting(database)
    recorder = Recorder(counting)
    results = await asyncio.gather(*(recorder.write(put(f"n{n}", n % 2 == 0)) for n in range(100)))
    assert results == [n % 2 == 0 for n in range(100)]
    assert await names(database) == {f"n{n}" for n in range(100)}
    if database.dialect == "sqlite":
        assert counting.transactions == -(-100 // MOST_TOGETHER)
    assert await recorder.write(put("later"))


async def test_one_at_fault_does_not_take_the_others_with_it(database: Database) -> None:
    recorder = Recorder(database)
    results = await asyncio.gather(
        recorder.write(put("a")),
        recorder.write(put("bad", fault=ValueError("a fault of ours"))),
        recorder.write(put("c", False)),
        return_exceptions=True,
    )
    assert (results[0], results[2]) == (True, False)
    assert isinstance(results[1], ValueError)
    assert await names(database) == {"a", "c"}


async def test_all_hear_that_the_database_is_away_and_may_try_again(database: Database) -> None:
    counting = Counting(database)
    counting.away = True
    recorder = Recorder(counting)
    results = await asyncio.gather(recorder.write(put("a")), recorder.write(put("b")), return_exceptions=True)
    assert [type(result) for result in results] == [errors.DatabaseUnavailable] * 2
    counting.away = False
    assert await recorder.write(put("a"))
    assert await names(database) == {"a"}


async def test_whoever_stops_waiting_does_not_disturb_the_others(database: Database) -> None:
    recorder = Recorder(database)
    tasks = [asyncio.create_task(recorder.write(put(name))) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert (done[0], done[2]) == (True, True)
    assert isinstance(done[1], asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        tasks[1].result()

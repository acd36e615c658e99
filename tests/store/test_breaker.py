"""Whether an endpoint is called at all. On both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from openmeet_appservice.store import breaker
from openmeet_appservice.store.breaker import FAILURES, FIRST_MS, LONGEST_MS
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import endpoints

KEY = ("t1", "e")
OTHER = ("t2", "e")


@pytest.fixture
async def store(database: Database) -> Database:
    """An endpoint of each of two tenants."""
    rows = [
        {"tenant": t, "id": "e", "name": "main", "url": "", "secret": "", "revision": 1}
        | {"created_at": 0, "updated_at": 0}
        for t in ("t1", "t2")
    ]
    await database.write(lambda connection: connection.execute(insert(endpoints), rows))
    return database


async def row(store: Database, key: tuple[str, str] = KEY) -> Any:
    query = select(endpoints).where(endpoints.c.tenant == key[0])
    return await store.read(lambda connection: connection.execute(query).one())


async def callable_at(store: Database, now: int) -> list[str]:
    query = select(endpoints.c.tenant).where(breaker.in_service(), breaker.available_at() <= now)
    return await store.read(lambda connection: sorted(connection.execute(query).scalars()))


async def fail(store: Database, *rooms: str, now: int = 0, random: float = 0.5) -> list[int | None]:
    return [await store.write(breaker.failed, KEY, room, now=now, random=random) for room in rooms]


async def open_it(store: Database, now: int = 0) -> int:
    [*_, until] = await fail(store, *(f"r{n}" for n in range(FAILURES)), now=now)
    assert until is not None
    return until


async def test_failures_in_several_rooms_open_it_for_that_endpoint_alone(store: Database) -> None:
    assert await fail(store, "a", "b", "a", "b") == [None] * 4
    assert await callable_at(store, 0) == ["t1", "t2"]
    assert await fail(store, "a") == [FIRST_MS]
    assert await callable_at(store, FIRST_MS - 1) == ["t2"]
    assert await callable_at(store, FIRST_MS) == ["t1", "t2"]
    assert (await row(store, OTHER)).breaker == "closed"


async def test_one_rooms_failures_never_open_it(store: Database) -> None:
    assert await fail(store, *["a"] * 50) == [None] * 50
    assert (await row(store)).breaker == "closed"


async def test_a_success_in_between_starts_the_count_anew(store: Database) -> None:
    await fail(store, "a", "b", "c", "d")
    assert not await store.write(breaker.succeeded, KEY)
    assert await fail(store, "e", "f", "g", "h") == [None] * 4


async def test_one_probe_is_let_through_and_closes_it(store: Database) -> None:
    until = await open_it(store)
    assert not await store.write(breaker.begin_probe, KEY, now=until - 1, until=until + 10)
    probes = await asyncio.gather(
        *(store.write(breaker.begin_probe, KEY, now=until, until=until + 10) for _ in range(5))
    )
    assert sum(probes) == 1
    assert await callable_at(store, until) == ["t2"]
    assert await store.write(breaker.succeeded, KEY)
    assert not await store.write(breaker.succeeded, KEY)
    assert await callable_at(store, until) == ["t1", "t2"]


async def test_a_prober_that_died_makes_way_for_the_next(store: Database) -> None:
    until = await open_it(store)
    assert await store.write(breaker.begin_probe, KEY, now=until, until=until + 10)
    assert await store.write(breaker.begin_probe, KEY, now=until + 10, until=until + 20)


async def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_limit(store: Database) -> None:
    now, waits = await open_it(store), []
    for _ in range(8):
        assert await store.write(breaker.begin_probe, KEY, now=now, until=now + 10)
        # The same room again and again: it is the probe that failed.
        [until] = await fail(store, "r4", now=now)
        assert until is not None
        waits.append(until - now)
        now = until
    assert waits[:3] == [2 * FIRST_MS, 4 * FIRST_MS, 8 * FIRST_MS]
    assert waits[-1] == LONGEST_MS
    assert await store.write(breaker.begin_probe, KEY, now=now, until=now + 10)
    assert await store.write(breaker.succeeded, KEY)
    assert await open_it(store, now) == now + FIRST_MS


async def test_what_was_under_way_when_it_opened_changes_nothing(store: Database) -> None:
    until = await open_it(store)
    before = await row(store)
    assert await fail(store, "x", "y", now=until + 1) == [None, None]
    assert await row(store) == before


@pytest.mark.parametrize(("random", "part"), [(0.0, 0.8), (0.999999, 1.2)])
async def test_it_stays_open_a_fifth_shorter_or_longer(store: Database, random: float, part: float) -> None:
    *_, until = await fail(store, *(f"r{n}" for n in range(FAILURES)), random=random)
    assert until == FIRST_MS * part


async def test_who_asks_for_rest_gets_it(store: Database) -> None:
    await store.write(breaker.rest, KEY, until=500)
    assert await callable_at(store, 499) == ["t2"]
    assert await callable_at(store, 500) == ["t1", "t2"]


async def test_rest_and_breaker_both_have_to_end(store: Database) -> None:
    until = await open_it(store)
    await store.write(breaker.rest, KEY, until=until + 5)
    assert await callable_at(store, until + 4) == ["t2"]
    assert await callable_at(store, until + 5) == ["t1", "t2"]


async def test_disabled_once_and_not_called_until_reset(store: Database) -> None:
    assert await store.write(breaker.disable, KEY, now=7)
    assert not await store.write(breaker.disable, KEY, now=8)
    assert (await row(store)).disabled_at == 7
    assert await callable_at(store, 10**15) == ["t2"]
    await store.write(breaker.rest, KEY, until=10**14)
    await store.write(breaker.reset, KEY)
    assert await callable_at(store, 0) == ["t1", "t2"]


async def test_a_paused_endpoint_is_not_called_even_after_a_reset(store: Database) -> None:
    pause = update(endpoints).where(endpoints.c.tenant == "t1").values(paused_at=3)
    await store.write(lambda connection: connection.execute(pause))
    await store.write(breaker.reset, KEY)
    assert await callable_at(store, 10**15) == ["t2"]

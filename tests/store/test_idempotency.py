"""Idempotency keys: one of two is fresh, answers are kept a day, a dead request frees its key."""

from __future__ import annotations

import asyncio

from openmeet_appservice.store import idempotency
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.idempotency import KEPT_MS, RUNNING_MS, Answered, Key

KEY = Key("t1", "POST /v1/tenants/t1/events/" + "x" * 255 + "/messages", "k" * 255)


async def test_one_of_many_at_once_is_fresh(database: Database) -> None:
    begun = await asyncio.gather(*(database.write(idempotency.begin, KEY, "d", now=1) for _ in range(10)))
    assert sorted(str(answer) for answer in begun) == ["fresh"] + ["running"] * 9


async def test_the_answer_is_kept_for_a_day(database: Database) -> None:
    assert await database.write(idempotency.begin, KEY, "d", now=0) == "fresh"
    await database.write(idempotency.answer, KEY, Answered(201, '{"a":1}'))
    assert await database.write(idempotency.begin, KEY, "d", now=KEPT_MS - 1) == Answered(201, '{"a":1}')
    assert await database.write(idempotency.begin, KEY, "other", now=KEPT_MS - 1) == "other"
    assert await database.write(idempotency.forget, now=KEPT_MS - 1) == 0
    assert await database.write(idempotency.begin, KEY, "other", now=KEPT_MS) == "fresh"
    assert await database.write(idempotency.begin, KEY, "other", now=KEPT_MS) == "running"


async def test_old_ones_are_forgotten(database: Database) -> None:
    await database.write(idempotency.begin, KEY, "d", now=0)
    assert await database.write(idempotency.forget, now=KEPT_MS) == 1
    assert await database.write(idempotency.begin, KEY, "d", now=KEPT_MS) == "fresh"


async def test_a_secret_is_not_kept(database: Database) -> None:
    await database.write(idempotency.begin, KEY, "d", now=0)
    await database.write(idempotency.answer, KEY, Answered(201, None))
    assert await database.write(idempotency.begin, KEY, "d", now=1) == Answered(201, None)


async def test_a_refused_request_may_be_repeated(database: Database) -> None:
    await database.write(idempotency.begin, KEY, "d", now=0)
    await database.write(idempotency.end, KEY)
    assert await database.write(idempotency.begin, KEY, "other", now=1) == "fresh"


async def test_a_dead_request_frees_its_key(database: Database) -> None:
    await database.write(idempotency.begin, KEY, "d", now=0)
    assert await database.write(idempotency.begin, KEY, "d", now=RUNNING_MS - 1) == "running"
    assert await database.write(idempotency.begin, KEY, "d", now=RUNNING_MS) == "fresh"
    assert await database.write(idempotency.begin, KEY, "d", now=RUNNING_MS + 1) == "running"


async def test_keys_belong_to_a_tenant_and_a_path(database: Database) -> None:
    for key in (KEY, Key("t2", KEY.route, KEY.key), Key("t1", "POST /v1/keys", KEY.key)):
        assert await database.write(idempotency.begin, key, "d", now=0) == "fresh"

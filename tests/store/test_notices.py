"""Notices: who gets them, how they are taken and given up, on both databases."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from openmeet_appservice.domain.webhook_types import (
    DELIVERY_DEAD,
    ENDPOINT_DISABLED,
    ROOM_EVENTS,
    ROOM_READY,
    USER_READY,
)
from openmeet_appservice.store import breaker, endpoints, notices
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey
from openmeet_appservice.store.endpoint_row import Endpoint, Wanted
from openmeet_appservice.store.notices import Notice
from openmeet_appservice.store.tables import notices as table
from openmeet_appservice.store.tables import tenants

ids = itertools.count()


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(ids):04}"


@pytest.fixture
async def store(database: Database) -> Database:
    """Tenants ``T1`` and ``T2``."""

    def fill(connection: Connection) -> None:
        for tenant in ("T1", "T2"):
            connection.execute(
                insert(tenants).values(
                    tenant=tenant.lower(),
                    tenant_id=tenant,
                    name="",
                    settings="{}",
                    revision=1,
                    last_position=0,
                    created_at=0,
                    updated_at=0,
                )
            )

    await database.write(fill)
    return database


async def put(store: Database, owner: str, name: str, **wanted: Any) -> Endpoint:
    made = await store.write(
        endpoints.put,
        owner,
        name,
        Wanted("https://openmeet.example/hook", **wanted),
        secret_encrypted=None,
        fresh_secret_encrypted="fresh",
        now=5,
        new_id=new_id,
    )
    return made.endpoint


async def add(store: Database, tenant: str, type: str = ROOM_READY, **given: Any) -> int:
    given = {"now": 1000, **given}
    return await store.write(notices.add, tenant, type, {"room": {"slug": "x"}}, new_id=new_id, **given)


async def rows(store: Database) -> list[Any]:
    return await store.read(lambda c: list(c.execute(select(table).order_by(table.c.id))))


async def takers(store: Database) -> set[str]:
    return {row.endpoint_ref for row in await rows(store)}


async def take(store: Database, key: EndpointKey, *, now: int = 1000, until: int = 2000) -> Notice:
    """Lease the one due notice of the endpoint."""

    def lease(connection: Connection) -> list[Notice]:
        return notices.lease(connection, notices.due(connection, key, now=now, limit=9), until=until)

    [taken] = await store.write(lease)
    return taken


async def test_every_endpoint_that_takes_it_gets_the_same_text_under_its_own_id(store: Database) -> None:
    every = await put(store, "t1", "every")
    some = await put(store, "t1", "some", types=(USER_READY, ROOM_READY))
    await put(store, "t1", "others", types=(ROOM_EVENTS,))
    await put(store, "t2", "another-tenant")
    platform = await put(store, PLATFORM, "platform")
    theirs = await put(store, PLATFORM, "of-t1", tenants=("T1",))
    await put(store, PLATFORM, "of-t2", tenants=("T2",))
    assert await add(store, "t1") == 4
    stored = await rows(store)
    assert {row.endpoint_ref for row in stored} == {every.ref, some.ref, platform.ref, theirs.ref}
    assert len({row.id for row in stored}) == 4
    [body] = {row.body for row in stored}
    assert json.loads(body) == {
        "type": "room.ready",
        "timestamp": "1970-01-01T00:00:01.000Z",
        "data": {"tenant": "T1", "room": {"slug": "x"}},
    }


async def test_an_endpoint_can_be_left_out(store: Database) -> None:
    left_out = await put(store, "t1", "main")
    other = await put(store, "t1", "other")
    await add(store, "t1", DELIVERY_DEAD, but=left_out.key)
    assert await takers(store) == {other.ref}


async def test_what_is_about_no_tenant_is_for_the_platform_only(store: Database) -> None:
    await put(store, "t1", "main")
    first = await put(store, PLATFORM, "first")
    second = await put(store, PLATFORM, "second", tenants=("T2",))
    await add(store, PLATFORM, ENDPOINT_DISABLED)
    assert await takers(store) == {first.ref, second.ref}
    assert json.loads((await rows(store))[0].body)["data"]["tenant"] is None
    assert (await take(store, first.key)).tenant_id == ""


async def test_a_rollback_leaves_none(store: Database) -> None:
    await put(store, "t1", "main")

    def fails(connection: Connection) -> None:
        notices.add(connection, "t1", ROOM_READY, {}, now=1, new_id=new_id)
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(fails)
    assert await rows(store) == []


async def test_a_lease_is_one_worker_s_until_it_ends(store: Database) -> None:
    key = (await put(store, "t1", "main")).key
    await add(store, "t1")
    first = await take(store, key)
    assert (first.tenant_id, first.type, first.attempts) == ("T1", ROOM_READY, 0)
    assert await store.write(notices.due, key, now=1999, limit=9) == []
    second = await take(store, key, now=2000, until=3000)
    assert second == replace(first, epoch=first.epoch + 1, until=3000)
    assert not await store.write(notices.drop, first)
    assert not await store.write(notices.fail, first, retry_at=9000)
    assert not await store.write(notices.give_back, first, due_at=9000)
    assert await store.write(notices.drop, second)
    assert await rows(store) == []


async def test_what_failed_is_due_at_its_next_try(store: Database) -> None:
    key = (await put(store, "t1", "main")).key
    await add(store, "t1")
    assert await store.write(notices.fail, await take(store, key), retry_at=9000)
    assert await store.read(notices.endpoints_due, now=8999) == []
    assert await store.read(notices.next_due, now=8999) == 9000
    [due] = await store.read(notices.endpoints_due, now=9000)
    assert (due.key, due.probing) == (key, False)
    assert (await take(store, key, now=9000, until=9999)).attempts == 1


async def test_what_is_given_back_was_no_try(store: Database) -> None:
    key = (await put(store, "t1", "main")).key
    await add(store, "t1")
    assert await store.write(notices.give_back, await take(store, key), due_at=1500)
    assert (await take(store, key, now=1500, until=2000)).attempts == 0


async def test_only_what_may_be_called_is_due(store: Database) -> None:
    paused, dead = await put(store, "t1", "paused"), await put(store, "t1", "dead")
    disabled, resting = await put(store, "t1", "disabled"), await put(store, "t1", "resting")
    await add(store, "t1")
    await store.write(endpoints.pause, paused, now=10)
    await store.write(breaker.disable, disabled.key, now=10)
    await store.write(breaker.rest, resting.key, until=50_000)
    for number in range(breaker.FAILURES):
        await store.write(breaker.failed, dead.key, f"room{number}", now=10, random=0.5)
    assert await store.read(notices.endpoints_due, now=1000) == []
    found = await store.read(notices.endpoints_due, now=40_000)
    assert [(due.key, due.probing) for due in found] == [(dead.key, True)]
    assert await store.read(notices.next_due, now=1000) == 10 + breaker.FIRST_MS


async def test_a_changed_endpoint_gets_what_waits_at_once(store: Database) -> None:
    endpoint = await put(store, "t1", "main")
    await add(store, "t1")
    await store.write(notices.fail, await take(store, endpoint.key), retry_at=9000)
    await store.write(endpoints.resume, endpoint, now=1200)
    taken = await take(store, endpoint.key, now=1200, until=2200)
    assert taken.attempts == 0
    # Changed while it is under way: the failure belongs to the endpoint of before.
    await store.write(endpoints.resume, endpoint, now=1300)
    assert await store.write(notices.fail, taken, retry_at=9000)
    assert (await take(store, endpoint.key, now=1300, until=2300)).attempts == 0


async def test_nothing_waits_for_a_deleted_endpoint(store: Database) -> None:
    await put(store, "t1", "main")
    other = await put(store, "t1", "other")
    await add(store, "t1")
    await store.write(endpoints.delete, "t1", "main")
    assert await takers(store) == {other.ref}


async def test_what_an_endpoint_no_longer_takes_is_given_up(store: Database) -> None:
    await put(store, "t1", "main")
    await add(store, "t1", ROOM_READY)
    await add(store, "t1", USER_READY)
    await put(store, "t1", "main", types=(USER_READY,))
    assert [row.type for row in await rows(store)] == [USER_READY]


async def test_what_is_about_tenants_it_no_longer_serves_is_given_up(store: Database) -> None:
    await put(store, PLATFORM, "main")
    for tenant in ("t1", "t2", PLATFORM):
        await add(store, tenant)
    await put(store, PLATFORM, "main", tenants=("T2",))
    assert [row.tenant for row in await rows(store)] == ["t2", PLATFORM]


WAITED_FOR = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks "
    "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
)


async def test_one_that_is_just_being_stored_does_not_outlive_its_endpoint(store: Database) -> None:
    await put(store, "t1", "main")
    stored = asyncio.Event()

    async def delete_meanwhile() -> None:
        await stored.wait()
        await store.write(endpoints.delete, "t1", "main")

    deleting = asyncio.create_task(delete_meanwhile())
    loop = asyncio.get_running_loop()

    def add_slowly(connection: Connection) -> None:
        notices.add(connection, "t1", ROOM_READY, {}, now=1, new_id=new_id)
        loop.call_soon_threadsafe(stored.set)
        # On SQLite a transaction that writes is alone; here it stays open until the other has to wait.
        while connection.dialect.name == "postgresql" and not deleting.done():
            if connection.execute(WAITED_FOR).scalar_one():
                break
            connection.execute(text("SELECT pg_sleep(0.01)"))

    await store.write(add_slowly)
    await deleting
    assert await rows(store) == []


async def test_old_ones_expire(store: Database) -> None:
    await put(store, "t1", "main")
    await add(store, "t1", now=1000)
    await add(store, "t1", now=2000)
    assert await store.write(notices.expire, before=2000) == 1
    assert [row.created_at for row in await rows(store)] == [2000]


async def test_the_only_process_can_free_what_was_leased(store: Database) -> None:
    key = (await put(store, "t1", "main")).key
    await add(store, "t1")
    await take(store, key)
    assert await store.write(notices.release_all, now=1100) == 1
    assert await take(store, key, now=1100, until=2100)
    assert await store.read(notices.count, key) == 1

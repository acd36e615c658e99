"""Webhook endpoints, on both databases."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.store import endpoints, event_log
from openmeet_appservice.store import lanes as lane_store
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.endpoints import Put
from openmeet_appservice.store.lanes import Backlog
from openmeet_appservice.store.tables import batches, lanes, rooms, tenants

URL = "https://openmeet.example/hook"
ids = itertools.count()


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(ids):04}"


@pytest.fixture
async def store(database: Database) -> Database:
    """Tenants ``t1`` and ``t2``, each with one room."""

    def fill(connection: Connection) -> None:
        for tenant in ("t1", "t2"):
            connection.execute(
                insert(tenants).values(
                    tenant=tenant,
                    tenant_id=tenant,
                    name="",
                    settings="{}",
                    revision=1,
                    last_position=0,
                    created_at=0,
                    updated_at=0,
                )
            )
            connection.execute(
                insert(rooms).values(
                    tenant=tenant,
                    id="room",
                    entity_ref="entity",
                    state="open",
                    claim="claim",
                    lock_alias="#lock:example.org",
                    room_id=f"!{tenant}",
                    room_version="12",
                    log_id="log",
                    last_sequence=0,
                    created_at=0,
                )
            )

    await database.write(fill)
    return database


async def put(store: Database, tenant: str = "t1", name: str = "main", **values: Any) -> Put:
    given: dict[str, Any] = {"secret_encrypted": None, "fresh_secret_encrypted": "fresh", "now": 5}
    given |= {key: values.pop(key) for key in list(values) if key in given}
    wanted = Wanted(**{"url": URL, **values})
    return await store.write(endpoints.put, tenant, name, wanted, new_id=new_id, **given)


async def say(store: Database, tenant: str, *event_ids: str) -> None:
    arrivals = [read_event({"event_id": event_id, "room_id": f"!{tenant}"}) for event_id in event_ids]
    assert all(isinstance(arrival, Arrival) for arrival in arrivals)
    await store.write(event_log.append, arrivals, now=7, bot="@bot:example.org")  # type: ignore[arg-type]


async def rows(store: Database, table: Any) -> list[Any]:
    return await store.read(lambda connection: list(connection.execute(select(table))))


async def test_an_endpoint_is_made_kept_and_changed(store: Database) -> None:
    made = await put(store)
    assert made.created
    assert (made.endpoint.wanted.url, made.endpoint.secret, made.endpoint.revision) == (URL, "fresh", 1)
    same = await put(store, now=6, fresh_secret_encrypted="another")
    assert same == Put(made.endpoint, created=False)
    moved = await put(store, now=7, url=URL + "2", fresh_secret_encrypted="another")
    assert (moved.endpoint.secret, moved.endpoint.revision, moved.endpoint.ref) == (
        "fresh",
        2,
        made.endpoint.ref,
    )
    given = await put(store, now=8, url=URL + "2", secret_encrypted="given")
    assert (given.endpoint.secret, given.endpoint.revision) == ("given", 3)
    assert (given.endpoint.created_at, given.endpoint.updated_at) == (5, 8)
    assert await store.read(endpoints.get, "t1", "main") == given.endpoint


async def test_a_supplied_secret_is_used_from_the_start(store: Database) -> None:
    assert (await put(store, secret_encrypted="given")).endpoint.secret == "given"


async def test_another_tenants_endpoint_does_not_exist(store: Database) -> None:
    await put(store)
    assert await store.read(endpoints.get, "t2", "main") is None
    assert await store.read(endpoints.list_page, "t2", limit=10) == []
    assert not await store.write(endpoints.delete, "t2", "main")
    assert (await put(store, "t2")).created
    assert await store.write(endpoints.delete, "t2", "main")
    assert await store.read(endpoints.get, "t1", "main") is not None


async def test_pages_follow_the_names(store: Database) -> None:
    for name in ("c", "a", "d", "b"):
        await put(store, name=name)
    first = await store.read(endpoints.list_page, "t1", limit=3)
    assert [endpoint.name for endpoint in first] == ["a", "b", "c"]
    rest = await store.read(endpoints.list_page, "t1", limit=3, after="c")
    assert [endpoint.name for endpoint in rest] == ["d"]


async def test_deleting_takes_what_was_still_to_send(store: Database) -> None:
    await put(store)
    kept = await put(store, name="kept")
    await say(store, "t1", "$1")
    assert len(await rows(store, lanes)) == 2

    def begin_batches(connection: Connection) -> None:
        for ref in connection.execute(select(lanes.c.endpoint_ref)).scalars().all():
            connection.execute(
                insert(batches).values(
                    tenant="t1",
                    endpoint_ref=ref,
                    room_ref="room",
                    webhook_id="msg",
                    first_sequence=1,
                    last_sequence=1,
                    body="{}",
                    created_at=0,
                )
            )

    await store.write(begin_batches)
    assert len(await rows(store, batches)) == 2
    assert await store.write(endpoints.delete, "t1", "main")
    assert [row.endpoint_ref for row in await rows(store, lanes)] == [kept.endpoint.ref]
    assert [row.endpoint_ref for row in await rows(store, batches)] == [kept.endpoint.ref]
    await say(store, "t1", "$2")
    assert len(await rows(store, lanes)) == 1


async def test_a_change_makes_what_waits_due_and_nothing_else(store: Database) -> None:
    await put(store)
    await put(store, name="other")
    await say(store, "t1", "$1")

    def park(connection: Connection) -> None:
        connection.execute(lanes.update().values(due_at=None, parked_at=6, attempts=9))

    await store.write(park)
    await put(store, now=50)
    assert {row.due_at for row in await rows(store, lanes)} == {None}
    changed = (await put(store, now=50, url=URL + "2")).endpoint
    found = {row.endpoint_ref: (row.due_at, row.parked_at, row.attempts) for row in await rows(store, lanes)}
    assert found.pop(changed.ref) == (50, None, 0)
    assert list(found.values()) == [(None, 6, 9)]

    def all_taken(connection: Connection) -> None:
        connection.execute(
            lanes.update().values(acked_sequence=1, due_at=None, parked_at=None, waiting_since=None)
        )

    await store.write(all_taken)
    await put(store, now=60, url=URL + "3")
    assert {row.due_at for row in await rows(store, lanes)} == {None}


async def test_endpoints_made_while_events_come_in_miss_none_after_their_first(store: Database) -> None:
    async def speak() -> None:
        for n in range(30):
            await say(store, "t1", f"${n}")

    async def make() -> None:
        for n in range(15):
            await put(store, name=f"e{n}")

    await asyncio.gather(speak(), make())
    for lane in await rows(store, lanes):
        assert lane.due_at is not None
        assert 0 <= lane.acked_sequence < 30


async def test_two_who_make_the_same_endpoint_agree_on_its_secret(store: Database) -> None:
    made = await asyncio.gather(*(put(store, fresh_secret_encrypted=f"fresh{n}") for n in range(4)))
    assert sum(one.created for one in made) == 1
    assert len({one.endpoint.secret for one in made}) == 1


async def test_narrowing_to_some_tenants_keeps_what_waits_of_them(store: Database) -> None:
    await put(store, tenant="", name="platform")
    await say(store, "t1", "$1")
    await say(store, "t2", "$2")
    await put(store, tenant="", name="platform", tenants=("T2",), now=8)
    assert [row.tenant for row in await rows(store, lanes)] == ["t2"]
    await say(store, "t1", "$3")
    assert [row.tenant for row in await rows(store, lanes)] == ["t2"]
    # Taken again, it begins with the next event.
    await put(store, tenant="", name="platform", now=9)
    await say(store, "t1", "$4")
    assert {row.tenant: row.acked_sequence for row in await rows(store, lanes)} == {"t1": 2, "t2": 0}


WAITED_FOR = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks "
    "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
)


@pytest.mark.parametrize("how", ["removed", "narrowed"])
async def test_an_event_that_is_just_being_stored_leaves_no_lane_behind(store: Database, how: str) -> None:
    await put(store, tenant="", name="platform")

    async def give_up() -> None:
        if how == "removed":
            await store.write(endpoints.delete, "", "platform")
        else:
            await put(store, tenant="", name="platform", tenants=("t2",), now=8)

    stored = asyncio.Event()

    async def give_up_meanwhile() -> None:
        await stored.wait()
        await give_up()

    giving_up = asyncio.create_task(give_up_meanwhile())
    loop = asyncio.get_running_loop()

    def append(connection: Connection) -> None:
        event = read_event({"event_id": "$1", "room_id": "!t1"})
        assert isinstance(event, Arrival)
        event_log.append(connection, [event], now=7, bot="@bot:example.org")
        loop.call_soon_threadsafe(stored.set)
        # On SQLite a transaction that writes is alone; here it stays open until the other has to wait.
        while connection.dialect.name == "postgresql" and not giving_up.done():
            if connection.execute(WAITED_FOR).scalar_one():
                break
            connection.execute(text("SELECT pg_sleep(0.01)"))

    await store.write(append)
    await giving_up
    assert await rows(store, lanes) == []
    assert await store.read(lane_store.backlog) == Backlog(waiting=0, parked=0, oldest=None)


async def test_a_new_secret_by_put_ends_the_overlap_and_an_overlap_that_ended_is_forgotten(
    store: Database,
) -> None:
    async def rotated(until: int) -> None:
        found = await store.read(endpoints.get, "t1", "main")
        assert found is not None
        await store.write(endpoints.rotate_secret, found, secret_encrypted="second", old_until=until, now=6)

    async def old() -> tuple[str | None, int | None]:
        found = await store.read(endpoints.get, "t1", "main")
        assert found is not None
        return found.old_secret, found.old_secret_until

    await put(store)
    await rotated(100)
    assert await old() == ("fresh", 100)
    await put(store, now=7, url=URL + "2")
    assert await old() == ("fresh", 100)
    await put(store, now=8, url=URL + "2", secret_encrypted="third")
    assert await old() == (None, None)
    await rotated(100)
    assert await store.write(endpoints.forget_old_secrets, now=99) == 0
    assert await old() == ("third", 100)
    assert await store.write(endpoints.forget_old_secrets, now=100) == 1
    assert await old() == (None, None)

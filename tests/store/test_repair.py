"""Which rooms are due, who holds them, what is added: on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy import event as sqlalchemy_event

from openmeet_appservice.domain import history
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.store import event_log, ids, repair
from openmeet_appservice.store import rooms as room_store
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.repair import Checked, Mended
from openmeet_appservice.store.tables import endpoints, lanes, room_events, rooms, tenants

NOW = 1_790_000_000_000
LEASE = 180_000
BOT = "@bot:hs.test"


def add_tenant(connection: Connection, tenant: str) -> None:
    values = {"name": tenant, "settings": "{}", "revision": 1, "created_at": 0, "updated_at": 0}
    connection.execute(insert(tenants).values(tenant=tenant, tenant_id=tenant, last_position=0, **values))


def add_room(connection: Connection, name: str, tenant: str = "t1", **more: Any) -> None:
    values = {
        "entity_ref": f"entity-{name}",
        "state": "open",
        "claim": f"claim-{name}",
        "lock_alias": f"#{name}:hs.test",
        "room_id": f"!{name}",
        "log_id": f"log-{name}",
        "last_sequence": 0,
        "created_at": 0,
    }
    connection.execute(insert(rooms).values(tenant=tenant, id=name, **values | more))


@pytest.fixture
async def store(database: Database) -> Database:
    """Two tenants, one room each."""

    def fill(connection: Connection) -> None:
        for tenant in ("t1", "t2"):
            add_tenant(connection, tenant)
        add_room(connection, "a", checked_at=NOW - 10)
        add_room(connection, "b", "t2", checked_at=NOW - 20)

    await database.write(fill)
    return database


async def due(store: Database, since: int, now: int = NOW, limit: int = 10) -> list[str]:
    found = await store.read(repair.due, since=since, now=now, limit=limit)
    return [ref for _, ref in found.rooms]


async def claim(store: Database, *names: str, since: int = NOW, now: int = NOW) -> list[Checked]:
    keys = [("t2" if name == "b" else "t1", name) for name in names]
    return await store.write(repair.claim, keys, since=since, now=now, lease=LEASE)


async def test_a_suspicion_only_grows(store: Database) -> None:
    for at in (NOW, NOW - 5, 99, NOW + 3):
        await store.write(repair.suspect, at)
    assert (await store.read(repair.due, since=0, now=0, limit=1)).suspicion == NOW + 3


async def test_what_was_looked_at_before_the_suspicion_is_due(store: Database) -> None:
    assert await due(store, NOW - 20) == []
    assert await due(store, NOW - 15) == ["b"]
    assert sorted(await due(store, NOW)) == ["a", "b"]
    assert len(await due(store, NOW, limit=1)) == 1


async def test_a_room_just_claimed_need_not_be_looked_at(store: Database) -> None:
    made = await store.write(
        room_store.claim, "t1", "e", claim="c", lock_alias="#l", now=NOW, new_id=ids.new_id
    )
    await store.write(event_log.record_room_id, "t1", made.ref, "!new", "12", now=NOW, bot=BOT)
    assert made.ref not in await due(store, NOW)
    assert made.ref in await due(store, NOW + 1)


async def test_a_room_is_held_by_one(store: Database) -> None:
    [room] = await claim(store, "a")
    assert (room.room_id, room.point, room.until, room.rests) == ("!a", None, NOW + LEASE, False)
    assert await claim(store, "a") == []
    assert await due(store, NOW) == ["b"]
    assert (await store.read(repair.due, since=0, now=NOW, limit=1)).next_at == NOW + LEASE
    # Whoever held it has died.
    assert await due(store, 0, now=NOW + LEASE) == ["a"]
    [again] = await claim(store, "a", since=0, now=NOW + LEASE)
    assert again.until == NOW + 2 * LEASE


async def test_only_what_is_due_is_taken(store: Database) -> None:
    assert await claim(store, "a", "b", since=NOW - 20) == []
    assert [room.ref for room in await claim(store, "a", "b", since=NOW - 15)] == ["b"]


async def test_every_lease_ends_when_we_are_alone(store: Database) -> None:
    await claim(store, "a", "b")
    await store.write(repair.release_all, now=NOW + 5)
    assert sorted(await due(store, 0, now=NOW + 5)) == ["a", "b"]


async def test_turns(store: Database) -> None:
    async def turn(now: int) -> tuple[str | None, int]:
        taken = await store.write(repair.take_turn, now=now, gap=1000, lease=LEASE)
        return (None if taken.room is None else taken.room.ref), taken.next_at - NOW

    # A new installation waits once before the first.
    assert await turn(NOW) == (None, 1000)
    assert await turn(NOW + 999) == (None, 1000)
    assert await turn(NOW + 1000) == ("b", 2000)
    assert await turn(NOW + 1000) == (None, 2000)
    assert await turn(NOW + 5000) == ("a", 6000)
    # Both are held.
    assert await turn(NOW + 6000) == (None, 7000)
    # A clock that goes back stops nothing.
    assert await turn(NOW - 9000) == (None, -8000)


def arrivals(*names: str) -> list[Arrival]:
    found = [read_event({"event_id": name, "room_id": "!a", "unsigned": {"age": 10**6}}) for name in names]
    return [one for one in found if isinstance(one, Arrival)]


async def mend(store: Database, room: Checked, *names: str, **more: Any) -> Mended | None:
    given: dict[str, Any] = {"ends": True, "began": NOW, "now": NOW + 7, "lease": LEASE, "grace": 30_000}
    walk = history.from_point(room.point)
    return await store.write(repair.mend, room, walk, arrivals(*names), bot=BOT, **given | more)


async def row(store: Database, name: str = "a") -> Any:
    return await store.read(lambda c: c.execute(select(rooms).where(rooms.c.id == name)).one())


async def test_what_is_added_goes_the_ordinary_way(store: Database) -> None:
    await store.write(
        lambda c: c.execute(
            insert(endpoints).values(
                tenant="t1", id="e", name="e", url="", secret="", revision=1, created_at=0, updated_at=0
            )
        )
    )
    await store.write(event_log.append, arrivals("$2"), now=NOW, bot=BOT)
    await store.write(lambda c: c.execute(update(lanes).values(due_at=None, acked_sequence=1)))
    [room] = await claim(store, "a")
    mended = await mend(store, room, "$1", "$2", "$3")
    assert mended is not None
    assert mended.appended.stored.total() == 2
    query = select(room_events.c.event_id, room_events.c.sequence, room_events.c.repaired_after)
    found = await store.read(lambda c: c.execute(query.order_by(room_events.c.sequence)).all())
    assert [tuple(each) for each in found] == [("$2", 1, None), ("$1", 2, ""), ("$3", 3, "$2")]
    assert (await store.read(lambda c: c.execute(select(lanes.c.due_at)).scalar_one())) == NOW + 7
    after = await row(store)
    assert (after.complete_event_id, after.checked_at, after.check_lease_until) == ("$3", NOW, None)
    assert (after.last_sequence, after.last_event_at) == (3, NOW + 7)


async def test_a_page_that_is_not_the_last_holds_the_room_on(store: Database) -> None:
    [room] = await claim(store, "a")
    mended = await mend(store, room, "$1", ends=False)
    assert mended is not None
    assert (await row(store)).check_lease_until == mended.room.until == NOW + 7 + LEASE
    assert (await row(store)).complete_event_id == "$1"
    # Under the former lease nothing happens any more.
    assert await mend(store, room, "$2") is None
    assert await mend(store, mended.room, "$3") is not None
    ids_in_log = select(room_events.c.event_id).order_by(room_events.c.sequence)
    assert await store.read(lambda c: c.execute(ids_in_log).scalars().all()) == ["$1", "$3"]


async def test_a_tenant_that_is_gone(store: Database) -> None:
    [room] = await claim(store, "a")
    await store.write(lambda c: c.execute(tenants.delete().where(tenants.c.tenant == "t1")))
    assert await mend(store, room, "$1") is None


async def test_how_it_stands(store: Database) -> None:
    assert await store.read(repair.standing) == repair.Standing(2, NOW - 20, 0)
    await store.write(lambda c: add_room(c, "new", checked_at=0, created_at=NOW - 50))
    await store.write(lambda c: add_room(c, "former", state="former", room_id="!f"))
    await store.write(lambda c: add_room(c, "rests", checked_at=None))
    [room] = await claim(store, "a")
    await store.write(repair.give_up, room, "M_FORBIDDEN" * 20, at=NOW)
    assert await store.read(repair.standing) == repair.Standing(3, NOW - 50, 1)
    assert await store.read(repair.count) == 3


async def test_every_question_has_its_index(store: Database) -> None:
    """With many rooms that rest, neither a poll nor a turn reads them all."""
    if store.dialect != "sqlite":
        pytest.skip("PostgreSQL chooses by how many rows there are")
    asked: list[tuple[str, Any]] = []

    def note(connection: Connection) -> list[str]:
        def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            asked.append((statement, parameters))

        sqlalchemy_event.listen(connection, "before_cursor_execute", before)
        try:
            repair.due(connection, since=NOW, now=NOW, limit=1)
            repair.due(connection, since=NOW, now=NOW, limit=9)
            repair.count(connection)
            repair.standing(connection)
            repair.take_turn(connection, now=NOW, gap=0, lease=1)
            repair.take_turn(connection, now=NOW, gap=0, lease=1)
        finally:
            sqlalchemy_event.remove(connection, "before_cursor_execute", before)
        about_rooms = [each for each in asked if "FROM rooms" in each[0] and each[0].startswith("SELECT")]
        assert len(about_rooms) >= 7
        return [
            str(connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters).all())
            for statement, parameters in about_rooms
        ]

    for plan in await store.write(note):
        assert "INDEX ix_rooms_check" in plan, plan

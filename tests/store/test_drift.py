"""What others change in a room makes its entity due, in the transaction that stores the event."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select

from openmeet_appservice.domain.arrival import Arrival, read_transaction
from openmeet_appservice.store import event_log, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.event_log import SETTLE_MS, Appended
from openmeet_appservice.store.sync import SyncStatus
from openmeet_appservice.store.tables import rooms, tenants, users

BOT = "@openmeet-bot:hs.test"
PUPPET = "@openmeet_t1_ada:hs.test"
HOST = "@host:hs.test"
NOW = 10_000


@pytest.fixture
async def world(database: Database) -> Database:
    """Two rooms whose entities Synapse agrees with, and a former room of the second."""

    def fill(connection: Connection) -> None:
        connection.execute(
            insert(tenants).values(
                tenant="t1",
                tenant_id="t1",
                name="t1",
                settings="{}",
                revision=1,
                last_position=0,
                created_at=0,
                updated_at=0,
            )
        )
        for ref, entity, state in (("a", "e1", "open"), ("b", "e2", "open"), ("old", "e2", "former")):
            connection.execute(
                insert(rooms).values(
                    tenant="t1",
                    id=ref,
                    entity_ref=entity,
                    state=state,
                    claim=ref,
                    lock_alias=f"#{ref}:hs.test",
                    room_id=f"!{ref}",
                    room_version="12",
                    log_id=ref,
                    last_sequence=0,
                    created_at=0,
                )
            )
        connection.execute(
            insert(users).values(
                tenant="t1",
                id="ada",
                slug="ada",
                slug_key="ada",
                placeholder=False,
                spec="{}",
                revision=1,
                user_id=PUPPET,
                created_at=0,
                updated_at=0,
            )
        )
        for ref in ("e1", "e2"):
            sync.touch(connection, "t1", "entity", ref, now=0)
        for lease in sync.claim_due(connection, now=1, lease=1000, limit=2):
            sync.finish(connection, lease, observed=1)

    await database.write(fill)
    return database


def state(event_id: str, kind: str, room_id: str = "!a", sender: str = HOST, **more: Any) -> dict[str, Any]:
    plain = {"event_id": event_id, "room_id": room_id, "type": kind, "sender": sender, "state_key": ""}
    return {**plain, "content": {}, **more}


def message(event_id: str, room_id: str = "!a") -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": "hello"}
    plain = {"event_id": event_id, "room_id": room_id, "type": "m.room.message", "sender": HOST}
    return {**plain, "content": content}


def read(*events: dict[str, Any]) -> list[Arrival]:
    transaction = read_transaction(json.dumps({"events": events}).encode())
    assert transaction is not None
    return [element for element in transaction.elements if isinstance(element, Arrival)]


async def push(database: Database, *events: dict[str, Any], now: int = NOW) -> Appended:
    return await database.write(event_log.append, read(*events), now=now, bot=BOT)


async def status(database: Database, ref: str) -> SyncStatus:
    found = await database.read(sync.status, "t1", "entity", ref)
    assert found is not None
    return found


async def test_a_renamed_room_is_due_soon(world: Database) -> None:
    done = await push(world, state("$1", "m.room.name"))
    assert done.drifted == {("t1", "e1")}
    assert done.drift == {"name": 1}
    assert (await status(world, "e1")).due_at == NOW + SETTLE_MS
    assert (await status(world, "e1")).generation == 1
    assert (await status(world, "e2")).due_at is None


async def test_many_changes_of_one_room_are_one_comparison(world: Database) -> None:
    await push(world, state("$1", "m.room.name"), state("$2", "m.room.topic"))
    await push(world, state("$3", "m.room.name"), now=NOW + 500)
    assert (await status(world, "e1")).due_at == NOW + SETTLE_MS


async def test_what_we_write_makes_nothing_due(world: Database) -> None:
    own = state("$2", "m.room.member", sender=PUPPET, state_key=PUPPET, content={"membership": "join"})
    done = await push(world, state("$1", "m.room.name", sender=BOT), own, message("$3"))
    assert done.stored.total() == 3
    assert not done.drifted
    assert (await status(world, "e1")).due_at is None


async def test_a_puppet_that_leaves_by_itself_is_noticed(world: Database) -> None:
    left = state("$1", "m.room.member", sender=PUPPET, state_key=PUPPET, content={"membership": "leave"})
    assert (await push(world, left)).drift == {"members": 1}
    assert (await status(world, "e1")).due_at == NOW + SETTLE_MS


async def test_a_repeated_event_is_noticed_once(world: Database) -> None:
    await push(world, state("$1", "m.room.name"))
    lease = (await world.write(sync.claim_due, now=NOW * 2, lease=1000, limit=1))[0]
    await world.write(sync.finish, lease, observed=1)
    assert not (await push(world, state("$1", "m.room.name"), now=NOW * 3)).drifted
    assert (await status(world, "e1")).due_at is None


async def test_a_room_that_is_history_concerns_nobody(world: Database) -> None:
    done = await push(world, state("$1", "m.room.name", room_id="!old"))
    assert done.stored.total() == 1
    assert not done.drifted
    assert (await status(world, "e2")).due_at is None


async def test_a_change_during_the_comparison_is_compared_again(world: Database) -> None:
    await world.write(sync.poke, "t1", "entity", "e1", now=NOW)
    [lease] = await world.write(sync.claim_due, now=NOW, lease=30_000, limit=1)
    await push(world, state("$1", "m.room.name"), now=NOW + 10)
    assert await world.write(sync.claim_due, now=NOW + 20, lease=1000, limit=1) == []
    await world.write(sync.finish, lease, observed=1)
    assert (await status(world, "e1")).due_at == NOW + 10 + SETTLE_MS


async def test_a_change_shortly_before_the_lease_ends_is_compared_again(world: Database) -> None:
    await world.write(sync.poke, "t1", "entity", "e1", now=NOW)
    [lease] = await world.write(sync.claim_due, now=NOW, lease=SETTLE_MS // 2, limit=1)
    await push(world, state("$1", "m.room.name"), now=NOW + 10)
    await world.write(sync.finish, lease, observed=1)
    assert (await status(world, "e1")).due_at == NOW + 10 + SETTLE_MS


async def test_what_is_due_before_stays_so(world: Database) -> None:
    await world.write(sync.poke, "t1", "entity", "e1", now=NOW - 5)
    await push(world, state("$1", "m.room.name"))
    assert (await status(world, "e1")).due_at == NOW - 5


async def test_an_ordinary_message_costs_no_statement_more(world: Database) -> None:
    spoken = await _statements(world, read(message("$1")))
    renamed = await _statements(world, read(state("$2", "m.room.name")))
    by_us = await _statements(world, read(state("$3", "m.room.name", sender=BOT)))
    assert not any("sync" in statement for statement in spoken + by_us)
    assert len(spoken) <= len(by_us)
    assert len(renamed) == len(by_us) + 1


async def _statements(database: Database, arrivals: list[Arrival]) -> list[str]:
    """Append, and return the text of every statement that was run."""

    def counted(connection: Connection) -> list[str]:
        seen: list[str] = []
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.set_trace_callback(seen.append)
            try:
                event_log.append(connection, arrivals, now=NOW, bot=BOT)
            finally:
                driver.set_trace_callback(None)
            return seen

        def before(_: object, __: object, statement: str, *___: object) -> None:
            seen.append(statement)

        listener: Callable[..., None] = before
        event.listen(connection, "before_cursor_execute", listener)
        try:
            event_log.append(connection, arrivals, now=NOW, bot=BOT)
        finally:
            event.remove(connection, "before_cursor_execute", listener)
        return seen

    return await database.write(counted)


async def test_nothing_is_due_where_the_events_could_not_be_stored(world: Database) -> None:
    def fail(connection: Connection) -> None:
        event_log.append(connection, read(state("$1", "m.room.name")), now=NOW, bot=BOT)
        raise LookupError("the process dies here")

    with pytest.raises(LookupError):
        await world.write(fail)
    stored = select(rooms.c.last_sequence).where(rooms.c.id == "a")
    assert await world.read(lambda connection: connection.execute(stored).scalar_one()) == 0
    assert (await status(world, "e1")).due_at is None

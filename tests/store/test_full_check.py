"""Who is compared in turn: everyone with a room once, in order, whoever asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from openmeet_appservice.store import full_check, sync
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.full_check import Standing, Turn
from openmeet_appservice.store.tables import entities, rooms, service
from openmeet_appservice.store.tables import sync as sync_table

GAP = 100


def add(connection: Connection, ref: str, *, made: int, room: str | None = "open", **more: Any) -> None:
    """Add an event of ``t1`` that Synapse agrees with."""
    connection.execute(
        insert(entities).values(
            tenant="t1",
            id=ref,
            kind="event",
            slug=ref,
            slug_key=ref,
            alias=f"#{ref}:hs.test",
            spec="{}",
            revision=1,
            members_revision=1,
            removals_confirmed=0,
            created_at=0,
            updated_at=0,
            **more,
        )
    )
    if room is not None:
        connection.execute(
            insert(rooms).values(
                tenant="t1",
                id=f"room-{ref}",
                entity_ref=ref,
                state=room,
                claim=ref,
                lock_alias=f"#{ref}:hs.test",
                room_id=f"!{ref}",
                log_id=ref,
                last_sequence=0,
                created_at=0,
            )
        )
    sync.touch(connection, "t1", "entity", ref, now=made)
    [lease] = sync.claim_due(connection, now=made, lease=1, limit=1)
    sync.finish(connection, lease, observed=1)


@pytest.fixture
async def world(database: Database) -> Database:
    """Three events with rooms, made at 1, 2 and 3; and a user, of whom no turn is taken."""

    def fill(connection: Connection) -> None:
        for number in (1, 2, 3):
            add(connection, f"e{number}", made=number)
        sync.touch(connection, "t1", "user", "ada", now=0)
        [lease] = sync.claim_due(connection, now=1, lease=1, limit=1)
        sync.finish(connection, lease, observed=1)
        connection.execute(insert(service).values(name=full_check.TURN, value="0"))

    await database.write(fill)
    return database


async def turn(database: Database, now: int, gap: int = GAP) -> Turn:
    return await database.write(full_check.take_turn, now=now, gap=gap)


async def due(database: Database) -> set[str]:
    """Return what is due."""
    query = select(sync_table.c.ref).where(sync_table.c.due_at.is_not(None))
    return await database.read(lambda connection: set(connection.execute(query).scalars()))


async def done(database: Database, now: int) -> list[str]:
    """Work on what is due, and return it."""

    def work(connection: Connection) -> list[str]:
        leases = sync.claim_due(connection, now=now, lease=10, limit=10)
        for lease in leases:
            sync.finish(connection, lease, observed=lease.generation)
        return [lease.ref for lease in leases]

    return await database.write(work)


async def test_each_has_its_turn_once_in_a_round(world: Database) -> None:
    seen = []
    for number in range(1, 7):
        assert (await turn(world, number * GAP)).taken
        seen += await done(world, number * GAP)
    assert seen == ["e1", "e2", "e3"] * 2


async def test_who_waits_longest_is_first(world: Database) -> None:
    def wait(connection: Connection) -> None:
        connection.execute(update(sync_table).where(sync_table.c.ref == "e1").values(compared_at=50))
        connection.execute(update(sync_table).where(sync_table.c.ref == "e3").values(compared_at=0))

    await world.write(wait)
    await turn(world, GAP)
    assert await due(world) == {"e3"}


async def test_no_turn_comes_before_its_time(world: Database) -> None:
    assert await turn(world, GAP) == Turn(True, 2 * GAP)
    assert await turn(world, 2 * GAP - 1) == Turn(False, 2 * GAP)
    assert await due(world) == {"e1"}
    assert await turn(world, 2 * GAP) == Turn(True, 3 * GAP)
    assert await due(world) == {"e1", "e2"}


async def test_the_first_turn_is_not_taken_at_the_first_start(database: Database) -> None:
    assert await turn(database, 5000) == Turn(False, 5000 + GAP)
    assert await turn(database, 5000 + GAP) == Turn(False, 5000 + 2 * GAP), "and nobody is there yet"


async def test_a_clock_that_was_put_back_stops_nothing(world: Database) -> None:
    await turn(world, 1_000_000)
    assert (await turn(world, GAP)).next_at == 2 * GAP


async def test_a_turn_survives_a_restart(world: Database) -> None:
    await turn(world, GAP)
    # The process dies here; the next one finds it due.
    assert await done(world, GAP + 1) == ["e1"]


async def test_replicas_take_each_turn_once(migrated_url: str, world: Database) -> None:
    replicas = [open_database(migrated_url) for _ in range(3)] if "postgresql" in migrated_url else [world]
    try:
        turns = await asyncio.gather(*(turn(one, GAP) for one in replicas for _ in range(4)))
    finally:
        for one in replicas:
            if one is not world:
                await one.close()
    assert sum(one.taken for one in turns) == 1
    assert await due(world) == {"e1"}


async def test_what_has_no_room_is_passed_over_and_the_archived_rest(world: Database) -> None:
    def more(connection: Connection) -> None:
        connection.execute(update(sync_table).values(compared_at=sync_table.c.compared_at + 50))
        add(connection, "archived", made=1, archived_at=1)
        add(connection, "draft", made=2, room=None)
        add(connection, "former", made=3, room="former")
        add(connection, "claimed", made=4, room="claimed")

    await world.write(more)
    assert (await world.read(full_check.standing)).entities == 7
    assert (await turn(world, GAP)).taken
    assert await due(world) == {"e1"}
    assert await world.read(full_check.standing) == Standing(6, 52)


async def test_what_is_worked_on_is_compared_once_more(world: Database) -> None:
    await world.write(sync.poke, "t1", "entity", "e1", now=GAP)
    [lease] = await world.write(sync.claim_due, now=GAP, lease=1000, limit=1)
    await turn(world, GAP + 1)
    await world.write(sync.finish, lease, observed=1)
    assert await due(world) == {"e1"}


async def test_nothing_takes_turns_in_an_empty_database(database: Database) -> None:
    assert await database.read(full_check.standing) == Standing(0, None)

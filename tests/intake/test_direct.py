"""Direct rooms as Synapse tells of them: who may claim one, what is ours in it, and who reads its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from openmeet_appservice.store import repair
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import held_events, room_events
from openmeet_appservice.store.tables import rooms as rooms_table

from .repairing import ADA, Stage

BOB = "@openmeet_t1_bob:hs.test"
EVE = "@openmeet_t1_eve:hs.test"
STRANGER = "@mallory:elsewhere.test"


@pytest.fixture
async def stage(database: Database, rows: Any) -> AsyncIterator[Stage]:
    await database.write(rows.tenant)
    stage = Stage(database, rows)
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)


def _create(event_id: str, room_id: str, sender: str, claim: str = "c1") -> dict[str, Any]:
    return {
        "event_id": event_id,
        "room_id": room_id,
        "type": "m.room.create",
        "state_key": "",
        "sender": sender,
        "content": {"net.openmeet.claim": claim, "room_version": "12"},
    }


@pytest.mark.parametrize("maker", [ADA, BOB])
async def test_a_claim_counts_in_a_room_that_one_of_the_two_made(intake: Any, rows: Any, maker: str) -> None:
    def fill(connection: Any) -> None:
        rows.pair(connection, "ada~bob", ADA, BOB)
        rows.user(connection, EVE)
        rows.room(connection, "new", None, state="claimed", entity="ada~bob", claim="c1")

    await intake.database.write(fill)
    for number, other in enumerate((EVE, STRANGER)):
        await intake.push(f"o{number}", _create(f"$of{number}", f"!of{number}", other))
    assert await intake.logged() == []
    await intake.push("1", _create("$create", "!pair", maker))
    recorded = select(rooms_table.c.room_id).where(rooms_table.c.id == "new")
    assert await intake.database.read(lambda c: c.execute(recorded).scalar_one()) == "!pair"
    assert await intake.logged() == ["$create"]
    orphans = select(rooms_table.c.id).where(rooms_table.c.state == "orphan")
    assert await intake.database.read(lambda c: c.execute(orphans).all()) == []
    held = select(held_events.c.room_id).order_by(held_events.c.id)
    assert await intake.database.read(lambda c: list(c.execute(held).scalars())) == ["!of0", "!of1"]


async def test_a_puppet_s_claim_is_none_in_an_event_s_room(intake: Any, rows: Any) -> None:
    def fill(connection: Any) -> None:
        rows.pair(connection, "ada~bob", ADA, BOB)
        rows.entity(connection, "e1", "#e1:hs.test", "{}")
        rows.room(connection, "new", None, state="claimed", entity="e1", claim="c1")

    await intake.database.write(fill)
    await intake.push("1", _create("$create", "!new", ADA))
    assert await intake.logged() == []


async def test_what_a_puppet_sets_up_is_this_service_s_doing(intake: Any, rows: Any) -> None:
    def fill(connection: Any) -> None:
        rows.pair(connection, "ada~bob", ADA, BOB)
        rows.room(connection, "pair", "!pair", entity="ada~bob")

    await intake.database.write(fill)

    def event(event_id: str, sender: str, kind: str, **more: Any) -> dict[str, Any]:
        plain = {"event_id": event_id, "room_id": "!pair", "sender": sender, "type": kind, "content": {}}
        return {**plain, **more}

    await intake.push(
        "1",
        event("$create", ADA, "m.room.create", state_key=""),
        event("$invite", ADA, "m.room.member", state_key=BOB, content={"membership": "invite"}),
        event("$said", ADA, "m.room.message"),
        event("$name", STRANGER, "m.room.name", state_key=""),
    )
    query = select(room_events.c.event_id, room_events.c.origin)
    found = await intake.database.read(lambda c: {row.event_id: row.origin for row in c.execute(query)})
    assert found == {"$create": "openmeet", "$invite": "openmeet", "$said": "matrix", "$name": "matrix"}


async def _make(stage: Stage) -> None:
    await stage.database.write(stage.rows.pair, "entity-of-a", ADA, BOB)
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$lost")


async def test_gap_repair_reads_a_direct_room_as_a_puppet_that_is_inside(stage: Stage) -> None:
    await _make(stage)
    stage.synapse.readers["!a"] = {ADA, BOB}
    stage.synapse.left = {ADA}
    await stage.check("a")
    assert await stage.repaired("a") == {"$lost": "$1"}
    assert stage.synapse.asked == {"joined_members": 1, "messages": 1}
    assert (await stage.row("a")).check_error is None


async def test_a_direct_room_that_was_left_is_read_up_to_its_end(stage: Stage) -> None:
    """The last to leave sees the most."""
    await _make(stage)
    stage.synapse.readers["!a"] = {BOB}
    stage.synapse.left = {ADA, BOB}
    await stage.check("a")
    assert await stage.repaired("a") == {"$lost": "$1"}
    assert (await stage.database.read(repair.standing)).unreadable == 0


async def test_other_rooms_are_the_bot_s(stage: Stage) -> None:
    await stage.room("a", "$1")
    assert not (await stage.claim("a")).direct
    await stage.database.write(stage.rows.pair, "entity-of-b", ADA, BOB)
    await stage.room("b", "$2")
    assert (await stage.claim("b")).direct

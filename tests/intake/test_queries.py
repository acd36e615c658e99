"""What the homeserver asks: whether there is such a user, such a room."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, func, select, update

from openmeet_appservice.store import sync
from openmeet_appservice.store.sync import SyncError
from openmeet_appservice.store.tables import entities, rooms, tenants

BASE = "/_matrix/app/v1"
BOT = "@openmeet-bot:hs.test"
ALIAS = "#event-e1-t1:hs.test"


async def ask(intake: Any, kind: str, name: str) -> tuple[int, str | None]:
    """Ask about *name*; return the status and the errcode."""
    status, body = await intake.request("GET", f"{BASE}/{kind}/{quote(name, safe='')}")
    if status == 200:
        assert body == {}
    return status, body.get("errcode")


def spec(**more: Any) -> str:
    return json.dumps({"name": "E", "visibility": "public", "status": "published"} | more)


async def everything(intake: Any) -> list[Any]:
    """How many rows there are, and what is due."""

    def read(connection: Connection) -> list[Any]:
        counts = [
            connection.execute(select(func.count()).select_from(table)).scalar()
            for table in (entities, rooms, tenants)
        ]
        return [*counts, sync.outlook(connection, now=0).pending, sync.next_due(connection, now=0)]

    return await intake.database.read(read)  # type: ignore[no-any-return]


async def test_users(intake: Any, rows: Any) -> None:
    await intake.database.write(rows.user, "@openmeet_t1_ada/x:hs.test")
    assert await ask(intake, "users", "@openmeet_t1_ada/x:hs.test") == (200, None)
    assert await ask(intake, "users", BOT) == (200, None)
    for unknown in ("@openmeet_t1_bob:hs.test", "@ada:other.test", "ada", "@\0:hs.test", "%", "@ÿ:hs.test"):
        assert await ask(intake, "users", unknown) == (404, "M_NOT_FOUND")


async def test_broken_percent_encoding(intake: Any) -> None:
    for kind in ("users", "rooms"):
        status, body = await intake.request("GET", f"{BASE}/{kind}/%FF%FE%ED%A0%80")
        assert (status, body["errcode"]) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    "alias",
    [
        "#event-unknown-t1:hs.test",
        "#event-e1-t9:hs.test",
        "#event-e1-t1:other.test",
        "#event-e1-t1:hs.test:8448",
        "#event-e1-t1",
        "#:hs.test",
        "event-e1-t1:hs.test",
        "#",
        "%",
        "#a\0b:hs.test",
        "#" + "x" * 300 + ":hs.test",
        # Matrix tells aliases apart by case, and ours are lower-case.
        "#EVENT-E1-T1:hs.test",
        "#event-e1-t1:HS.test",
        "#_openmeet_control:hs.test",
    ],
)
async def test_aliases_that_lead_nowhere(intake: Any, rows: Any, alias: str) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    before = await everything(intake)
    assert await ask(intake, "rooms", alias) == (404, "M_NOT_FOUND")
    assert await everything(intake) == before
    assert intake.wakeups.ticket("reconcile") == 0


async def test_a_room_that_is_there(intake: Any, rows: Any) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    await intake.database.write(rows.room, "r", "!r", entity="e1", alias=ALIAS)
    assert await ask(intake, "rooms", ALIAS) == (200, None)
    assert intake.wakeups.ticket("reconcile") == 0


@pytest.mark.parametrize(
    "more",
    [
        {"status": "draft"},
        {"status": "pending"},
        {"visibility": "private"},
        {"visibility": "private", "status": "draft"},
    ],
)
async def test_what_must_not_be_found_is_not_waited_for(
    intake: Any, rows: Any, start_intake: Any, more: dict[str, str]
) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec(**more))
    patient = await start_intake(intake.database, alias_wait_seconds=3600.0)
    assert await ask(patient, "rooms", ALIAS) == (404, "M_NOT_FOUND")
    assert patient.wakeups.ticket("reconcile") == 0


async def test_an_archived_entity_is_none(intake: Any, rows: Any, start_intake: Any) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    await intake.database.write(rows.room, "r", "!r", entity="e1", alias=ALIAS)
    archive = update(entities).values(archived_at=1)
    await intake.database.write(lambda connection: connection.execute(archive))
    patient = await start_intake(intake.database, alias_wait_seconds=3600.0)
    assert await ask(patient, "rooms", ALIAS) == (404, "M_NOT_FOUND")


async def reconcile_once(intake: Any, rows: Any) -> int:
    """Do what the reconciler does: wait for a wake-up, make the room, say so. Return how many were due."""
    ticket = 0
    assert await intake.wakeups.wait("reconcile", ticket, timeout=10)

    def make(connection: Connection) -> int:
        leases = sync.claim_due(connection, now=1_790_000_000_000, lease=1000, limit=10)
        for lease in leases:
            rows.room(connection, f"room-{lease.ref}", f"!{lease.ref}", entity=lease.ref, alias=ALIAS)
            sync.finish(connection, lease, observed=lease.generation)
        return len(leases)

    made: int = await intake.database.write(make)
    intake.wakeups.wake("reconciled")
    return made


@pytest.mark.parametrize("status", ["published", "cancelled"])
@pytest.mark.parametrize("private", [False, True])
async def test_a_wanted_room_is_made_first(
    intake: Any, rows: Any, start_intake: Any, status: str, private: bool
) -> None:
    visibility = "private" if private else "unlisted"
    await intake.database.write(rows.entity, "e1", ALIAS, spec(status=status, visibility=visibility))
    own = update(tenants).values(settings=json.dumps({"rooms": {"private_alias": private}}))
    await intake.database.write(lambda connection: connection.execute(own))
    patient = await start_intake(intake.database, alias_wait_seconds=10.0)
    answers = await asyncio.gather(
        ask(patient, "rooms", ALIAS), ask(patient, "rooms", ALIAS), reconcile_once(patient, rows)
    )
    assert [*answers] == [(200, None), (200, None), 1]


async def test_a_room_that_does_not_come_is_waited_for_no_longer_than_said(
    intake: Any, rows: Any, start_intake: Any
) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    hasty = await start_intake(intake.database, alias_wait_seconds=0.05)
    assert await ask(hasty, "rooms", ALIAS) == (404, "M_NOT_FOUND")
    assert hasty.wakeups.ticket("reconcile") == 1


async def test_an_idle_entity_is_compared_again(intake: Any, rows: Any, start_intake: Any) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    [lease] = await intake.database.write(sync.claim_due, now=1, lease=1000, limit=10)
    await intake.database.write(sync.finish, lease, observed=1)
    patient = await start_intake(intake.database, alias_wait_seconds=10.0)
    answers = await asyncio.gather(ask(patient, "rooms", ALIAS), reconcile_once(patient, rows))
    assert [*answers] == [(200, None), 1]


async def test_strangers_cannot_hurry_what_failed(intake: Any, rows: Any, start_intake: Any) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec())
    [lease] = await intake.database.write(sync.claim_due, now=1, lease=1000, limit=10)
    far = 1_790_000_300_000
    await intake.database.write(sync.fail, lease, SyncError("x", "", 0), retry_at=far)
    hasty = await start_intake(intake.database, alias_wait_seconds=0.05)
    assert await ask(hasty, "rooms", ALIAS) == (404, "M_NOT_FOUND")
    status = await intake.database.read(sync.status, "t1", "entity", "e1")
    assert (status.due_at, status.attempts) == (far, 1)


async def test_a_room_that_has_another_alias_still_is_not_there(intake: Any, rows: Any) -> None:
    await intake.database.write(rows.entity, "e1", ALIAS, spec(visibility="private"))
    await intake.database.write(rows.room, "r", "!r", entity="e1", alias=None)
    assert await ask(intake, "rooms", ALIAS) == (404, "M_NOT_FOUND")

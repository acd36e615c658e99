"""Invitations of puppets as Synapse pushes them: noted with the acknowledgement, once, by strangers only."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.store import invitations, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import invitations as table
from openmeet_appservice.store.tables import sync as sync_table

ADA, BOB = "@openmeet_t1_ada:hs.test", "@openmeet_t1_bob:hs.test"
PAUL = "@paul:hs.test"
BOT = "@openmeet-bot:hs.test"


def invite(event_id: str, target: str = ADA, sender: str = PAUL, **content: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "room_id": "!theirs",
        "type": "m.room.member",
        "state_key": target,
        "sender": sender,
        "content": {"membership": "invite", **content},
    }


@pytest.fixture
async def intake(database: Database, rows: Any, start_intake: Any) -> Any:
    """The listener, with two puppets and an entity's known room."""

    def fill(connection: Connection) -> None:
        rows.tenant(connection)
        rows.user(connection, ADA)
        rows.user(connection, BOB)
        rows.room(connection, "known", "!known")

    await database.write(fill)
    return await start_intake(database)


async def noted(database: Database) -> list[tuple[Any, ...]]:
    query = select(table.c.user_ref, table.c.room_id, table.c.inviter, table.c.direct)
    return await database.read(lambda c: [tuple(row) for row in c.execute(query)])


async def due(database: Database) -> list[str]:
    query = select(sync_table.c.ref).where(sync_table.c.subject == "invite", sync_table.c.due_at.is_not(None))
    return await database.read(lambda c: list(c.execute(query).scalars()))


@pytest.mark.parametrize(("content", "direct"), [({"is_direct": True}, True), ({}, False)])
async def test_an_invitation_is_noted_and_the_reconciler_woken(
    intake: Any, content: dict[str, Any], direct: bool
) -> None:
    ticket = intake.wakeups.ticket("reconcile")
    assert await intake.push("1", invite("$1", **content)) == (200, {})
    assert await noted(intake.database) == [(ADA, "!theirs", PAUL, direct)]
    assert len(await due(intake.database)) == 1
    assert intake.wakeups.ticket("reconcile") > ticket


async def test_what_comes_again_is_noted_once(intake: Any) -> None:
    await intake.push("1", invite("$1"), invite("$1"))
    await intake.push("2", invite("$1"))
    await intake.push("3", invite("$again"))
    [ref] = await due(intake.database)
    await intake.database.write(invitations.forget, "t1", ref)
    assert await due(intake.database) == []
    # Answered, it comes again after a restart of Synapse: no reason to answer it twice.
    await intake.push("1", invite("$1"))
    assert await noted(intake.database) == []
    await intake.push("4", invite("$another"))
    assert len(await noted(intake.database)) == 1


@pytest.mark.parametrize(
    "event",
    [
        invite("$1", target="@nobody:hs.test"),
        invite("$1", target=BOT),
        invite("$1", sender=BOT),
        invite("$1", sender=BOB),
        {**invite("$1"), "room_id": "!known"},
        {**invite("$1"), "content": {"membership": "join"}},
        {**invite("$1"), "content": {"membership": ["invite"]}},
        {**invite("$1"), "content": None},
        {**invite("$1"), "state_key": 3},
        {**invite("$1"), "type": "m.room.name"},
    ],
)
async def test_what_is_no_invitation_by_a_stranger(intake: Any, event: dict[str, Any]) -> None:
    assert await intake.push("1", event) == (200, {})
    assert await noted(intake.database) == []


async def test_whatever_the_inviter_claims_to_be_called(intake: Any) -> None:
    for number, sender in enumerate(("@" + "x" * 300, 7, None, "@a\0b:c")):
        odd = {**invite(f"${number}"), "room_id": f"!r{number}", "sender": sender}
        assert await intake.push(str(number), odd) == (200, {})
    assert len(await noted(intake.database)) == 4


async def test_it_is_noted_with_the_acknowledgement_or_not_at_all(
    intake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that fails, Synapse keeps the transaction; nothing of it is stored."""

    def fail(*args: Any, **kwargs: Any) -> int:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(invitations, "note", fail)
        status, _ = await intake.push("1", invite("$1"))
        assert status == 503
    assert await intake.push("1", invite("$1")) == (200, {})
    assert len(await noted(intake.database)) == 1


async def test_results_that_come_after_it_was_answered_change_nothing(intake: Any) -> None:
    await intake.push("1", invite("$1"))
    [lease] = await intake.database.write(sync.claim_due, now=1_790_000_000_001, lease=1000, limit=5)
    assert (lease.subject, lease.tenant) == ("invite", "t1")
    await intake.database.write(invitations.forget, "t1", lease.ref)
    assert await intake.database.write(sync.finish, lease, observed=0) is None
    assert await due(intake.database) == []

"""Gap repair of one room: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from openmeet_appservice.errors import (
    DatabaseUnavailable,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.store import repair
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import room_events

from .repairing import ADA, BOT, FORBIDDEN, START, Breaking, Forwarding, Stage, no_wait


@pytest.fixture
async def stage(database: Database, rows: Any) -> AsyncIterator[Stage]:
    await database.write(rows.tenant)
    stage = Stage(database, rows)
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)


async def test_a_complete_room_costs_one_request(stage: Stage) -> None:
    await stage.room("a", "$1", "$2")
    await stage.check("a")
    assert stage.synapse.asked == {"messages": 1}
    row = await stage.row("a")
    assert (row.complete_event_id, row.checked_at, row.check_lease_until) == ("$2", START, None)
    stage.synapse.says("!a", *(f"${number}" for number in range(3, 20)))
    await stage.push("!a", *(f"${number}" for number in range(3, 20)))
    await stage.check("a")
    assert stage.synapse.asked == {"messages": 2}
    assert await stage.repaired("a") == {}
    assert stage.added == 0


async def test_what_is_missing_is_added_in_order(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2", "$3", "$4")
    await stage.push("!a", "$3")
    await stage.check("a")
    assert await stage.log("a") == [("$a", None), ("$1", None), ("$3", None), ("$2", "$1"), ("$4", "$3")]
    assert (await stage.row("a")).complete_event_id == "$4"
    assert stage.added == 1
    [line] = [record.message for record in caplog.records]
    assert line == "!a: gap repair added 2 events that Synapse did not push (1 requests)"
    # What Synapse brings after all is known.
    await stage.push("!a", "$2", "$4")
    assert len(await stage.log("a")) == 5


async def test_a_history_of_which_nothing_is_known_begins_with_its_first_event(stage: Stage) -> None:
    await stage.database.write(stage.rows.room, "a", "!a")
    stage.synapse.says("!a", "$create", type="m.room.create", sender=BOT)
    stage.synapse.says("!a", "$1")
    await stage.check("a")
    assert await stage.log("a") == [("$create", ""), ("$1", "$create")]


async def test_many_pages(stage: Stage) -> None:
    await stage.room("a", "$before")
    await stage.check("a")
    lost = [f"${number}" for number in range(250)]
    stage.synapse.says("!a", *lost)
    await stage.push("!a", "$120")
    await stage.check("a")
    # One that does not reach back far enough, the place of the point, three pages and the end.
    assert stage.synapse.asked == {"messages": 1 + 1 + 4, "context": 1}
    repaired = await stage.repaired("a")
    assert list(repaired) == [each for each in lost if each != "$120"]
    assert (repaired["$0"], repaired["$121"]) == ("$before", "$120")
    assert (await stage.row("a")).complete_event_id == "$249"


async def test_a_room_never_looked_at_is_walked_from_its_beginning(stage: Stage) -> None:
    await stage.room("a")
    lost = [f"${number}" for number in range(150)]
    stage.synapse.says("!a", *lost)
    await stage.check("a")
    assert list(await stage.repaired("a")) == lost
    assert "context" not in stage.synapse.asked


async def test_killed_between_two_pages(stage: Stage) -> None:
    """Also where the database took a page and its answer was lost: nothing twice, nothing left out."""
    await stage.room("a")
    lost = [f"${number}" for number in range(250)]
    stage.synapse.says("!a", *lost)
    for failing in range(1, 3):
        room = await stage.claim("a")
        breaking = Breaking(stage.database, after=failing % 2)
        with pytest.raises(DatabaseUnavailable):
            await stage.checker(breaking).check(room, no_wait)
        # Nobody gives the room back: its lease has to end.
        assert (await stage.row("a")).check_lease_until is not None
        stage.clock += 200_000
        due = await stage.database.read(repair.due, since=0, now=stage.clock, limit=5)
        assert due.rooms == [("t1", "a")]
    await stage.check("a")
    assert list(await stage.repaired("a")) == lost
    assert list((await stage.repaired("a")).values()) == ["$a", *lost[:-1]]


async def test_what_is_young_may_be_on_its_way(stage: Stage) -> None:
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2", age=29_999)
    stage.synapse.says("!a", "$3", age=10)
    await stage.check("a")
    assert await stage.repaired("a") == {}
    row = await stage.row("a")
    assert (row.complete_event_id, row.checked_at) == ("$1", 0)
    # It is due again by itself, not before.
    for wait, due in ((29_999, []), (1, [("t1", "a")])):
        stage.clock += wait
        found = await stage.database.read(repair.due, since=0, now=stage.clock, limit=5)
        assert found.rooms == due
    await stage.push("!a", "$2")
    await stage.check("a")
    assert await stage.repaired("a") == {"$3": "$2"}
    assert (await stage.row("a")).complete_event_id == "$3"


async def test_what_was_overtaken_is_not_on_its_way(stage: Stage) -> None:
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2", "$3", age=10)
    await stage.push("!a", "$3")
    await stage.check("a")
    assert await stage.repaired("a") == {"$2": "$1"}
    row = await stage.row("a")
    # Behind what is young something may still come in.
    assert (row.complete_event_id, row.checked_at) == ("$1", START)


@pytest.mark.parametrize("length", [5, 150])
async def test_where_the_point_is_gone_nothing_older_than_the_log_is_added(stage: Stage, length: int) -> None:
    await stage.room("a")
    await stage.check("a")
    # The log's beginning was dropped on purpose, and the homeserver restored from an older copy.
    names = [f"${number}" for number in range(length)]
    stage.synapse.rooms["!a"] = []
    stage.synapse.says("!a", *names)
    await stage.push("!a", names[-3])
    await stage.check("a")
    assert await stage.repaired("a") == {names[-2]: names[-3], names[-1]: names[-2]}
    assert (await stage.row("a")).complete_event_id == names[-1]


async def test_where_the_log_knows_nothing_nothing_is_added(stage: Stage) -> None:
    await stage.room("a")
    await stage.check("a")
    stage.synapse.rooms["!a"] = []
    stage.synapse.says("!a", "$1", "$2")
    await stage.check("a")
    assert await stage.repaired("a") == {}
    assert (await stage.row("a")).complete_event_id == "$2"


async def test_nothing_behind_the_point_is_looked_at(stage: Stage) -> None:
    await stage.room("a", "$1", "$2", "$3")
    await stage.check("a")
    await stage.database.write(
        lambda c: c.execute(room_events.delete().where(room_events.c.event_id == "$1"))
    )
    await stage.check("a")
    query = select(room_events.c.event_id).where(room_events.c.room_ref == "a")
    assert "$1" not in await stage.database.read(lambda c: c.execute(query).scalars().all())


async def test_what_is_pushed_meanwhile_is_not_repaired(stage: Stage) -> None:
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2", "$3")
    room = await stage.claim("a")
    pushed = asyncio.Event()

    class Late(Forwarding):
        async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            if do is repair.mend and not pushed.is_set():
                pushed.set()
                await stage.push("!a", "$2")
            return await self.inner.write(do, *args, **kwargs)

    await stage.checker(Late(stage.database)).check(room, no_wait)
    assert await stage.repaired("a") == {"$3": "$2"}


async def test_a_lease_that_was_lost_changes_nothing(stage: Stage) -> None:
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2")
    late = await stage.claim("a")
    stage.clock += 200_000
    held = await stage.claim("a")
    await stage.checker().check(late, no_wait)
    assert await stage.repaired("a") == {}
    assert (await stage.row("a")).check_lease_until == held.until
    await stage.checker().check(held, no_wait)
    assert await stage.repaired("a") == {"$2": "$1"}


async def test_origins_are_those_of_what_is_pushed(stage: Stage) -> None:
    await stage.room("a")
    await stage.database.write(stage.rows.user, ADA)
    stage.synapse.says("!a", "$bot", sender=BOT, type="m.room.name", state_key="")
    stage.synapse.says("!a", "$join", sender=ADA, type="m.room.member", state_key=ADA)
    stage.synapse.says("!a", "$ada", "$other", sender=ADA)
    await stage.check("a")
    query = select(room_events.c.event_id, room_events.c.origin)
    found = dict(await stage.database.read(lambda c: c.execute(query).all()))
    assert found == {
        "$a": "matrix",
        "$bot": "openmeet",
        "$join": "openmeet",
        "$ada": "matrix",
        "$other": "matrix",
    }


async def test_as_a_puppet_where_the_bot_is_not_inside(stage: Stage) -> None:
    await stage.room("a", "$1")
    await stage.database.write(stage.rows.user, ADA)
    stage.synapse.says("!a", *(f"$x{number}" for number in range(30)))
    stage.synapse.readers["!a"] = {ADA}
    await stage.check("a")
    assert len(await stage.repaired("a")) == 30


@pytest.mark.parametrize("error", [FORBIDDEN, HomeserverRefused(404, "M_NOT_FOUND", "?")])
async def test_a_room_that_nobody_can_read(stage: Stage, error: HomeserverRefused) -> None:
    await stage.room("a", "$1")
    stage.synapse.readers["!a"] = set()
    stage.synapse.errors["!a"] = error
    await stage.check("a")
    row = await stage.row("a")
    assert (row.check_error, row.checked_at, row.check_lease_until) == (error.errcode, START, None)
    assert (await stage.database.read(repair.standing)).unreadable == 1
    stage.synapse.errors.clear()
    del stage.synapse.readers["!a"]
    await stage.check("a")
    assert (await stage.row("a")).check_error is None


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (HomeserverRefused(500, "M_UNKNOWN", "x"), 600_000),
        (HomeserverLimited("M_LIMIT_EXCEEDED", "x", 7.0), 7_000),
        (HomeserverUnreachable("no answer within 60 s"), 600_000),
    ],
)
async def test_a_room_that_fails_is_left_alone_for_a_while(stage: Stage, error: Exception, wait: int) -> None:
    await stage.room("a", "$1")
    stage.synapse.errors["!a"] = error
    await stage.check("a")
    row = await stage.row("a")
    # Unknown is not complete.
    assert (row.checked_at, row.check_lease_until) == (0, START + wait)


async def test_strange_answers_are_passed_over(stage: Stage) -> None:
    await stage.room("a", "$1")
    stage.synapse.says("!a", "$2")
    stage.synapse.rooms["!a"].append({"event_id": "$foreign", "room_id": "!b", "at": START})
    stage.synapse.rooms["!a"].append({"event_id": 7, "at": START})
    await stage.check("a")
    assert await stage.repaired("a") == {"$2": "$1"}

"""Gap repair against a stand-in homeserver: nothing lost, nothing twice, nothing asked without need."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Connection, insert, select, update

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.errors import (
    DatabaseUnavailable,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import Homeserver, MessagesPage
from openmeet_appservice.intake.gap_repair import GapRepair, RepairSettings
from openmeet_appservice.intake.pace import Pace
from openmeet_appservice.intake.room_check import RoomCheck
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.store import event_log, repair
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.repair import Checked
from openmeet_appservice.store.tables import entities, room_events, rooms

BOT = "@openmeet-bot:hs.test"
ADA = "@openmeet_t1_ada:hs.test"
START = 1_790_000_000_000
HOUR = 3_600_000
FORBIDDEN = HomeserverRefused(403, "M_FORBIDDEN", "not inside")
AWAY = HomeserverUnreachable("ClientConnectorError")


@dataclass(slots=True)
class Synapse:
    """Rooms with their histories, the oldest event first; tokens are places in them."""

    now: Callable[[], int]
    rooms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    readers: dict[str, set[str]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    is_away: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    before_answer: Callable[[str], None] | None = None

    def says(self, room_id: str, *names: str, age: int = HOUR, **more: Any) -> None:
        """Let something happen in a room."""
        for name in names:
            element = {"type": "m.room.message", "sender": "@x:hs.test", "content": {"body": name}, **more}
            self.rooms.setdefault(room_id, []).append(
                {"event_id": name, "room_id": room_id, "at": self.now() - age, **element}
            )

    def event(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return an event as it is told now."""
        return {**stored, "unsigned": {"age": self.now() - stored["at"]}}

    def _ask(self, operation: str, room_id: str = "", reader: str | None = None) -> None:
        self.asked[operation] += 1
        if self.before_answer is not None:
            self.before_answer(operation)
        if self.is_away:
            raise AWAY
        if room_id in self.errors:
            raise self.errors[room_id]
        if operation in ("messages", "context") and (reader or BOT) not in self.readers.get(room_id, {BOT}):
            raise FORBIDDEN

    async def whoami(self) -> str:
        self._ask("whoami")
        return BOT

    async def joined_members(self, room_id: str) -> set[str]:
        self._ask("joined_members")
        return self.readers[room_id] | {"@other:hs.test"}

    async def messages(
        self, room_id: str, *, from_: str | None, direction: str, limit: int, as_user: str | None
    ) -> MessagesPage:
        self.order.append(room_id)
        self._ask("messages", room_id, as_user)
        events = self.rooms.get(room_id, [])
        place = int(from_) if from_ is not None else (len(events) if direction == "b" else 0)
        if direction == "b":
            chunk, end = events[max(0, place - limit) : place][::-1], max(0, place - limit)
        else:
            chunk, end = events[place : place + limit], min(len(events), place + limit)
        return MessagesPage(
            [self.event(one) for one in chunk], str(place), None if end == place else str(end)
        )

    async def token_behind(self, room_id: str, event_id: str, as_user: str | None) -> str:
        self._ask("context", room_id, as_user)
        ids = [one["event_id"] for one in self.rooms[room_id]]
        if event_id not in ids:
            raise HomeserverRefused(404, "M_NOT_FOUND", "no such event")
        return str(ids.index(event_id) + 1)


class Stage:
    """A tenant with rooms, their homeserver, and time that only waiting moves."""

    def __init__(self, database: Database, rows: Any) -> None:
        self.database = database
        self.rows = rows
        self.clock = START
        self.sleeps: list[float] = []
        self.synapse = Synapse(lambda: self.clock)
        self.suspicion = Suspicion()
        self.announced = True
        self.tasks: list[asyncio.Task[None]] = []
        self.added = 0

    async def room(self, name: str, *known: str, **values: Any) -> None:
        """Make the room ``!name`` of an entity of its own, and its history, all of which was pushed."""
        await self.database.write(self.rows.room, name, f"!{name}")
        await self.change(name, {"checked_at": 0, **values})
        self.synapse.says(f"!{name}", "$" + name, type="m.room.create")
        self.synapse.says(f"!{name}", *known)
        await self.push(f"!{name}", "$" + name, *known)

    async def change(self, name: str, values: dict[str, Any]) -> None:
        """Change the room's row."""
        changed = update(rooms).where(rooms.c.id == name).values(values)
        await self.database.write(lambda connection: connection.execute(changed))

    async def push(self, room_id: str, *names: str) -> None:
        """Have Synapse push these events of the room."""
        found = [one for one in self.synapse.rooms[room_id] if one["event_id"] in names]
        arrivals = [read_event(self.synapse.event(one)) for one in found]
        assert all(isinstance(each, Arrival) for each in arrivals)
        await self.database.write(event_log.append, cast(list[Arrival], arrivals), now=self.clock, bot=BOT)

    async def log(self, name: str) -> list[tuple[str, str | None]]:
        """What the room's log holds: event ids in the order of their sequence, and what was repaired."""
        query = (
            select(room_events.c.event_id, room_events.c.repaired_after, room_events.c.sequence)
            .where(room_events.c.tenant == "t1", room_events.c.room_ref == name)
            .order_by(room_events.c.sequence)
        )
        found = await self.database.read(lambda c: c.execute(query).all())
        assert [row.sequence for row in found] == list(range(1, len(found) + 1))
        return [(row.event_id, row.repaired_after) for row in found]

    async def repaired(self, name: str) -> dict[str, str]:
        """What was added to the room's log, in its order, and behind what it belongs."""
        return {event_id: after for event_id, after in await self.log(name) if after is not None}

    async def row(self, name: str) -> Any:
        """The room's row."""
        query = select(rooms).where(rooms.c.id == name)
        return await self.database.read(lambda c: c.execute(query).one())

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.clock += int(seconds * 1000)
        await asyncio.sleep(0)

    def checker(self, database: Database | None = None, **more: Any) -> RoomCheck:
        def added() -> None:
            self.added += 1

        homeserver = cast(Homeserver, self.synapse)
        return RoomCheck(homeserver, database or self.database, BOT, added, lambda: self.clock, **more)

    def repairer(self, database: Database | None = None, **settings: Any) -> GapRepair:
        given = {"max_age": 24 * HOUR, "poll": 0.01, **settings}
        return GapRepair(
            cast(Homeserver, self.synapse),
            database or self.database,
            self.checker(database),
            self.suspicion,
            RepairSettings(**given),
            has_announced=lambda: self.announced,
            now=lambda: self.clock,
            monotonic=lambda: self.clock / 1000,
            sleep=self.sleep,
        )

    def start(self, database: Database | None = None, **settings: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(self.repairer(database, **settings).run())
        self.tasks.append(task)
        return task

    async def claim(self, name: str) -> Checked:
        [room] = await self.database.write(
            repair.claim, [("t1", name)], since=self.clock + 1, now=self.clock, lease=180_000
        )
        return room

    async def check(self, name: str, **more: Any) -> None:
        """Look at one room."""
        await self.checker(**more).check(await self.claim(name), no_wait)

    async def until_at_rest(self) -> None:
        """Wait until no room is due any more, or held."""
        since = 0
        async with asyncio.timeout(30):
            while True:
                due = await self.database.read(repair.due, since=since, now=self.clock, limit=1)
                if since and since == due.suspicion and not due.rooms and due.next_at is None:
                    return
                since = due.suspicion
                await asyncio.sleep(0.005)


async def no_wait() -> None:
    """Let requests follow one another at once."""


@pytest.fixture
async def stage(database: Database, rows: Any) -> AsyncIterator[Stage]:
    await database.write(rows.tenant)
    stage = Stage(database, rows)
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)


# -- one room


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


# -- all rooms


async def test_a_start_is_a_suspicion_and_then_nothing_is_asked(stage: Stage) -> None:
    for number in range(40):
        await stage.room(f"r{number}", last_event_at=number)
    stage.synapse.says("!r3", "$lost")
    stage.start()
    await stage.until_at_rest()
    assert await stage.repaired("r3") == {"$lost": "$r3"}
    asked = stage.synapse.asked.copy()
    assert asked == {"whoami": 1, "messages": 40}
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert stage.synapse.asked == asked


async def test_the_most_active_rooms_come_first(stage: Stage) -> None:
    for number in (2, 4, 1, 3):
        await stage.room(f"r{number}")
        at = {"last_event_at": None if number == 1 else number}
        await stage.change(f"r{number}", at)
    stage.start(at_once=1)
    await stage.until_at_rest()
    assert stage.synapse.order == ["!r4", "!r3", "!r2", "!r1"]


async def test_the_pace(stage: Stage) -> None:
    for number in range(50):
        await stage.room(f"r{number}")
    stage.start()
    await stage.until_at_rest()
    took = stage.clock - START
    # Fifty rooms at twenty a second, after three seconds of patience.
    assert 3_000 + 2_300 <= took <= 3_000 + 3_000


async def test_turns_are_spread_over_the_time_there_is(stage: Stage) -> None:
    for number in range(3):
        await stage.room(f"r{number}")
    one = stage.repairer()
    stage.suspicion.suspect("start")
    for _ in range(3):
        await one._step()
    assert stage.synapse.asked["messages"] == 3
    stage.synapse.says("!r1", "$lost")
    stage.synapse.order.clear()
    moments = []
    for _ in range(12):
        before = len(stage.synapse.order)
        stage.clock += 2 * HOUR
        await one._step()
        await one._step()
        moments.append(len(stage.synapse.order) - before)
    # Every six hours one of three rooms; each within eighteen.
    assert moments == [0, 0, 1] * 4
    assert set(stage.synapse.order[:3]) == {"!r0", "!r1", "!r2"}
    assert stage.synapse.order[3] == stage.synapse.order[0]
    assert await stage.repaired("r1") == {"$lost": "$r1"}


async def test_synapse_away(stage: Stage) -> None:
    """No room counts as looked at, and Synapse is not asked all the time."""
    for number in range(3):
        await stage.room(f"r{number}")
    stage.synapse.is_away = True
    stage.start()
    async with asyncio.timeout(20):
        while stage.synapse.asked["whoami"] < 8:
            await asyncio.sleep(0.001)
    assert stage.sleeps[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert stage.synapse.asked["messages"] == 0
    stage.synapse.is_away = False
    await stage.until_at_rest()
    assert stage.synapse.asked["messages"] == 3


async def test_synapse_going_away_in_the_midst(stage: Stage) -> None:
    for number in range(30):
        await stage.room(f"r{number}")

    def goes(operation: str) -> None:
        if stage.synapse.asked["messages"] == 10:
            stage.synapse.is_away = True
        if stage.synapse.asked["whoami"] == 12:
            stage.synapse.is_away = False

    stage.synapse.before_answer = goes
    stage.start()
    await stage.until_at_rest()
    # All of them after it was back: in the outage more may have been lost.
    assert set(stage.synapse.order[-30:]) == {f"!r{number}" for number in range(30)}
    assert all([(await stage.row(f"r{number}")).checked_at > START for number in range(30)])


async def test_it_waits_until_synapse_has_caught_up(stage: Stage) -> None:
    await stage.room("a")
    stage.announced = False
    late = 0

    def pushes() -> None:
        nonlocal late
        late += 1
        if late < 5:
            stage.suspicion.transaction("x", [cast(Arrival, read_event(OLD))])
        stage.announced = late >= 7

    sleep = stage.sleep

    async def watched(seconds: float) -> None:
        pushes()
        await sleep(seconds)

    stage.sleep = watched  # type: ignore[method-assign]
    stage.start()
    await stage.until_at_rest()
    assert stage.sleeps[:7] == [3.0] * 7
    assert stage.synapse.asked["messages"] == 1


OLD = {"event_id": "$old", "room_id": "!r", "unsigned": {"age": 60_000}}


async def test_a_suspicion_that_keeps_coming_back_is_looked_into_more_and_more_seldom(stage: Stage) -> None:
    await stage.room("a")
    stage.start(calm=10_000.0)
    for _ in range(9):
        await stage.until_at_rest()
        await stage.database.read(lambda c: None)
        seen = stage.synapse.asked["messages"]
        stage.clock += 1
        stage.suspicion.suspect("homeserver")
        async with asyncio.timeout(20):
            while stage.synapse.asked["messages"] == seen:
                await asyncio.sleep(0.001)
    pauses = [each for each in stage.sleeps if each not in (3.0,) and each >= 5]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]


async def test_a_suspicion_survives_a_crash(stage: Stage) -> None:
    await stage.room("a")
    await stage.check("a")
    stage.clock += 1
    stage.synapse.is_away = True
    task = stage.start()
    async with asyncio.timeout(20):
        while not (await stage.database.read(repair.due, since=0, now=stage.clock, limit=1)).suspicion:
            await asyncio.sleep(0.001)
    task.cancel()
    due = await stage.database.read(repair.due, since=stage.clock, now=stage.clock, limit=1)
    assert START < due.suspicion <= stage.clock
    assert due.rooms == [("t1", "a")]


async def test_another_replica_looks_into_it(stage: Stage) -> None:
    await stage.room("a")
    stage.start()
    await stage.until_at_rest()
    stage.synapse.says("!a", "$lost")
    stage.clock += 60_000
    # Somebody else's suspicion, of which this process hears from the database only.
    await stage.database.write(repair.suspect, stage.clock)
    async with asyncio.timeout(20):
        while not await stage.repaired("a"):
            await asyncio.sleep(0.005)


async def test_a_replica_that_died_leaves_its_room_to_others(stage: Stage) -> None:
    await stage.room("a")
    stage.start()
    await stage.until_at_rest()
    stage.synapse.says("!a", "$lost")
    stage.clock += 1
    await stage.claim("a")
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert await stage.repaired("a") == {}
    stage.clock += 180_000
    async with asyncio.timeout(20):
        while not await stage.repaired("a"):
            await asyncio.sleep(0.005)


async def test_two_replicas_share_the_rooms(stage: Stage, migrated_url: str) -> None:
    if stage.database.dialect == "sqlite":
        pytest.skip("one process only")
    for number in range(30):
        await stage.room(f"r{number}")
        stage.synapse.says(f"!r{number}", f"$lost{number}")
    other = open_database(migrated_url)
    try:
        stage.clock += 1
        await stage.database.write(repair.suspect, stage.clock)
        keys = [("t1", f"r{number}") for number in range(30)]

        async def work(database: Database) -> int:
            taken = await database.write(
                repair.claim, keys, since=stage.clock, now=stage.clock, lease=180_000
            )
            for room in taken:
                await stage.checker(database).check(room, no_wait)
            return len(taken)

        assert sum(await asyncio.gather(work(stage.database), work(other), work(other))) == 30
        assert stage.synapse.asked["messages"] == 30
        stage.start()
        stage.start(other)
        stage.synapse.says("!r7", "$more")
        stage.clock += 1
        stage.suspicion.suspect("start")
        async with asyncio.timeout(30):
            while "$more" not in await stage.repaired("r7"):
                await asyncio.sleep(0.005)
        await stage.until_at_rest()
        for number in range(30):
            assert next(iter(await stage.repaired(f"r{number}"))) == f"$lost{number}"
    finally:
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        stage.tasks.clear()
        await other.close()


async def test_one_bad_room_stops_no_other(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        await stage.room(name)
    stage.synapse.errors["!a"] = KeyError("a fault of ours")
    stage.synapse.says("!b", "$lost")
    stage.start()
    async with asyncio.timeout(20):
        while not await stage.repaired("b") or (await stage.row("a")).check_lease_until is None:
            await asyncio.sleep(0.005)
    assert "!a could not be looked at" in caplog.text


async def test_the_database_away(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await stage.room("a")
    stage.synapse.says("!a", "$lost")
    stage.start(Breaking(stage.database, failures=7))
    async with asyncio.timeout(30):
        while not await stage.repaired("a"):
            stage.clock += 1000
            await asyncio.sleep(0.005)
    assert "gap repair waits for the database" in caplog.text


async def test_rooms_that_are_not_looked_at(stage: Stage) -> None:
    for state in ("claimed", "former", "orphan"):
        await stage.room(state, state=state)
    await stage.room("quiet", entity_ref="archived")
    await stage.room("just", entity_ref="just-archived")
    for ref, at in (("archived", START - 25 * HOUR), ("just-archived", START - HOUR)):
        await stage.database.write(archived, ref, at)
    stage.start()
    await stage.until_at_rest()
    assert sorted(stage.synapse.order) == ["!just", "!quiet"]
    # What was archived long ago was looked at for the last time.
    assert (await stage.row("quiet")).checked_at is None
    stage.clock += 700_000
    stage.suspicion.suspect("homeserver")
    async with asyncio.timeout(20):
        while len(stage.synapse.order) < 3:
            await asyncio.sleep(0.005)
    await stage.until_at_rest()
    assert stage.synapse.order[2:] == ["!just"]


def archived(connection: Connection, ref: str, at: int) -> None:
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
            archived_at=at,
        )
    )


async def test_the_pace_of_many_who_ask_at_once() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(0.5, sleep, lambda: 100.0)
    await asyncio.gather(*(pace.turn() for _ in range(4)))
    assert slept == [0.5, 1.0, 1.5]


class Forwarding(Database):
    """A database that does what another does."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.dialect = inner.dialect

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.write(do, *args, **kwargs)

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.read(do, *args, **kwargs)

    async def close(self) -> None:
        raise NotImplementedError


class Breaking(Forwarding):
    """Fails before the first page is written, or *after* the second; or with *failures*, so many times."""

    def __init__(self, inner: Database, *, after: int = 0, failures: int | None = None) -> None:
        super().__init__(inner)
        self.after = after
        self.failures = failures
        self.pages = 0

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("gone")
        if do is repair.mend and self.failures is None:
            self.pages += 1
            if self.pages == 1 + self.after:
                if self.after:
                    await self.inner.write(do, *args, **kwargs)
                raise DatabaseUnavailable("gone")
        return await self.inner.write(do, *args, **kwargs)

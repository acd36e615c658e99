"""What tests of gap repair act on: a stand-in homeserver with histories, and time that only waiting moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import select, update

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.errors import (
    DatabaseUnavailable,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import Homeserver, MessagesPage
from openmeet_appservice.intake.gap_repair import GapRepair, RepairSettings
from openmeet_appservice.intake.room_check import RoomCheck
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.store import event_log, repair
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.repair import Checked
from openmeet_appservice.store.tables import room_events, rooms

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
    left: set[str] = field(default_factory=set)
    """Those readers who are no longer in any room, and see what was until they left."""
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
        inside = self.readers[room_id] - self.left
        if not inside and self.left:
            raise FORBIDDEN
        return inside | {"@other:hs.test"}

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

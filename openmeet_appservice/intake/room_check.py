"""Gap repair of one room: its history is read, and what the log lacks of it is added.

A room of which nothing is missing costs one request: its newest page reaches back to the point up to which
the log was complete. Otherwise history is walked forwards from that point, a page at a time, and the point
moves behind each page in the transaction that adds what was missing on it: whoever dies in between leaves
nothing undone and does nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from openmeet_appservice.domain import history
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.history import Walk
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import Direction, Homeserver, JsonObject, MessagesPage
from openmeet_appservice.metrics import DRIFT_NOTICED, EVENTS_INGESTED, REPAIR_CHECKS, REPAIRED_EVENTS
from openmeet_appservice.store import direct, puppets, repair
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.event_log import Appended
from openmeet_appservice.store.repair import Checked, Mended

log = logging.getLogger(__name__)

LOOK = 20
"""How many events the first page holds: enough where little was said since the last time."""

PAGE = 100
"""How many events the others hold."""

LEASE = 180_000
"""Milliseconds for which a room is held: longer than a page takes to be read and added."""

TRY_AGAIN = 600_000
"""Milliseconds after which a room is looked at again of which Synapse could not tell."""

_REFUSED = frozenset({403, 404})

Wait = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Reading:
    """One look at a room: what it is, when it began, as whom it is read."""

    room: Checked
    began: int
    wait: Wait
    reader: str | None = None
    added: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class RoomCheck:
    """Looks at rooms.

    Parameters
    ----------
    bot
        The bot's user id.
    added
        Called when events were added.
    now
        The clock.
    grace
        From what age in milliseconds on an event is certainly no longer on its way.
    """

    homeserver: Homeserver
    database: Database
    bot: str
    added: Callable[[], None]
    now: Now
    grace: int = 30_000
    lease: int = field(default=LEASE)

    async def check(self, room: Checked, wait: Wait) -> None:
        """Add what the log lacks of *room*, and give it back. *wait* is called before each request.

        Raises
        ------
        HomeserverUnreachable
            Synapse is away; the room is due again.
        StoreError
            The database is away; the room is due again when its lease ends.
        """
        reading = _Reading(room, self.now(), wait)
        try:
            result = await self._look(reading)
        except HomeserverUnreachable as error:
            result = await self._unreachable(reading, error)
        except HomeserverRefused as error:
            result = await self._refused(reading, error)
        REPAIR_CHECKS.labels(result).inc()
        if reading.added:
            log.info(
                "%s: gap repair added %d events that Synapse did not push (%d requests)",
                room.room_id,
                reading.added,
                reading.requests,
                extra=_about(room),
            )

    async def _look(self, reading: _Reading) -> str:
        room = reading.room
        page = await self._page(reading, direction="b", limit=LOOK)
        events = _arrivals(room, list(reversed(page.events)))
        newer = history.newer_than(room.point, events)
        if newer is not None:
            return await self._mend(reading, history.from_point(room.point), newer, ends=True)
        if page.end is None or (events and events[0].type == "m.room.create"):
            # All of history: the point, if there was one, is no longer in it.
            walk = history.from_point(None) if room.point is None else history.from_anywhere()
            return await self._mend(reading, walk, events, ends=True)
        return await self._walk(reading, *await self._where_to_begin(reading))

    async def _where_to_begin(self, reading: _Reading) -> tuple[Walk, str | None]:
        """Return the walk to make and the token that it begins with, None for the oldest event."""
        point = reading.room.point
        if point is None:
            return history.from_point(None), None
        await self._turn(reading)
        try:
            token = await self.homeserver.token_behind(reading.room.room_id, point, reading.reader)
        except HomeserverRefused as error:
            if error.status != 404:
                raise
            log.warning(
                "%s: the event up to which its log is complete is no longer in its history",
                reading.room.room_id,
                extra=_about(reading.room),
            )
            return history.from_anywhere(), None
        return history.from_point(point), token

    async def _walk(self, reading: _Reading, walk: Walk, token: str | None) -> str:
        while True:
            page = await self._page(reading, from_=token, direction="f", limit=PAGE)
            ends = page.end is None
            if page.events or ends:
                mended = await self._mend_page(reading, walk, _arrivals(reading.room, page.events), ends)
                if mended is None or mended.pending or ends:
                    return _result(mended, reading)
                walk, reading.room = mended.walk, mended.room
            token = page.end

    async def _mend(self, reading: _Reading, walk: Walk, events: Sequence[Arrival], *, ends: bool) -> str:
        return _result(await self._mend_page(reading, walk, events, ends), reading)

    async def _mend_page(
        self, reading: _Reading, walk: Walk, events: Sequence[Arrival], ends: bool
    ) -> Mended | None:
        mended = await self.database.write(
            repair.mend,
            reading.room,
            walk,
            events,
            ends=ends,
            began=reading.began,
            now=self.now(),
            lease=self.lease,
            grace=self.grace,
            bot=self.bot,
        )
        if mended is not None and (stored := mended.appended.stored):
            _count(mended.appended)
            reading.added += stored.total()
            self.added()
        return mended

    async def _page(
        self, reading: _Reading, *, direction: Direction, limit: int, from_: str | None = None
    ) -> MessagesPage:
        """Read one page: as the bot, or where it may not, as a puppet that is inside.

        The bot is never in a direct room. When its puppets have left it, each still sees what was until then.
        """
        if reading.room.direct and reading.reader is None:
            reading.reader = await self._somebody_inside(reading) or await self._the_last_to_leave(reading)

        async def read() -> MessagesPage:
            await self._turn(reading)
            return await self.homeserver.messages(
                reading.room.room_id, from_=from_, direction=direction, limit=limit, as_user=reading.reader
            )

        try:
            return await read()
        except HomeserverRefused as error:
            if error.status not in _REFUSED or reading.reader is not None:
                raise
            reading.reader = await self._somebody_inside(reading)
            if reading.reader is None:
                raise
        return await read()

    async def _somebody_inside(self, reading: _Reading) -> str | None:
        room = reading.room
        await self._turn(reading)
        try:
            inside = await self.homeserver.joined_members(room.room_id)
        except HomeserverRefused as error:
            if error.status not in _REFUSED:
                raise
            return None
        ours = await self.database.read(puppets.by_user_id, room.tenant, inside - {self.bot})
        return min(ours, default=None)

    async def _the_last_to_leave(self, reading: _Reading) -> str | None:
        """Return the puppet that leaves a direct room after the other when that is closed."""
        room = reading.room
        return max(await self.database.read(direct.puppets_of_room, room.tenant, room.ref), default=None)

    async def _turn(self, reading: _Reading) -> None:
        await reading.wait()
        reading.requests += 1

    async def _unreachable(self, reading: _Reading, error: HomeserverUnreachable) -> str:
        """Give the room back: due at once where Synapse is away, and later where it is only this room."""
        room = reading.room
        try:
            await self.homeserver.whoami()
        except HomeserverError:
            REPAIR_CHECKS.labels("unreachable").inc()
            await self.database.write(repair.leave_alone, room, until=self.now())
            raise error from None
        return await self._later(room, error, "unreachable", TRY_AGAIN)

    async def _refused(self, reading: _Reading, error: HomeserverRefused) -> str:
        room = reading.room
        if error.status in _REFUSED:
            log.warning("%s cannot be read: %s", room.room_id, error, extra=_about(room))
            await self.database.write(repair.give_up, room, error.errcode, at=reading.began)
            return "unreadable"
        wait = TRY_AGAIN
        if isinstance(error, HomeserverLimited) and error.retry_after is not None:
            wait = int(error.retry_after * 1000)
        return await self._later(room, error, error.errcode, wait)

    async def _later(self, room: Checked, error: HomeserverError, code: str, wait: int) -> str:
        log.warning("%s is looked at again later: %s", room.room_id, error, extra=_about(room))
        await self.database.write(repair.leave_alone, room, until=self.now() + wait, error=code)
        return "failed"


def _about(room: Checked) -> dict[str, str]:
    return {"tenant": room.tenant, "room": room.room_id}


def _arrivals(room: Checked, elements: Sequence[JsonObject]) -> list[Arrival]:
    """Return the events of a page; what is no event of this room is passed over."""
    events = []
    for element in elements:
        if isinstance(element, dict) and "room_id" not in element:
            element = {**element, "room_id": room.room_id}
        event = read_event(element)
        if isinstance(event, Arrival) and event.room_id == room.room_id:
            events.append(event)
        else:
            log.warning("%s: passed over something in its history that is no event of it", room.room_id)
    return events


def _result(mended: Mended | None, reading: _Reading) -> str:
    if mended is None:
        return "lost"
    if mended.pending:
        return "pending"
    return "repaired" if reading.added else "complete"


def _count(done: Appended) -> None:
    for event_class, number in done.stored.items():
        EVENTS_INGESTED.labels(event_class).inc(number)
    for changed, number in done.drift.items():
        DRIFT_NOTICED.labels(changed).inc(number)
    REPAIRED_EVENTS.inc(done.stored.total())

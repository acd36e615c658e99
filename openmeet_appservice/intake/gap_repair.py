"""Gap repair: whatever reached a room's history comes into the log, also what Synapse forgot to push.

Two things have rooms looked at: a suspicion (`intake.suspicion`), after which every room is, those first
where something was said last; and a slow round without end, in which each room has its turn within a part of
the limit that is promised. With neither, Synapse is asked nothing.

After a suspicion Synapse is first left to itself until it answers, knows that we are here, and has pushed
what it kept: what it still brings by itself need not be repaired. A suspicion that comes back soon after is
looked into later and later, so that whatever causes it cannot keep Synapse busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import HomeserverError, HomeserverUnreachable, StoreError
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.intake.pace import Pace
from openmeet_appservice.intake.room_check import TRY_AGAIN, RoomCheck
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.store import repair
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.repair import Checked, Key

log = logging.getLogger(__name__)

PART = 0.75
"""In what part of the promised limit each room has its turn, so that what goes wrong can be made good."""


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """How gap repair goes about it.

    Parameters
    ----------
    max_age
        Within how many milliseconds what was lost is to be found at the latest.
    fast, slow
        How many requests a second there are at most, after a suspicion and in turn.
    at_once
        How many rooms are looked at at the same time after a suspicion.
    ahead, batch
        How many rooms are looked up at a time, the most urgent first, and how many of these are taken.
    poll
        Seconds between looks for what other replicas suspect or leave undone.
    settle
        Seconds for which Synapse must have pushed nothing old before it is taken to have caught up.
    longest_settle
        Seconds after which that is no longer waited for.
    longest_wait
        Seconds between tries to reach Synapse at most, doubled from 1.
    first_pause, longest_pause, calm
        Seconds of pause before a suspicion is looked into that comes back within *calm* seconds: doubled
        each time, from the first to the longest.
    count_every
        Seconds for which the number of rooms is taken to be the same.
    """

    max_age: int
    fast: float = 20.0
    slow: float = 1.5
    at_once: int = 4
    ahead: int = 200
    batch: int = 16
    poll: float = 15.0
    settle: float = 3.0
    longest_settle: float = 600.0
    longest_wait: float = 30.0
    first_pause: float = 5.0
    longest_pause: float = 600.0
    calm: float = 600.0
    count_every: float = 600.0


@dataclass(slots=True)
class GapRepair:
    """Looks at rooms until it is cancelled.

    Parameters
    ----------
    homeserver
        Its failures are no sign for *suspicion*: they are dealt with here.
    has_announced
        Whether Synapse knows that we are here (`intake.watch`).
    now, monotonic, sleep
        Milliseconds since the epoch; seconds that never go back; waits some seconds.
    """

    homeserver: Homeserver
    database: Database
    check: RoomCheck
    suspicion: Suspicion
    settings: RepairSettings
    has_announced: Callable[[], bool]
    now: Now
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    _since: int = 0
    """The suspicion that is being looked into, or was last."""
    _is_ready: bool = False
    """Whether Synapse answers, as far as is known, and had the time to push what it kept."""
    _pause: float = 0.0
    _last_gate: float | None = None
    _rooms: int = 0
    _counted_at: float | None = None
    _last_turn: int | None = None
    _fast: Pace = field(init=False)
    _slow: Pace = field(init=False)

    def __post_init__(self) -> None:
        self._fast = Pace(1 / self.settings.fast, self.sleep, self.monotonic)
        self._slow = Pace(1 / self.settings.slow, self.sleep, self.monotonic)

    async def run(self) -> None:
        """Begin with the suspicion that every start is."""
        self.suspicion.suspect("start")
        while True:
            try:
                wait = await self._step()
            except (StoreError, SQLAlchemyError) as error:
                log.warning("gap repair waits for the database: %s", type(error).__name__)
                await self.sleep(self.settings.first_pause)
                continue
            except Exception:
                log.exception("gap repair failed; it goes on")
                await self.sleep(self.settings.longest_wait)
                continue
            if wait > 0:
                await self.suspicion.wait(wait)

    async def _step(self) -> float:
        """Do what is to be done next; return how many seconds there is nothing to do."""
        settings = self.settings
        if self.suspicion.take():
            # Before anything else: another replica, or our own next life, has to know.
            await self.database.write(repair.suspect, self.now())
        if not self._is_ready:
            await self._get_ready()
        due = await self.database.read(repair.due, since=self._since, now=self.now(), limit=settings.ahead)
        if due.rooms:
            await self._check_all(due.rooms)
            return 0
        if due.suspicion > self._since:
            self._is_ready = False
            return 0
        next_at = await self._take_turn()
        moments = [at for at in (next_at, due.next_at) if at is not None]
        if not moments:
            return settings.poll
        return min(settings.poll, max(0.0, (min(moments) - self.now()) / 1000))

    async def _get_ready(self) -> None:
        """Return once there is sense in looking into what is suspected until then."""
        settings, now = self.settings, self.monotonic()
        if self._last_gate is None or now - self._last_gate > settings.calm:
            self._pause = 0.0
        else:
            self._pause = min(max(self._pause * 2, settings.first_pause), settings.longest_pause)
            await self.sleep(self._pause)
        await self._until_it_answers()
        await self._until_it_has_caught_up()
        self._last_gate = self.monotonic()
        self.suspicion.take()
        # What was lost until now is found from now on.
        self._since = self.now()
        await self.database.write(repair.suspect, self._since)
        self._is_ready = True
        log.info("looking for events that Synapse may not have pushed")

    async def _until_it_answers(self) -> None:
        wait = 1.0
        while True:
            try:
                await self.homeserver.whoami()
            except HomeserverError as error:
                log.debug("gap repair waits for Synapse: %s", error)
                await self.sleep(wait)
                wait = min(wait * 2, self.settings.longest_wait)
            else:
                return

    async def _until_it_has_caught_up(self) -> None:
        waited = 0.0
        self.suspicion.take_late()
        while waited < self.settings.longest_settle:
            await self.sleep(self.settings.settle)
            waited += self.settings.settle
            if not self.suspicion.take_late() and self.has_announced():
                return

    async def _check_all(self, keys: Sequence[Key]) -> None:
        """Look at these rooms, some at a time, until Synapse or the database is found to be away."""
        for start in range(0, len(keys), self.settings.batch):
            some = keys[start : start + self.settings.batch]
            rooms = await self.database.write(
                repair.claim, some, since=self._since, now=self.now(), lease=self.check.lease
            )
            if not await self._check_some(rooms):
                return

    async def _check_some(self, rooms: list[Checked]) -> bool:
        """Look at these rooms; return whether to go on."""
        left = rooms[::-1]
        errors: list[Exception] = []

        async def work() -> None:
            while left and not errors:
                try:
                    await self._check(left.pop(), self._fast)
                except (HomeserverUnreachable, StoreError, SQLAlchemyError) as error:
                    errors.append(error)

        await asyncio.gather(*(work() for _ in range(self.settings.at_once)))
        for room in left:
            await self.database.write(repair.leave_alone, room, until=self.now())
        for error in errors:
            if not isinstance(error, HomeserverUnreachable):
                raise error
        if errors:
            self._is_away()
        return not errors

    async def _take_turn(self) -> int | None:
        """Look at the room whose turn it is; return when the next turn is, None without rooms."""
        rooms = await self._count()
        if not rooms:
            return None
        gap = int(max(1000 / self.settings.slow, self.settings.max_age * PART / rooms))
        if self._last_turn is not None and self.now() < self._last_turn + gap:
            return self._last_turn + gap
        turn = await self.database.write(repair.take_turn, now=self.now(), gap=gap, lease=self.check.lease)
        self._last_turn = turn.next_at - gap
        if turn.room is not None:
            try:
                await self._check(turn.room, self._slow)
            except HomeserverUnreachable:
                self._is_away()
        return turn.next_at

    async def _count(self) -> int:
        """Return how many rooms there are, or were not long ago."""
        now = self.monotonic()
        if not self._rooms or self._counted_at is None or now - self._counted_at >= self.settings.count_every:
            self._rooms = await self.database.read(repair.count)
            self._counted_at = now
        return self._rooms

    def _is_away(self) -> None:
        """Take note that Synapse is away: that is a suspicion of its own."""
        self.suspicion.suspect("homeserver")
        self._is_ready = False

    async def _check(self, room: Checked, pace: Pace) -> None:
        try:
            await self.check.check(room, pace.turn)
        except (HomeserverUnreachable, StoreError, SQLAlchemyError):
            raise
        except Exception:
            log.exception("%s could not be looked at", room.room_id, extra={"room": room.room_id})
            await self.database.write(repair.leave_alone, room, until=self.now() + TRY_AGAIN)

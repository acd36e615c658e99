"""The worker that follows hints and, at a limited rate, asks about everything in use in its turn.

Hints go before turns, and no tenant has more than some questions on their way, so that neither a slow
endpoint nor a long list of one tenant holds up the others. A killed worker's hints come back when their
leases end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.provisioning.hint_work import HintWork
from openmeet_appservice.provisioning.lookup import LONGEST
from openmeet_appservice.store import hints, tenants
from openmeet_appservice.store.hints import Hint, NextDue
from openmeet_appservice.web.context import bind

log = logging.getLogger(__name__)

SLOTS = 8
"""How many questions are on their way at once."""

POLL = 5.0
"""Seconds after which the worker looks by itself: wake-ups may be lost."""

BUSY = 0.5
"""Seconds after which it looks again for what could not be taken."""

PAUSE = 5.0
"""Seconds until the next try when the database is away."""

TURN_GAP = 0.2
"""Seconds between two questions that nobody hinted at: OpenMeet is not to be burdened."""

LEASE = round(LONGEST * 1000) + 30_000
"""Milliseconds for which a hint is held: as long as an answer may take, and some more."""

ENROL_EVERY = 3600.0
"""Seconds between two looks for events and groups that are not asked about in turn yet."""

ENROL_AT_ONCE = 200


@dataclass(slots=True)
class HintWorker:
    """Follows what is due, until it is stopped.

    Parameters
    ----------
    work
        Follows one hint.
    clock, sleep
        Seconds that never go back; waits some seconds.
    """

    work: HintWork
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _next_turn: float = 0.0

    async def run(self) -> None:
        """Work until cancelled; then what is on its way is given up, and due again."""
        if self.work.parts.database.dialect == "sqlite":
            await self._patiently(self._release)
        try:
            while True:
                await self._patiently(self._round)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def enrol(self) -> None:
        """See to it that everything in use is asked about in its turn; until cancelled."""
        while True:
            await self._patiently(self._enrol_all)
            await self.sleep(ENROL_EVERY)

    async def once(self) -> int:
        """Follow everything that is due now, turns included, and return how much that was."""
        done = 0
        while taken := await self._take(await self._look(), turns=True):
            for hint in taken:
                self._begin(hint)
            done += len(taken)
            await asyncio.gather(*self._running)
        return done

    async def _release(self) -> None:
        parts = self.work.parts
        # Nobody else can be at work, so what a killed process held is free.
        await parts.database.write(hints.release_all, now=parts.now())

    async def _round(self) -> None:
        ticket = self.work.parts.wakeups.ticket("look_up")
        self._changed.clear()
        due = await self._look()
        while len(self._running) < SLOTS and (
            taken := await self._take(due, turns=self.clock() >= self._next_turn)
        ):
            for hint in taken:
                self._begin(hint)
            due = await self._look()
        await self._wait(ticket, due)

    async def _look(self) -> NextDue:
        """Return what is due; while nothing is, this is all that is asked of the database."""
        parts = self.work.parts
        return await parts.database.read(hints.next_due, now=parts.now(), but=self.work.rests.resting())

    async def _take(self, due: NextDue, *, turns: bool) -> list[Hint]:
        """Take one: another of the same tenant may then be one too many."""
        parts = self.work.parts
        now = parts.now()
        for at, hinted in ((due.hinted, True), (due.turn if turns else None, False)):
            if at is not None and at <= now:
                taken = await parts.database.write(
                    hints.claim,
                    now=now,
                    until=now + LEASE,
                    hinted=hinted,
                    limit=1,
                    but=self.work.rests.resting(),
                )
                if taken:
                    self._next_turn = self._next_turn if hinted else self.clock() + TURN_GAP
                    return taken
        return []

    async def _wait(self, ticket: int, due: NextDue) -> None:
        parts = self.work.parts
        now = parts.now()
        turn = None
        if due.turn is not None:
            turn = max(due.turn, now + round((self._next_turn - self.clock()) * 1000))
        ends = [] if len(self._running) >= SLOTS else [due.hinted, turn, self.work.rests.next_end()]
        # What is due and could not be taken waits for something that is on its way, here or elsewhere.
        waits = [(end - now) / 1000 if end > now else BUSY for end in ends if end is not None]
        woken = asyncio.ensure_future(parts.wakeups.wait("look_up", ticket, min([POLL, *waits])))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({woken, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            changed.cancel()
            await asyncio.gather(woken, changed, return_exceptions=True)

    def _begin(self, hint: Hint) -> None:
        self.work.rests.begin(hint.tenant)
        task = asyncio.create_task(self._follow(hint), name=f"look up {hint.kind}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _follow(self, hint: Hint) -> None:
        try:
            with bind(tenant=hint.tenant):
                await self.work.follow(hint)
        except asyncio.CancelledError:
            await self._give_back(hint)
            raise
        except DatabaseUnavailable as error:
            # The lease ends by itself, and it is due again.
            log.warning("%s %s has to be looked up again: %s", hint.kind, hint.slug, error)
        except Exception:
            log.exception("%s %s could not be looked up; its lease has to end first", hint.kind, hint.slug)
        finally:
            self.work.rests.end(hint.tenant)
            self._changed.set()

    async def _give_back(self, hint: Hint) -> None:
        parts = self.work.parts
        try:
            await parts.database.write(hints.fail, hint, retry_at=parts.now(), attempts=hint.attempts)
        except DatabaseUnavailable as error:
            log.warning("a hint cannot be given back, its lease has to end first: %s", error)

    async def _enrol_all(self) -> None:
        parts, after = self.work.parts, None
        while found := await parts.database.read(tenants.list_page, after=after, limit=ENROL_AT_ONCE):
            for tenant in found:
                settings = self.work.lookup.settings(tenant)
                while settings.url is not None and await parts.database.write(
                    self._enrol, tenant.tenant, settings.resync_interval
                ):
                    pass
            after = found[-1].tenant

    def _enrol(self, connection: Connection, tenant: str, interval: float) -> bool:
        now = self.work.parts.now()
        missing = hints.not_enrolled(connection, tenant, limit=ENROL_AT_ONCE)
        for kind, slug in missing:
            # At random within the interval, so that turns are spread over it for good.
            due_at = now + round(interval * 1000 * self.work.random())
            hints.enrol(connection, tenant, kind, slug, due_at=due_at)
        return bool(missing)

    async def _patiently(self, do: Callable[[], Awaitable[None]]) -> None:
        try:
            await do()
        except DatabaseUnavailable as error:
            log.warning("look-ups wait for the database: %s", error)
            await self.sleep(PAUSE)
        except Exception:
            # A fault of ours, but whoever relies on this loop is better off when it goes on.
            log.exception("look-ups stumbled and go on in %.0f s", PAUSE)
            await self.sleep(PAUSE)

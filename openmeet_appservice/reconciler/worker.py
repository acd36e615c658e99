"""The worker: takes what is due, has it reconciled, and writes down what came of it.

Every row is worked on by one worker at a time, which holds it by a lease. Work can take minutes, so the
lease is renewed meanwhile; the same look at the row tells whether something newer is wanted. A worker that
cannot renew its lease stops before it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.metrics import RECONCILE_PENDING, RECONCILE_RUNS, RECONCILE_SECONDS
from openmeet_appservice.reconciler import failures
from openmeet_appservice.reconciler.announcing import Announcer
from openmeet_appservice.reconciler.held_lease import HeldLease
from openmeet_appservice.reconciler.outage import Outage
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.store import sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.sync import Lease
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)

SHORTEST_PAUSE = 0.02
"""Seconds between two looks at the database: another replica may hold what looks due."""

LONGEST_PAUSE = 30.0
"""Seconds between attempts while the database is away, at most."""

LONGEST_AWAITED_MS = 5 * 60_000
"""Milliseconds after which a row is looked at again whose awaited result should have poked it."""

Reconcile = Callable[[Lease, Callable[[int], bool]], Awaitable[Result]]
"""Reconciles what the lease is for. Told how to see that something newer than a generation is wanted."""


@dataclass(frozen=True, slots=True)
class _Found:
    leases: list[Lease]
    next_due: int | None
    pending: int


class Worker:
    """Works on due rows until it is stopped.

    Parameters
    ----------
    reconcile
        Does the work of one row.
    announcer
        Writes down what came of it.
    outage
        Knows whether the homeserver can be used.
    now, monotonic
        The clock (milliseconds since the epoch), and one in seconds that never goes back.
    sleep, random_number
        Wait some seconds; a number in [0, 1).
    """

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        outage: Outage,
        reconcile: Reconcile,
        announcer: Announcer,
        settings: ReconcilerSettings,
        *,
        now: Now,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random_number: Callable[[], float],
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._outage = outage
        self._reconcile = reconcile
        self._announcer = announcer
        self._settings = settings
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random_number
        self._loop: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def busy(self) -> int:
        """How many rows are being worked on."""
        return len(self._running)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name="reconciler")

    async def stop(self, timeout: float) -> None:
        """Take nothing new, let running work end for *timeout* seconds, then give it back undone."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self) -> None:
        alone = self._database.dialect == "sqlite"
        failed = 0
        while True:
            ticket = self._wakeups.ticket("reconcile")
            self._changed.clear()
            try:
                if alone:
                    # What a former process held: on SQLite there is never another one.
                    await self._database.write(sync.release_all, now=self._now())
                    alone = False
                found = await self._take()
            except Exception as error:
                failed += 1
                await self._pause(failed, error)
                continue
            failed = 0
            for lease in found.leases:
                self._begin(lease)
            RECONCILE_PENDING.set(found.pending)
            await self._wait(ticket, found.next_due)

    async def _pause(self, failed: int, error: Exception) -> None:
        pause = min(LONGEST_PAUSE, 2.0 ** min(failed - 1, 10)) * (0.5 + self._random() / 2)
        if isinstance(error, DatabaseUnavailable):
            logger.warning("the reconciler waits %.1f s for the database: %s", pause, error)
        else:
            # A fault of ours, but whoever relies on this loop is better off when it goes on.
            logger.error("the reconciler stumbled and goes on in %.1f s", pause, exc_info=error)
        await self._sleep(pause)

    async def _take(self) -> _Found:
        """Take what is due and can be begun. While nothing is to be done this is one query."""
        free = self._settings.concurrency - len(self._running)
        found = await self._database.read(_look, now=self._now())
        if free == 0 or found.next_due is None or found.next_due > self._now():
            return found
        return await self._database.write(_take, now=self._now(), lease=self._settings.lease_ms, limit=free)

    async def _wait(self, ticket: int, next_due: int | None) -> None:
        """Wait until there may be something to take."""
        if len(self._running) >= self._settings.concurrency:
            await self._changed.wait()
            return
        timeout = self._settings.poll_seconds
        if next_due is not None:
            timeout = min(timeout, max(SHORTEST_PAUSE, (next_due - self._now()) / 1000))
        woken = asyncio.ensure_future(self._wakeups.wait("reconcile", ticket, timeout))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({woken, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            changed.cancel()
            await asyncio.gather(woken, changed, return_exceptions=True)

    def _begin(self, lease: Lease) -> None:
        task = asyncio.create_task(self._work(lease), name=f"reconcile {lease.subject} {lease.ref}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the reconciler could not record a result", exc_info=error)

    async def _work(self, lease: Lease) -> None:
        started = self._monotonic()
        with bind(tenant=lease.tenant):
            held = HeldLease(self._database, lease, lease_ms=self._settings.lease_ms, now=self._now)
            try:
                outcome = await held.run(self._once(held))
            except DatabaseUnavailable as error:
                # The lease ends by itself, and the row is due again.
                logger.warning("%s %s has to be done again: %s", lease.subject, lease.ref, error)
                outcome = "database_unavailable"
        RECONCILE_RUNS.labels(outcome or "lost").inc()
        RECONCILE_SECONDS.observe(self._monotonic() - started)
        if outcome is not None:
            self._wakeups.wake("reconciled")

    async def _once(self, held: HeldLease) -> str:
        lease = held.lease
        try:
            if (reason := self._outage.reason) is not None:
                self._outage.suspect(reason)
                return await self._fail(held, reason, waits=True)
            result = await self._reconcile(lease, held.is_outdated)
        except DatabaseUnavailable:
            raise
        except asyncio.CancelledError:
            if not held.is_lost:
                await held.let_go()
                await self._database.write(sync.release, held.lease, now=self._now())
            raise
        except Exception as error:
            self._outage.suspect(error)
            return await self._fail(held, error, waits=False)
        await held.let_go()
        if result.is_awaited:
            until = self._now() + LONGEST_AWAITED_MS
            await self._database.write(sync.wait, held.lease, until=until)
            return "awaited"
        await self._announcer.finish(held.lease, result)
        lacking = f"but {result.lacking.code}" if result.lacking else "whole"
        logger.debug("%s %s is as wanted (%d), %s", lease.subject, lease.ref, result.generation, lacking)
        return "ok"

    async def _fail(self, held: HeldLease, error: Exception, *, waits: bool) -> str:
        """Record why the row is not done. *waits*: until the outage has ended, or five minutes."""
        lease, now = held.lease, self._now()
        failure = failures.describe(error, lease.attempts, self._random)
        wait_ms = failures.LONGEST_WAIT_MS if waits else failure.wait_ms
        level = logging.ERROR if failure.code == "internal_error" else logging.WARNING
        if not waits:
            logger.log(
                level,
                "%s %s failed, again in %.1f s: %s: %s",
                lease.subject,
                lease.ref,
                wait_ms / 1000,
                failure.code,
                failure.detail,
                exc_info=error if level == logging.ERROR else None,
            )
        await held.let_go()
        await self._announcer.fail(held.lease, failure, now=now, retry_at=now + wait_ms)
        return failure.code


def _look(connection: Connection, *, now: int) -> _Found:
    ahead = sync.outlook(connection, now=now)
    return _Found([], ahead.next_due, ahead.pending)


def _take(connection: Connection, *, now: int, lease: int, limit: int) -> _Found:
    leases = sync.claim_due(connection, now=now, lease=lease, limit=limit)
    ahead = sync.outlook(connection, now=now)
    return _Found(leases, ahead.next_due, ahead.pending)

"""Keeping a lease while the work that it is for goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.store import sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.sync import Lease

logger = logging.getLogger(__name__)
T = TypeVar("T")


class HeldLease:
    """One row, held as long as the work runs.

    Parameters
    ----------
    lease
        As it was claimed.
    lease_ms
        For how long it is renewed each time, in milliseconds; it is renewed every third of that.
    """

    def __init__(self, database: Database, lease: Lease, *, lease_ms: int, now: Now) -> None:
        self._database = database
        self._lease_ms = lease_ms
        self._now = now
        self._done = asyncio.Event()
        self._renewer: asyncio.Task[None] | None = None
        self._newest = lease.generation
        self.lease = lease
        """The lease as it is now."""
        self.is_lost = False
        """Another worker may have the row."""

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run *work* and hold the lease meanwhile; None when it was lost and the work ended."""
        working = asyncio.ensure_future(work)
        self._renewer = asyncio.create_task(self._renew_while(working))
        try:
            return await working
        except asyncio.CancelledError:
            if self.is_lost:
                return None
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise
        finally:
            await self.let_go()

    def is_outdated(self, generation: int) -> bool:
        """Tell whether something newer than *generation* was wanted when the lease was last renewed."""
        return self._newest > generation

    async def let_go(self) -> None:
        """Stop renewing, once a renewal under way has ended: what it wrote must be known."""
        self._done.set()
        if self._renewer is not None:
            await self._renewer

    async def _renew_while(self, working: asyncio.Future[T]) -> None:
        while not await self._is_done_within(self._lease_ms / 3000):
            try:
                kept, newest = await self._database.write(
                    _renew, self.lease, until=self._now() + self._lease_ms
                )
            except DatabaseUnavailable as error:
                logger.warning("could not renew a lease: %s", error)
                if self._now() < self.lease.until:
                    continue
                kept, newest = None, self._newest
            if kept is None:
                logger.warning("lost the lease of %s %s", self.lease.subject, self.lease.ref)
                self.is_lost = True
                working.cancel()
                return
            self.lease, self._newest = kept, newest

    async def _is_done_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._done.wait()
        except TimeoutError:
            return False
        return True


def _renew(connection: Connection, lease: Lease, *, until: int) -> tuple[Lease | None, int]:
    status = sync.status(connection, lease.tenant, lease.subject, lease.ref)
    newest = lease.generation if status is None else status.generation
    return sync.renew(connection, lease, until=until), newest

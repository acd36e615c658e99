"""Writing many small results without a commit for each.

On SQLite there is one writer and every commit waits for the disk; results that come in while one is being
written are written together in the next transaction. On PostgreSQL each has its own: there commits of
several connections share the disk's time by themselves, and a transaction that locks several lanes could
wait for one that stores events and waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection

from openmeet_appservice import errors
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.store.database import Database

T = TypeVar("T")

log = logging.getLogger(__name__)

Write: TypeAlias = Callable[[Connection], bool]

MOST_TOGETHER = 64
"""The most writes in one transaction: ingest waits meanwhile."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    do: Write
    done: asyncio.Future[bool]


async def while_held(
    until: int,
    write: Callable[[], Awaitable[T]],
    *,
    now: Now,
    sleep: Callable[[float], Awaitable[None]],
    pause: float,
) -> T:
    """Write, and while the database is away try again for as long as the lease lasts.

    Doing it twice is harmless: what nobody holds any more is left as it is.

    Parameters
    ----------
    until
        The end of the lease (milliseconds since the epoch).
    pause
        Seconds between tries.

    Raises
    ------
    DatabaseUnavailable
        It was away until the lease had ended.
    """
    while True:
        try:
            return await write()
        except errors.DatabaseUnavailable as error:
            if now() >= until:
                raise
            log.warning("delivery waits for the database: %s", error)
            await sleep(pause)


class Recorder:
    """Runs writes that are independent of one another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, do: Write) -> bool:
        """Run *do* in a transaction, perhaps with others; return its result once that is committed.

        Raises
        ------
        DatabaseUnavailable
            Nothing was written, or, when the connection broke during the commit, it is unknown whether
            it was.
        """
        if self._database.dialect != "sqlite":
            return await self._database.write(do)
        waiting = _Waiting(do, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="delivery results")
        return await waiting.done

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            results = await self._database.write(_each, [waiting.do for waiting in group])
        except errors.DatabaseUnavailable as error:
            for waiting in group:
                _fail(waiting, error)
        except Exception as error:
            # One of them is at fault, and must not take the others with it.
            if len(group) == 1:
                _fail(group[0], error)
            else:
                for waiting in group:
                    await self._write_group([waiting])
        else:
            for waiting, result in zip(group, results, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(result)


def _each(connection: Connection, writes: Sequence[Write]) -> list[bool]:
    return [do(connection) for do in writes]


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)

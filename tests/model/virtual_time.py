"""An event loop in which waiting takes no time, so that hours of the service pass in a moment, always alike.

Whenever nothing is left to do but to wait, the loop's clock jumps to the next timer. Real work beside it
(PostgreSQL) is waited for in real time, as long as it says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from openmeet_appservice.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. *seconds* is its clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._outside = 0
        self._real = selectors.DefaultSelector()
        super().__init__(self._real)
        self._ask = self._real.select
        # The loop asks its selector to wait; there is no other place where it could be told not to.
        self._real.select = self._select  # type: ignore[method-assign]

    def time(self) -> float:
        """Return the pretended time."""
        return self.seconds

    @contextmanager
    def outside(self) -> Iterator[None]:
        """While something is under way that takes real time."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def _select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._ask(0)
        if ready or timeout == 0:
            return ready
        if self._outside:
            return self._ask(0.01)
        if timeout is None:
            raise RuntimeError("everything waits for something that never happens")
        self.seconds += timeout
        return []


class WaitedFor(Database):
    """A database beside the loop, which takes real time. What was begun is ended, whoever is cancelled."""

    def __init__(self, database: Database, loop: VirtualLoop) -> None:
        self._database = database
        self._loop = loop
        self.dialect = database.dialect

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async def outside() -> T:
            with self._loop.outside():
                return await self._database.write(do, *args, **kwargs)

        return await asyncio.shield(asyncio.ensure_future(outside()))

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(do, *args, **kwargs)

    async def close(self) -> None:
        with self._loop.outside():
            await self._database.close()

"""The life of a process of the service: it can end between any two of its steps, without a last word.

A step is a transaction with the database or a request to the homeserver, before it begins and after it is
done. Once a process is dead, nothing that it still tries has any effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Life:
    """One process. *steps_left* says when it dies, None for not yet."""

    steps_left: int | None = None
    alive: bool = True
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self) -> None:
        """Be alive, or end whoever asks."""
        if self.alive and self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.end()
        if not self.alive:
            raise asyncio.CancelledError

    def end(self) -> None:
        """Die."""
        self.alive = False
        self.died.set()


class LivingDatabase(Database):
    """The database as one process has it.

    *fails_in* counts transactions: the one at which it reaches 0 fails, before its beginning or, where
    *fails_late*, after its end.
    """

    def __init__(self, database: Database, life: Life, *, claims_to_be_shared: bool = False) -> None:
        self._database = database
        self._life = life
        self.dialect = "postgresql" if claims_to_be_shared else database.dialect
        self.fails_in = -1
        self.fails_late = False

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._life.step()
        self.fails_in -= 1
        fails = self.fails_in == 0
        if fails and not self.fails_late:
            raise DatabaseUnavailable("the database is away")
        await asyncio.sleep(0)
        result = await self._database.write(do, *args, **kwargs)
        await asyncio.sleep(0)
        self._life.step()
        if fails:
            raise DatabaseUnavailable("the connection broke during the commit")
        return result

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(do, *args, **kwargs)

    async def close(self) -> None:
        """Leave the database to the others."""

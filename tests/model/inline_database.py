"""SQLite in memory, whose transactions run on the spot: the same store, without threads or a disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")


class InlineDatabase(Database):
    """A copy of *template*, an open connection, or an empty database with the newest schema."""

    dialect = "sqlite"

    def __init__(self, template: InlineDatabase | None = None) -> None:
        self._driver = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._engine = create_engine("sqlite+pysqlite://", creator=lambda: self._driver, poolclass=StaticPool)
        self._connection = self._engine.connect()
        if template is None:
            self.transact(schema.migrate)
        else:
            template._driver.backup(self._driver)

    def transact(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *do* as one transaction."""
        self._driver.execute("BEGIN IMMEDIATE")
        try:
            result = do(self._connection, *args, **kwargs)
            self._end("COMMIT")
        except BaseException:
            self._end("ROLLBACK")
            raise
        return result

    def _end(self, how: str) -> None:
        if self._driver.in_transaction:
            self._driver.execute(how)
        # SQLAlchemy has begun a transaction of its own in name only.
        if self._connection.in_transaction():
            self._connection.rollback()

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return self.transact(do, *args, **kwargs)

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.transact(do, *args, **kwargs)

    async def close(self) -> None:
        self._connection.close()
        self._engine.dispose()
        self._driver.close()

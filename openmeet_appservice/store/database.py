"""One interface over SQLite and PostgreSQL: run a function of a connection as one transaction.

Everything in this package that touches rows is a plain function ``f(connection, …)``. A caller hands it
over::

    room = await database.write(rooms.claim, tenant, entity_ref, claim=claim)

and the function's statements are one transaction: committed when it returns, rolled back when it raises.

*SQLite*: the whole transaction runs in one hop in the one writer thread (a second thread reads), because
a hop per statement costs more than the statements. ``BEGIN IMMEDIATE``, WAL, ``synchronous=FULL``: what
was committed survives a power failure. A caller that is cancelled leaves the thread to finish: the
transaction is then either whole or was never begun.

*PostgreSQL*: through asyncpg; a deadlock or a serialization failure is tried again, for the functions
have no effect but their rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from openmeet_appservice import errors
from openmeet_appservice.store.sqlite_thread import SQLiteThread

P = ParamSpec("P")
T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]

POSTGRESQL_ATTEMPTS = 5
_TRY_AGAIN = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock."""


class Database(ABC):
    """A database that runs functions as transactions."""

    dialect: Dialect

    @abstractmethod
    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run *do* as one transaction and commit it.

        Raises
        ------
        DatabaseUnavailable
            The database cannot be reached, is full or read-only; nothing was written, or, when the
            connection broke during the commit, it is unknown whether it was.
        """

    async def write_promptly(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do as `write`, for a small transaction that somebody outside waits for.

        On SQLite the event loop may stand still for it, for `sqlite_thread.PATIENCE` at most.
        """
        return await self.write(do, *args, **kwargs)

    @abstractmethod
    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *do*, which must not write, on one consistent view of the data."""

    @abstractmethod
    async def close(self) -> None:
        """Let running transactions end and give the connections back."""


def open_database(url: str) -> Database:
    """Return the database at *url*: ``sqlite:///path`` or ``postgresql://user:pass@host/name``.

    Raises
    ------
    ConfigError
        The URL is not one of these.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise errors.ConfigError(
            "database.url is not a URL; write sqlite:///file.db or postgresql://user:password@host/name"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise errors.ConfigError("database.url names no file; write sqlite:///file.db")
        return SQLiteDatabase(Path(parsed.database))
    if backend in ("postgresql", "postgres"):
        return PostgreSQLDatabase(parsed)
    raise errors.ConfigError(f"database.url: {backend} is not supported; use sqlite or postgresql")


class SQLiteDatabase(Database):
    """One file, one writer thread, one reader thread. See the module's docstring."""

    dialect: Dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = SQLiteThread(path, name="sqlite-writer", begin="BEGIN IMMEDIATE")
        self._reader = SQLiteThread(path, name="sqlite-reader", begin="BEGIN")

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._writer.run(lambda connection: do(connection, *args, **kwargs))

    async def write_promptly(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._writer.run_promptly(lambda connection: do(connection, *args, **kwargs))

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._reader.run(lambda connection: do(connection, *args, **kwargs))

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


class PostgreSQLDatabase(Database):
    """A pool of asyncpg connections. See the module's docstring."""

    dialect: Dialect = "postgresql"

    def __init__(self, url: URL, *, pool_size: int = 10) -> None:
        self.url = url.set(drivername="postgresql+asyncpg")
        # No pre-ping: it costs three round trips for each transaction. A connection found dead is
        # replaced and the transaction run again instead.
        self._engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=15,
            connect_args={"timeout": 10},
        )

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        for attempt in range(1, POSTGRESQL_ATTEMPTS + 1):
            committing = False
            try:
                async with self._engine.connect() as connection, connection.begin() as transaction:
                    result = await connection.run_sync(do, *args, **kwargs)
                    committing = True
                    await transaction.commit()
                    return result
            except DBAPIError as error:
                # A connection that breaks during the commit leaves the outcome unknown: never again.
                may_repeat = not committing and (
                    error.connection_invalidated or _sqlstate(error) in _TRY_AGAIN
                )
                if may_repeat and attempt < POSTGRESQL_ATTEMPTS:
                    continue
                if _is_outage(error):
                    raise _unavailable(error.orig or error) from error
                raise
            except (OSError, TimeoutError, SQLAlchemyTimeout) as error:
                raise _unavailable(error) from error
        raise AssertionError("the last attempt returns or raises")

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(do, *args, **kwargs)

    async def close(self) -> None:
        await self._engine.dispose()


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_outage(error: DBAPIError) -> bool:
    """Tell whether *error* is the server's state rather than a fault of the statement.

    By class of SQLSTATE: 08 connection, 28 authorization, 3D no such database, 53 resources, 57 operator
    intervention, 58 system error; 25006 a read-only server.
    """
    state = _sqlstate(error)
    return (
        error.connection_invalidated
        or isinstance(error, InterfaceError)
        or state[:2] in ("08", "28", "3D", "53", "57", "58")
        or state == "25006"
    )


def _unavailable(cause: BaseException) -> errors.DatabaseUnavailable:
    words = str(cause).partition("\n")[0] or type(cause).__name__
    return errors.DatabaseUnavailable(f"the PostgreSQL database cannot be used: {words}")

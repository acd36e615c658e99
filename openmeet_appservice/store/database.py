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

import asyncio
import contextlib
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from openmeet_appservice import errors

P = ParamSpec("P")
T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]

SQLITE_BUSY_TIMEOUT = 10.0
"""Seconds that a statement waits for another process's transaction."""

SQLITE_CHECKPOINT_PAGES = 4000
"""How far the write-ahead log grows (16 MiB) before it is copied into the database. The same few pages change
with every transaction, so the longer it grows the less there is to copy."""

SQLITE_CACHE_KIB = 16_384
"""The most memory each of the two connections keeps of the file, so that the index of event ids, whose every
insertion hits another page, is not read again and again."""

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
        self._writer = _SQLiteThread(path, name="sqlite-writer", begin="BEGIN IMMEDIATE")
        self._reader = _SQLiteThread(path, name="sqlite-reader", begin="BEGIN")

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._writer.run(lambda connection: do(connection, *args, **kwargs))

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._reader.run(lambda connection: do(connection, *args, **kwargs))

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


@dataclass(frozen=True, slots=True)
class _Job:
    do: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]

    def settle(self, how: Callable[[asyncio.Future[Any], Any], None], outcome: Any) -> None:
        # The loop is closed when nobody is left to wait.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(how, self.done, outcome)


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


class _SQLiteThread:
    """A thread that owns one connection and runs one transaction after the other on it."""

    def __init__(self, path: Path, *, name: str, begin: str) -> None:
        self._engine = _sqlite_engine(path)
        self._begin = begin
        self._connection: Connection | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._closed = False

    async def run(self, do: Callable[[Connection], T]) -> T:
        # Not an executor: its two futures for each call cost as much as a small transaction.
        if self._closed:
            raise RuntimeError("the database is closed")
        if not self._thread.is_alive():
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(do, loop, done))
        return await done

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                result = self._run(job.do)
            except BaseException as error:
                job.settle(_fail, error)
            else:
                job.settle(_succeed, result)
                del result
            del job

    def _run(self, do: Callable[[Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            return _transact(self._connection, self._begin, do)
        except DBAPIError as error:
            # SQLite tells of a file that is damaged, or none of its own, with the base class itself.
            if (
                isinstance(error, OperationalError | InterfaceError)
                or type(error.orig) is sqlite3.DatabaseError
            ):
                self._drop_connection()
                raise errors.DatabaseUnavailable(
                    f"the SQLite database cannot be used: {error.orig}"
                ) from error
            raise

    def _drop_connection(self) -> None:
        # A full disk or a file that was moved away leaves a connection that may never work again.
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()

    async def close(self) -> None:
        self._closed = True
        if self._thread.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
        self._close_connection()
        self._engine.dispose()

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make_private(path: Path) -> None:
    """Make the file for its owner only, where there is none; SQLite would let everybody read it.

    A file that is there is not opened: closing it again would drop SQLite's locks on it (POSIX).
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        # It is there, or SQLite will say right away why it cannot be.
        return


def _sqlite_engine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        _make_private(path)
        # isolation_level=None: the driver's own idea of when to begin is replaced by ours, below.
        connection = sqlite3.connect(
            path, timeout=SQLITE_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
        return connection

    return create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool)


def _transact(connection: Connection, begin: str, do: Callable[[Connection], T]) -> T:
    """Run *do* in a transaction, begun and ended by the driver itself where SQLAlchemy takes no part.

    SQLAlchemy's own way there and back costs more than the statements of a small transaction.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    try:
        driver.execute(begin)
        result = do(connection)
        if connection.in_transaction():
            connection.commit()
        else:
            driver.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction():
            connection.rollback()
        elif driver.in_transaction:
            driver.rollback()
        if isinstance(error, sqlite3.Error):
            raise DBAPIError.instance(begin, None, error, sqlite3.Error) from error
        raise
    return result


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

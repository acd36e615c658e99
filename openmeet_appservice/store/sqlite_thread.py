"""SQLite's side of `store.database`: a thread that owns a connection and runs transactions on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from openmeet_appservice import errors

T = TypeVar("T")

BUSY_TIMEOUT = 10.0
"""Seconds that a statement waits for another process's transaction."""

CHECKPOINT_PAGES = 4000
"""How far the write-ahead log grows (16 MiB) before it is copied into the database. The same few pages change
with every transaction, so the longer it grows the less there is to copy."""

CACHE_KIB = 16_384
"""The most memory each of the two connections keeps of the file, so that the index of event ids, whose every
insertion hits another page, is not read again and again."""

PATIENCE = 0.001
"""Seconds for which the event loop may stand still for a transaction that somebody outside waits for."""


class _Job:
    """A transaction to run, and what came of it; whoever waits does so in the event loop, or on the spot."""

    __slots__ = ("_do", "_error", "_finished", "_loop", "_result", "_settled", "_waiter")

    def __init__(self, do: Callable[[Connection], Any]) -> None:
        self._do = do
        self._loop = asyncio.get_running_loop()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._settled = False
        self._waiter: asyncio.Future[None] | None = None
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, transact: Callable[[Callable[[Connection], Any]], Any]) -> None:
        """Run it, in the thread that owns the connection."""
        try:
            self._result = transact(self._do)
        except BaseException as error:
            self._error = error
        self._settled = True
        self._finished.release()
        # Whoever begins to wait in the loop says so before looking whether it is settled: one of the two sees
        # the other.
        if self._waiter is not None:
            # The loop is closed when nobody is left to wait.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_wake, self._waiter)

    def is_done_within(self, seconds: float) -> bool:
        """Wait on the spot; the event loop stands still meanwhile."""
        return self._finished.acquire(timeout=seconds)

    async def wait(self) -> None:
        """Wait while the event loop goes on."""
        self._waiter = self._loop.create_future()
        if not self._settled:
            await self._waiter

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                # The error's traceback holds this frame, and so the job.
                self._error = None
        return self._result


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SQLiteThread:
    """A thread that owns one connection and runs one transaction after the other on it."""

    def __init__(self, path: Path, *, name: str, begin: str) -> None:
        self._engine = _sqlite_engine(path)
        self._begin = begin
        self._connection: Connection | None = None
        self._driver: Any = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._started = False
        self._closed = False
        self._busy = False
        self._usual = 0.0

    async def run(self, do: Callable[[Connection], T]) -> T:
        """Run *do* as a transaction."""
        job = self._submit(do)
        await job.wait()
        result: T = job.outcome()
        return result

    async def run_promptly(self, do: Callable[[Connection], T]) -> T:
        """Run *do*, waiting on the spot if that will not take long.

        The way through the event loop and back costs more than a small transaction's statements. It is taken
        all the same where there is more to wait for: another transaction, or a disk that has been slow.
        """
        started = time.perf_counter()
        idle = self._jobs.empty() and not self._busy
        job = self._submit(do)
        if not (idle and self._usual < PATIENCE and job.is_done_within(PATIENCE)):
            await job.wait()
        self._usual += (time.perf_counter() - started - self._usual) / 8
        result: T = job.outcome()
        return result

    def _submit(self, do: Callable[[Connection], Any]) -> _Job:
        # Not an executor: its two futures for each call cost as much as a small transaction.
        if self._closed:
            raise RuntimeError("the database is closed")
        if not self._started:
            self._started = True
            self._thread.start()
        job = _Job(do)
        self._jobs.put(job)
        return job

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._busy = True
            job.run(self._run)
            del job
            self._busy = False

    def _run(self, do: Callable[[Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                # Asking for it each time costs as much as a statement.
                self._driver = self._connection.connection.driver_connection
            return _transact(self._connection, self._driver, self._begin, do)
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
        if self._started:
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


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Have the file keep a write-ahead log, as it does ever after.

    When several connections do so at once in a new file, SQLite does not wait for the others by itself.
    """
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(0.01)


def _sqlite_engine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        _make_private(path)
        # isolation_level=None: the driver's own idea of when to begin is replaced by ours, below.
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return connection

    return create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool)


def _transact(
    connection: Connection, driver: sqlite3.Connection, begin: str, do: Callable[[Connection], T]
) -> T:
    """Run *do* in a transaction, begun and ended by the driver itself where SQLAlchemy takes no part.

    SQLAlchemy's own way there and back costs more than the statements of a small transaction.
    """
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

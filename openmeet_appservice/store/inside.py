"""A transaction that is open already, for code that brings its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import Connection

from openmeet_appservice.store.database import Database, Dialect

P = ParamSpec("P")
T = TypeVar("T")


class Inside(Database):
    """A database whose transactions are all part of the one that *connection* has open.

    Nothing that is written is committed before that one is; and nothing has to be waited for, so what
    asks nobody else runs through `at_once`.
    """

    def __init__(self, connection: Connection) -> None:
        self.dialect = cast(Dialect, connection.dialect.name)
        self._connection = connection

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return do(self._connection, *args, **kwargs)

    async def read(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return do(self._connection, *args, **kwargs)

    async def close(self) -> None:
        """Do nothing: the connection is its owner's."""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run *work*, which waits for nothing, to its end; raises `RuntimeError` where it does wait."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("this has to wait for something")

"""A copy of what writes of desired state read and write, to try them on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select, tuple_

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, SQLiteDatabase
from openmeet_appservice.store.tables import entities, members, rooms, sync, tenants, users

COPIED = (tenants, users, entities, members, sync, rooms)
PAGE = 2000


@asynccontextmanager
async def scratch_copy(database: Database) -> AsyncIterator[Database]:
    """Have a copy of those tables, in a file that is gone afterwards. The original is only read."""
    with TemporaryDirectory(prefix="openmeet-appservice-") as folder:
        copy = SQLiteDatabase(Path(folder) / "scratch.db")
        try:
            await copy.write(schema.migrate)
            for table in COPIED:
                await _copy(database, copy, table)
            yield copy
        finally:
            await copy.close()


async def _copy(source: Database, target: Database, table: Table) -> None:
    after: tuple[Any, ...] | None = None
    while rows := await source.read(_page, table, after):
        await target.write(_add, table, rows)
        after = tuple(rows[-1]._mapping[column] for column in table.primary_key)


def _page(connection: Connection, table: Table, after: tuple[Any, ...] | None) -> list[Row[Any]]:
    keys = list(table.primary_key)
    query = select(table).order_by(*keys).limit(PAGE)
    if after is not None:
        query = query.where(tuple_(*keys) > tuple_(*after))
    return list(connection.execute(query))


def _add(connection: Connection, table: Table, rows: list[Row[Any]]) -> None:
    connection.execute(insert(table), [dict(row._mapping) for row in rows])

"""What both databases can do with many rows at once, each in its own dialect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ARRAY, Column, Connection, Table, Text, any_, bindparam, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert *row* unless a unique column or index refuses it; return whether it was inserted.

    On PostgreSQL this waits for a transaction that is just inserting the same.
    """
    return connection.execute(_insert(connection, table), dict(row)).rowcount == 1


def insert_all_absent(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those of *rows* that no unique column or index refuses."""
    if rows:
        connection.execute(_insert(connection, table), [dict(row) for row in rows])


def among(connection: Connection, column: Column[str], values: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that *column* is one of *values*, of which there may be any number.

    The list is one parameter: SQLite and PostgreSQL both limit how many parameters a statement has.
    """
    if connection.dialect.name == "postgresql":
        return column == any_(literal(list(values), ARRAY(Text)))
    listed = func.json_each(orjson.dumps(list(values)).decode()).table_valued("value")
    return column.in_(select(listed.c.value))


def among_bound(dialect: str, column: Column[str], name: str) -> ColumnElement[bool]:
    """Return the condition that *column* is one of the values that `bound` gives for the parameter *name*.

    For a statement that is built once and run often: building costs more than running.
    """
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(Text)))
    listed = func.json_each(bindparam(name, type_=Text)).table_valued("value")
    return column.in_(select(listed.c.value))


def bound(dialect: str, values: Collection[str]) -> Any:
    """Return *values* as the one parameter that `among_bound` takes."""
    return list(values) if dialect == "postgresql" else orjson.dumps(list(values)).decode()


def _insert(connection: Connection, table: Table) -> Any:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()

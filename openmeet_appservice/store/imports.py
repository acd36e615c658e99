"""How far a file was imported, so that whoever was killed in between goes on and tells all of it.

A row of progress is written in the transaction that does the lines it speaks of::

    (none) ──first lines──▶ under way ──all lines, told──▶ (none)
                               ▲  └── killed ──┐
                               └───────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select

from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.store.tables import import_refusals, imports


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file was imported.

    Parameters
    ----------
    line
        The number of the last line that was done, from 1; 0 for none.
    bytes
        Where the next line begins.
    counts
        How many lines came to what, by the names that the importer gives.
    """

    line: int = 0
    bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was refused, and why."""

    line: int
    code: str
    detail: str


def get(connection: Connection, digest: str) -> Progress:
    """Return how far the file of that digest was imported."""
    row = connection.execute(select(imports).where(imports.c.digest == digest)).first()
    return Progress() if row is None else Progress(row.line, row.bytes, loads(row.counts))


def advance(
    connection: Connection, digest: str, progress: Progress, refused: Sequence[Refused], *, now: int
) -> None:
    """Record what is done now, with the lines that were refused since the last time."""
    connection.execute(delete(imports).where(imports.c.digest == digest))
    connection.execute(
        insert(imports).values(
            digest=digest,
            line=progress.line,
            bytes=progress.bytes,
            counts=dumps(progress.counts),
            updated_at=now,
        )
    )
    if refused:
        connection.execute(
            insert(import_refusals),
            [{"digest": digest, "line": one.line, "code": one.code, "detail": one.detail} for one in refused],
        )


def refusals(connection: Connection, digest: str, *, after: int, limit: int) -> list[Refused]:
    """Return up to *limit* refused lines in order, from the one after line *after* on."""
    rows = connection.execute(
        select(import_refusals)
        .where(import_refusals.c.digest == digest, import_refusals.c.line > after)
        .order_by(import_refusals.c.line)
        .limit(limit)
    )
    return [Refused(row.line, row.code, row.detail) for row in rows]


def forget(connection: Connection, digest: str) -> None:
    """Forget the file: all of it was done and told."""
    for table in (imports, import_refusals):
        connection.execute(delete(table).where(table.c.digest == digest))

"""Aliases that somebody looks for and nobody has provisioned: intake asks here, look-ups answer.

::

    (none) ──ask──▶ waiting ──claim──▶ leased ──OpenMeet knows it──▶ (none), and there is an entity
              ▲        │                  ├─ nobody can tell ──────▶ (none)
              │        └─ nobody waits ─▶ (none)
              └─ a minute later ─ absent ◀┘  OpenMeet does not know it
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection, and_, delete, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.lookup_tables import alias_lookups

REMEMBERED = 60_000
"""Milliseconds for which it is remembered that OpenMeet does not know something."""


class State(Enum):
    """How far a look-up has come."""

    WAITING = "waiting"
    ABSENT = "absent"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class AliasLookup:
    """Of which event or group the alias would be. *tenant* and *slug* are in lower case."""

    tenant: str
    kind: EntityKind
    slug: str


def ask(connection: Connection, wanted: AliasLookup, *, now: int, wait_until: int) -> State:
    """Have *wanted* looked up, once for however many wait; `ABSENT` where that is known."""
    row = {
        "tenant": wanted.tenant,
        "kind": wanted.kind.value,
        "slug_key": key(wanted.slug),
        "wait_until": wait_until,
    }
    if insert_if_absent(connection, alias_lookups, row):
        return State.WAITING
    if state(connection, wanted, now=now) is State.ABSENT:
        return State.ABSENT
    again = {"wait_until": wait_until, "absent_at": None}
    connection.execute(update(alias_lookups).where(_of(wanted)).values(again))
    return State.WAITING


def state(connection: Connection, wanted: AliasLookup, *, now: int) -> State:
    """Return how far it has come."""
    found = connection.execute(select(alias_lookups.c.absent_at).where(_of(wanted))).one_or_none()
    if found is None:
        return State.OVER
    if found.absent_at is None:
        return State.WAITING
    return State.ABSENT if found.absent_at > now - REMEMBERED else State.OVER


def claim(connection: Connection, *, now: int, until: int, limit: int) -> list[AliasLookup]:
    """Lease up to *limit* for which somebody waits until *until*, and drop what is over."""
    connection.execute(
        delete(alias_lookups).where(
            or_(
                alias_lookups.c.absent_at <= now - REMEMBERED,
                and_(alias_lookups.c.absent_at.is_(None), alias_lookups.c.wait_until <= now, _free(now)),
            )
        )
    )
    found = connection.execute(
        select(alias_lookups)
        .where(
            alias_lookups.c.absent_at.is_(None),
            _free(now),
        )
        .order_by(alias_lookups.c.wait_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    taken = [AliasLookup(row.tenant, EntityKind(row.kind), row.slug_key) for row in found]
    for one in taken:
        connection.execute(update(alias_lookups).where(_of(one)).values(lease_until=until))
    return taken


def are_waiting(connection: Connection, *, now: int) -> bool:
    """Return whether there is something to claim."""
    found = connection.execute(
        select(alias_lookups.c.tenant)
        .where(
            alias_lookups.c.absent_at.is_(None),
            alias_lookups.c.wait_until > now,
            _free(now),
        )
        .limit(1)
    )
    return found.first() is not None


def absent(connection: Connection, one: AliasLookup, *, now: int) -> None:
    """Record that OpenMeet does not know it."""
    values = {"absent_at": now, "lease_until": None}
    connection.execute(update(alias_lookups).where(_of(one)).values(values))


def over(connection: Connection, one: AliasLookup) -> None:
    """Drop it: there is an entity now, or nobody can tell."""
    connection.execute(delete(alias_lookups).where(_of(one)))


def _free(now: int) -> ColumnElement[bool]:
    return or_(alias_lookups.c.lease_until.is_(None), alias_lookups.c.lease_until <= now)


def _of(one: AliasLookup) -> ColumnElement[bool]:
    return and_(
        alias_lookups.c.tenant == one.tenant,
        alias_lookups.c.kind == one.kind.value,
        alias_lookups.c.slug_key == key(one.slug),
    )

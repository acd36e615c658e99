"""Events and groups that are in use here and that OpenMeet, when asked, does not know.

One answer of that kind may be a mistake: a lagging replica, a wrong route, a lost database. So it is
remembered since when it is so, and how many were archived for it lately::

    not found ──▶ missing ──for long, or hinted as deleted──▶ archived
                   │   ▲ │                                    (remembered for an hour)
            found  ▼   │ └─too many in an hour──▶ held ──later──▶ archived
                 (none)┘
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, func, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.lookup_tables import gone
from openmeet_appservice.store.tables import entities


@dataclass(frozen=True, slots=True)
class Lately:
    """How many of a tenant's entities are *live*, how many were archived since some moment.

    *oldest* is when the first of those was (milliseconds since the epoch).
    """

    live: int
    archived: int
    oldest: int | None


def note(connection: Connection, entity: Entity, *, now: int) -> int:
    """Remember that it was not found; return since when it is so. The caller has locked the entity."""
    row = {"tenant": entity.tenant, "entity_ref": entity.ref, "missing_since": now}
    insert_if_absent(connection, gone, row)
    return int(connection.execute(select(gone.c.missing_since).where(_of(entity))).scalar_one())


def forget(connection: Connection, entity: Entity) -> bool:
    """Forget that it was not found, unless it was archived for it; return whether it was held."""
    held = is_held(connection, entity.tenant, entity.ref)
    connection.execute(delete(gone).where(_of(entity), gone.c.archived_at.is_(None)))
    return held


def hold(connection: Connection, entity: Entity, *, now: int) -> bool:
    """Record that it is not archived because too many would be; return whether that is new."""
    held = update(gone).where(_of(entity), gone.c.held_at.is_(None)).values(held_at=now)
    return connection.execute(held).rowcount > 0


def is_held(connection: Connection, tenant: str, ref: str) -> bool:
    """Return whether the entity of that id of ours is held."""
    found = connection.execute(
        select(gone.c.tenant).where(
            gone.c.tenant == tenant,
            gone.c.entity_ref == ref,
            gone.c.held_at.is_not(None),
            gone.c.archived_at.is_(None),
        )
    )
    return found.first() is not None


def archived(connection: Connection, entity: Entity, *, now: int) -> None:
    """Record that it was archived."""
    connection.execute(update(gone).where(_of(entity)).values(archived_at=now))


def lately(connection: Connection, tenant: str, *, since: int) -> Lately:
    """Return how many were archived since *since*, and forget those before."""
    connection.execute(delete(gone).where(gone.c.tenant == tenant, gone.c.archived_at <= since))
    number, oldest = connection.execute(
        select(func.count(), func.min(gone.c.archived_at)).where(
            gone.c.tenant == tenant, gone.c.archived_at.is_not(None)
        )
    ).one()
    live = connection.execute(
        select(func.count())
        .select_from(entities)
        .where(entities.c.tenant == tenant, entities.c.archived_at.is_(None))
    ).scalar_one()
    return Lately(live, number, oldest)


def _of(entity: Entity) -> ColumnElement[bool]:
    return and_(gone.c.tenant == entity.tenant, gone.c.entity_ref == entity.ref)

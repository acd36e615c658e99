"""Former slugs: what an event or group was called before it was renamed.

With each goes the alias of that time, which leads to the room beside the present one until something else
takes the slug::

    (none) ──renamed──▶ kept ──slug taken, or archived──▶ lost ──taken off the room──▶ (none)
                          │
                          └──renamed back──▶ (none)

A kept slug is never a live one at the same time. What is lost stays known until the room does without it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.store.tables import former_slugs


@dataclass(frozen=True, slots=True)
class FormerAlias:
    """An alias (in full) of an entity before it was renamed, *kept* as another way to its room or not."""

    alias: str
    kept: bool


def keep(
    connection: Connection, tenant: str, entity_ref: str, *, kind: EntityKind, slug_key: str, alias: str
) -> None:
    """Keep a slug that an entity has just given up."""
    forget(connection, tenant, entity_ref, [alias])
    connection.execute(
        insert(former_slugs).values(
            tenant=tenant,
            entity_ref=entity_ref,
            alias=alias,
            kind=kind.value,
            slug_key=slug_key,
            kept=True,
        )
    )


def release(connection: Connection, tenant: str, kind: EntityKind, slug: str) -> str | None:
    """Let whoever keeps that slug lose it; return our id of it, None where nobody does."""
    return connection.execute(
        update(former_slugs)
        .where(_kept(tenant, kind, slug))
        .values(kept=False)
        .returning(former_slugs.c.entity_ref)
    ).scalar()


def release_all(connection: Connection, tenant: str, entity_ref: str) -> None:
    """Let an entity lose every slug that it keeps."""
    connection.execute(update(former_slugs).where(_of(tenant, entity_ref)).values(kept=False))


def forget(connection: Connection, tenant: str, entity_ref: str, aliases: Collection[str]) -> None:
    """Forget aliases of an entity that its room does without, or that it has again."""
    connection.execute(
        delete(former_slugs).where(_of(tenant, entity_ref), former_slugs.c.alias.in_(sorted(aliases)))
    )


def forget_lost(connection: Connection, tenant: str, entity_ref: str, alias: str) -> None:
    """Forget an alias that was taken off the entity's room, unless it is kept."""
    connection.execute(
        delete(former_slugs).where(
            _of(tenant, entity_ref), former_slugs.c.alias == alias, ~former_slugs.c.kept
        )
    )


def of_entity(connection: Connection, tenant: str, entity_ref: str) -> list[FormerAlias]:
    """Return the former aliases of an entity, by name."""
    found = connection.execute(
        select(former_slugs.c.alias, former_slugs.c.kept)
        .where(_of(tenant, entity_ref))
        .order_by(former_slugs.c.alias)
    )
    return [FormerAlias(*row) for row in found]


def holder(connection: Connection, tenant: str, kind: EntityKind, slug: str) -> str | None:
    """Return our id of the entity that keeps a slug (in any case) from before."""
    return connection.execute(
        select(former_slugs.c.entity_ref).where(_kept(tenant, kind, slug))
    ).scalar_one_or_none()


def keepers(connection: Connection, alias: str, tenant: str | None = None) -> list[tuple[str, str]]:
    """Return ``(tenant, entity_ref)`` of those that keep *alias*; only of *tenant*, if one is given."""
    query = select(former_slugs.c.tenant, former_slugs.c.entity_ref).where(
        former_slugs.c.alias == alias, former_slugs.c.kept
    )
    if tenant is not None:
        query = query.where(former_slugs.c.tenant == tenant)
    return [(row.tenant, row.entity_ref) for row in connection.execute(query)]


def _of(tenant: str, entity_ref: str) -> ColumnElement[bool]:
    return and_(former_slugs.c.tenant == tenant, former_slugs.c.entity_ref == entity_ref)


def _kept(tenant: str, kind: EntityKind, slug: str) -> ColumnElement[bool]:
    return and_(
        former_slugs.c.tenant == tenant,
        former_slugs.c.kind == kind.value,
        former_slugs.c.slug_key == key(slug),
        former_slugs.c.kept,
    )

"""Tenants: OpenMeet's customers, each a world of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.domain.names import key
from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.tables import tenants


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant.

    Attributes
    ----------
    tenant
        The id in lower case, as every other table has it.
    tenant_id
        The id as it was first given.
    settings
        What it chose for itself, as the API shows it: ``{"rooms": {…}}``, only what differs from the
        service's own settings.
    revision
        Counts the changes of name and settings.
    created_at, updated_at
        Milliseconds since the epoch.
    """

    tenant: str
    tenant_id: str
    name: str
    settings: Mapping[str, Any]
    revision: int
    created_at: int
    updated_at: int


def get(connection: Connection, tenant_id: str, *, lock: bool = False) -> Tenant | None:
    """Return the tenant of that id, in any case; *lock* keeps others from changing it meanwhile.

    The lock is the one that the event log takes too, so hold it for short transactions only.
    """
    query = select(tenants).where(tenants.c.tenant == key(tenant_id))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _tenant(row)


def create(
    connection: Connection, tenant_id: str, *, name: str, settings: Mapping[str, Any], now: int
) -> Tenant | None:
    """Add a tenant; None where there is one of that id already, in any case."""
    fresh = insert_if_absent(
        connection,
        tenants,
        {
            "tenant": key(tenant_id),
            "tenant_id": tenant_id,
            "name": name,
            "settings": dumps(settings),
            "revision": 1,
            "last_position": 0,
            "created_at": now,
            "updated_at": now,
        },
    )
    return get(connection, tenant_id) if fresh else None


def update_tenant(
    connection: Connection, tenant: Tenant, *, name: str, settings: Mapping[str, Any], now: int
) -> Tenant:
    """Give the tenant another name or other settings. The caller has locked the row."""
    row = connection.execute(
        update(tenants)
        .where(tenants.c.tenant == tenant.tenant)
        .values(name=name, settings=dumps(settings), revision=tenants.c.revision + 1, updated_at=now)
        .returning(tenants)
    ).one()
    return _tenant(row)


def list_page(connection: Connection, *, after: str | None, limit: int) -> list[Tenant]:
    """Return up to *limit* tenants in the order of their lower-case ids, from the one after *after*."""
    query = select(tenants).order_by(tenants.c.tenant).limit(limit)
    if after is not None:
        query = query.where(tenants.c.tenant > after)
    return [_tenant(row) for row in connection.execute(query)]


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(
        tenant=row.tenant,
        tenant_id=row.tenant_id,
        name=row.name,
        settings=loads(row.settings),
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

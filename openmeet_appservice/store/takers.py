"""Which endpoints get what: by the types that they take, and the tenants that they serve."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, or_, select
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store import breaker
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint, read_row
from openmeet_appservice.store.notices import takes
from openmeet_appservice.store.tables import endpoint_tenants, endpoints


def callable_now(
    connection: Connection, type: str, tenants: Collection[str], *, now: int
) -> dict[str, list[Endpoint]]:
    """Return the endpoints that take the type and may be called without more ado, by tenant.

    Not those whose breaker is open: a probe is for what must not be lost.

    Parameters
    ----------
    now
        Milliseconds since the epoch.
    """
    found = connection.execute(
        select(endpoints).where(
            or_(endpoints.c.tenant == PLATFORM, among(connection, endpoints.c.tenant, tenants)),
            takes(type),
            _is_sound(now),
        )
    ).all()
    if not found:
        return {}
    listed: dict[str, set[str]] = {}
    for tenant, ref in connection.execute(
        select(endpoint_tenants.c.tenant, endpoint_tenants.c.endpoint_ref).where(
            among(connection, endpoint_tenants.c.tenant, tenants)
        )
    ):
        listed.setdefault(ref, set()).add(tenant)
    by_tenant: dict[str, list[Endpoint]] = {}
    for row in found:
        if row.tenant != PLATFORM:
            served: Collection[str] = [row.tenant]
        else:
            served = tenants if row.every_tenant else listed.get(row.id, ())
        for tenant in served:
            by_tenant.setdefault(tenant, []).append(read_row(row))
    return by_tenant


def _is_sound(now: int) -> ColumnElement[bool]:
    return breaker.in_service() & (endpoints.c.breaker == breaker.CLOSED) & (breaker.available_at() <= now)

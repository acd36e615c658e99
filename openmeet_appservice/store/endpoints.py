"""Webhook endpoints: where a tenant's events are sent.

An endpoint receives a room from the first event stored after the endpoint was made. Both happen under
the tenant's row lock, so each event is clearly before or after.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, insert, select, tuple_, update
from sqlalchemy import delete as sql_delete

from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.lanes import EndpointKey
from openmeet_appservice.store.tables import batches, endpoints, lanes, rooms, tenants


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint. *secret* is encrypted; the moments are milliseconds since the epoch."""

    tenant: str
    ref: str
    name: str
    url: str
    secret: str
    revision: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Put:
    """What `put` left behind, and whether it made the endpoint."""

    endpoint: Endpoint
    created: bool


def lock(connection: Connection, tenant: str) -> None:
    """Let nobody else change the tenant's endpoints, or store its events, until the transaction ends.

    For a caller who decides by what it reads before it calls `put` or `delete`; these lock by
    themselves. On SQLite a transaction that writes is alone anyway.
    """
    connection.execute(select(tenants.c.tenant).where(tenants.c.tenant == tenant).with_for_update())


def put(
    connection: Connection,
    tenant: str,
    name: str,
    *,
    url: str,
    secret_encrypted: str | None,
    fresh_secret_encrypted: str,
    now: int,
    new_id: NewId,
) -> Put:
    """Make the endpoint, or change it.

    Nothing is written where nothing changes. A changed endpoint is tried again at once in every room
    that waits for it, parked ones included, with a whole retry schedule before it: what was wrong may
    just have been put right.

    Parameters
    ----------
    secret_encrypted
        The secret to use from now on; None keeps the one it has.
    fresh_secret_encrypted
        The secret of an endpoint that is new and was given none.
    """
    lock(connection, tenant)
    found = get(connection, tenant, name)
    if found is None:
        made = Endpoint(
            tenant=tenant,
            ref=new_id("endpoint"),
            name=name,
            url=url,
            secret=secret_encrypted or fresh_secret_encrypted,
            revision=1,
            created_at=now,
            updated_at=now,
        )
        connection.execute(insert(endpoints).values(_values(made)))
        return Put(made, created=True)
    secret = secret_encrypted or found.secret
    if (url, secret) == (found.url, found.secret):
        return Put(found, created=False)
    changed = replace(found, url=url, secret=secret, revision=found.revision + 1, updated_at=now)
    connection.execute(
        update(endpoints)
        .where(endpoints.c.tenant == tenant, endpoints.c.id == found.ref)
        .values(_values(changed))
    )
    _try_again(connection, changed, now)
    return Put(changed, created=False)


def get(connection: Connection, tenant: str, name: str) -> Endpoint | None:
    """Return the tenant's endpoint of that name."""
    row = connection.execute(
        select(endpoints).where(endpoints.c.tenant == tenant, endpoints.c.name == name)
    ).first()
    return None if row is None else _endpoint(row)


def list_page(connection: Connection, tenant: str, *, limit: int, after: str | None = None) -> list[Endpoint]:
    """Return up to *limit* of the tenant's endpoints by name, those after the name *after*."""
    query = select(endpoints).where(endpoints.c.tenant == tenant).order_by(endpoints.c.name).limit(limit)
    if after is not None:
        query = query.where(endpoints.c.name > after)
    return [_endpoint(row) for row in connection.execute(query)]


def any_but(connection: Connection, but: Collection[EndpointKey]) -> bool:
    """Tell whether there is an endpoint, of whichever tenant, besides these."""
    query = select(endpoints.c.id).limit(1)
    if but:
        query = query.where(tuple_(endpoints.c.tenant, endpoints.c.id).not_in(list(but)))
    return connection.execute(query).first() is not None


def delete(connection: Connection, tenant: str, name: str) -> bool:
    """Remove the endpoint and what was still to be sent to it; return whether there was one.

    An attempt under way may still arrive; its outcome is then dropped.
    """
    lock(connection, tenant)
    found = get(connection, tenant, name)
    if found is None:
        return False
    # Lanes first: whoever is just making a batch holds its lane, so that no batch is left over.
    for table in (lanes, batches):
        connection.execute(
            sql_delete(table).where(table.c.tenant == tenant, table.c.endpoint_ref == found.ref)
        )
    connection.execute(sql_delete(endpoints).where(endpoints.c.tenant == tenant, endpoints.c.id == found.ref))
    return True


def _try_again(connection: Connection, endpoint: Endpoint, now: int) -> None:
    newest = (
        select(rooms.c.last_sequence)
        .where(rooms.c.tenant == lanes.c.tenant, rooms.c.id == lanes.c.room_ref)
        .scalar_subquery()
    )
    connection.execute(
        update(lanes)
        .where(
            lanes.c.tenant == endpoint.tenant,
            lanes.c.endpoint_ref == endpoint.ref,
            lanes.c.acked_sequence < newest,
        )
        .values(due_at=now, attempts=0, parked_at=None)
    )


def _values(endpoint: Endpoint) -> dict[str, object]:
    return {
        "tenant": endpoint.tenant,
        "id": endpoint.ref,
        "name": endpoint.name,
        "url": endpoint.url,
        "secret": endpoint.secret,
        "revision": endpoint.revision,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    }


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        tenant=row.tenant,
        ref=row.id,
        name=row.name,
        url=row.url,
        secret=row.secret,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

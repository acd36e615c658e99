"""Which endpoints may be called and have something due: by endpoint, so that what waits for one that is
down, however much, is never even looked at.

It is the same for everything that waits for an endpoint: tables with ``owner``, ``endpoint_ref`` and
``due_at``, and an index of these three.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Table, case, func, select, tuple_
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store import breaker
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.tables import endpoints


@dataclass(frozen=True, slots=True)
class DueEndpoint:
    """An endpoint with something due; *probing* when its breaker lets only one try through."""

    key: EndpointKey
    probing: bool


def find(
    connection: Connection, waiting: Table, *, now: int, but: Collection[EndpointKey] = ()
) -> list[DueEndpoint]:
    """Return the endpoints that may be called and have due rows in *waiting*, the longest due first.

    Parameters
    ----------
    but
        Endpoints that are passed over.
    """
    first = _first_due(waiting).label("first")
    query = (
        select(endpoints.c.tenant, endpoints.c.id, endpoints.c.breaker, first)
        .where(breaker.in_service(), breaker.available_at() <= now, first <= now)
        .order_by(first, endpoints.c.id)
    )
    if but:
        query = query.where(tuple_(endpoints.c.tenant, endpoints.c.id).not_in(list(but)))
    return [
        DueEndpoint((row.tenant, row.id), probing=row.breaker != breaker.CLOSED)
        for row in connection.execute(query)
    ]


def next_due(connection: Connection, waiting: Table, *, now: int) -> int | None:
    """Return when a row will be due that is not due now (milliseconds since the epoch), None if none will.

    A row that is due already counts from when its endpoint may be called again, if that is later.
    """
    available, first = breaker.available_at(), _first_due(waiting)
    later = case((first > available, first), else_=available)
    query = select(func.min(case((available > now, later), else_=_first_due(waiting, after=now)))).where(
        breaker.in_service(), first.is_not(None)
    )
    found: int | None = connection.execute(query).scalar_one()
    return found


def _first_due(waiting: Table, *, after: int | None = None) -> ColumnElement[int | None]:
    """Return when the first row of the endpoint is due, as SQL."""
    query = select(func.min(waiting.c.due_at)).where(
        waiting.c.owner == endpoints.c.tenant,
        waiting.c.endpoint_ref == endpoints.c.id,
        waiting.c.due_at.is_not(None),
    )
    if after is not None:
        query = query.where(waiting.c.due_at > after)
    return query.scalar_subquery()

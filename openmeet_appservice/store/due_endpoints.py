"""Which endpoints may be called and have something due: by endpoint, so that what waits for one that is
down, however much, is never even looked at.

It is the same for everything that waits for an endpoint: tables with ``owner``, ``endpoint_ref`` and
``due_at``, and an index of these three.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    Column,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    select,
    tuple_,
)
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
    query = _due(waiting)
    if but:
        query = query.where(tuple_(endpoints.c.tenant, endpoints.c.id).not_in(list(but)))
    return [
        DueEndpoint((row.tenant, row.id), probing=row.breaker != breaker.CLOSED)
        for row in connection.execute(query, {"now": now})
    ]


def next_due(connection: Connection, waiting: Table, *, now: int) -> int | None:
    """Return when a row will be due that is not due now (milliseconds since the epoch), None if none will.

    A row that is due already counts from when its endpoint may be called again, if that is later.
    """
    found: int | None = connection.execute(_next_due(waiting), {"now": now}).scalar_one()
    return found


# Built once: they are asked at every claim, and building them costs more than running them.
@cache
def _due(waiting: Table) -> Select[Any]:
    now: BindParameter[int] = bindparam("now")
    first = _first_due(waiting).label("first")
    return (
        select(endpoints.c.tenant, endpoints.c.id, endpoints.c.breaker, first)
        .join_from(endpoints, walk := _walk(waiting), _is_at(walk))
        .where(breaker.in_service(), breaker.available_at() <= now, first <= now)
        .order_by(first, endpoints.c.id)
    )


@cache
def _next_due(waiting: Table) -> Select[Any]:
    now: BindParameter[int] = bindparam("now")
    available, first = breaker.available_at(), _first_due(waiting)
    later = case((first > available, first), else_=available)
    after = _first_due(waiting, after=now)
    return (
        select(func.min(case((available > now, later), else_=after)))
        .join_from(endpoints, walk := _walk(waiting), _is_at(walk))
        .where(breaker.in_service())
    )


def _walk(waiting: Table) -> CTE:
    """Return the endpoints that have a row with ``due_at`` in *waiting*, as SQL.

    It goes from each endpoint straight to the next in the index, so it takes as many steps as there are such
    endpoints, however many others there are, and however many rows each has.
    """
    owner, ref = waiting.c.owner, waiting.c.endpoint_ref

    def first(column: Column[str], *conditions: ColumnElement[bool]) -> ColumnElement[str]:
        query = select(column).where(waiting.c.due_at.is_not(None), *conditions)
        return query.order_by(owner, ref).limit(1).scalar_subquery()

    walk = select(first(owner).label("owner"), first(ref).label("endpoint_ref")).cte("walk", recursive=True)
    # In two comparisons, for SQLite does not find the place of a pair in an index.
    same_owner = first(ref, owner == walk.c.owner, ref > walk.c.endpoint_ref)
    other_owner = owner > walk.c.owner
    step = select(
        case((same_owner.is_not(None), walk.c.owner), else_=first(owner, other_owner)),
        func.coalesce(same_owner, first(ref, other_owner)),
    )
    return walk.union_all(step.where(walk.c.owner.is_not(None)))


def _is_at(walk: CTE) -> ColumnElement[bool]:
    return and_(endpoints.c.tenant == walk.c.owner, endpoints.c.id == walk.c.endpoint_ref)


def _first_due(waiting: Table, *, after: ColumnElement[int] | None = None) -> ColumnElement[int | None]:
    """Return when the first row of the endpoint is due, as SQL."""
    query = select(func.min(waiting.c.due_at)).where(
        waiting.c.owner == endpoints.c.tenant,
        waiting.c.endpoint_ref == endpoints.c.id,
        waiting.c.due_at.is_not(None),
    )
    if after is not None:
        query = query.where(waiting.c.due_at > after)
    return query.scalar_subquery()

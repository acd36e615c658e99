"""Replays, the reading half: some rooms at a time, and which of their events are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from sqlalchemy import BindParameter, Column, Connection, exists, func, literal, or_, select, tuple_
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.ranges import Range, common
from openmeet_appservice.domain.replay import Asked, Only
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey, is_endpoint
from openmeet_appservice.store.tables import dead_letters, endpoint_tenants, endpoints, room_events, rooms

PAGE = 200
"""How many rooms are queued in one transaction. Ingest waits while it runs, on SQLite at least."""

RoomKey: TypeAlias = tuple[str, str]
"""``(tenant, room_ref)``."""


@dataclass(frozen=True, slots=True)
class Window:
    """Of a room: the first sequence in the log, and between which the meant ones are."""

    oldest: int
    events: Range


@dataclass(frozen=True, slots=True)
class Page:
    """Some rooms of one tenant.

    *windows* are by ``room_ref``; *seen* rooms were looked at; the next page begins behind *upto*.
    """

    tenant: str
    windows: dict[str, Window]
    seen: int
    upto: RoomKey


def count_rooms(connection: Connection, endpoint: EndpointKey, asked: Asked) -> int:
    """Return how many rooms have to be looked at."""
    tenant, ref, where = _source(connection, endpoint, asked)
    found = select(tenant, ref).where(*where).distinct().subquery()
    return int(connection.execute(select(func.count()).select_from(found)).scalar_one())


def plan_page(
    connection: Connection,
    endpoint: EndpointKey,
    asked: Asked,
    *,
    after: RoomKey | None = None,
    limit: int = PAGE,
) -> Page | None:
    """Return up to *limit* rooms of one tenant, those behind *after*, and which of their events are meant.

    None when there are no more.
    """
    tenant, ref, where = _source(connection, endpoint, asked)
    query = select(tenant, ref).where(*where).distinct().order_by(tenant, ref).limit(limit)
    if after is not None:
        query = query.where(tuple_(tenant, ref) > after)
    found = connection.execute(query).all()
    if not found:
        return None
    first: str = found[0][0]
    refs: list[str] = [row[1] for row in found if row[0] == first]
    return Page(first, _windows(connection, asked, first, refs), seen=len(refs), upto=(first, refs[-1]))


def takes(connection: Connection, endpoint: EndpointKey, tenant: str) -> bool:
    """Tell whether the endpoint is there and takes this tenant's room events."""
    return bool(connection.execute(select(_is_for(endpoint, literal(tenant)))).scalar_one())


def _source(
    connection: Connection, endpoint: EndpointKey, asked: Asked
) -> tuple[Column[str], Column[str], list[ColumnElement[bool]]]:
    """Return where rooms are looked for: the columns of tenant and room, and the conditions."""
    owner, endpoint_ref = endpoint
    where: list[ColumnElement[bool]]
    if asked.only is Only.FAILED:
        tenant, ref = dead_letters.c.tenant, dead_letters.c.room_ref
        where = [dead_letters.c.owner == owner, dead_letters.c.endpoint_ref == endpoint_ref]
        if asked.letters is not None:
            where.append(among(connection, dead_letters.c.id, asked.letters))
    else:
        tenant, ref = rooms.c.tenant, rooms.c.id
        where = [rooms.c.last_sequence > 0, _is_for(endpoint, tenant)]
        if asked.since is not None:
            # A room whose newest event is older need not be looked into.
            where.append(or_(rooms.c.last_event_at.is_(None), rooms.c.last_event_at >= asked.since))
    if owner != PLATFORM:
        where.append(tenant == owner)
    if asked.tenant is not None:
        where.append(tenant == asked.tenant)
    if asked.room_ref is not None:
        where.append(ref == asked.room_ref)
    return tenant, ref, where


def _is_for(endpoint: EndpointKey, tenant: Column[str] | BindParameter[str]) -> ColumnElement[bool]:
    """Return whether the endpoint is there and takes this tenant's room events, as SQL."""
    owner, endpoint_ref = endpoint
    if owner == PLATFORM:
        listed = exists().where(
            endpoint_tenants.c.tenant == tenant, endpoint_tenants.c.endpoint_ref == endpoint_ref
        )
        theirs = or_(endpoints.c.every_tenant, listed)
    else:
        theirs = tenant == owner
    return exists().where(is_endpoint(endpoint), endpoints.c.takes_events, theirs)


def _windows(connection: Connection, asked: Asked, tenant: str, refs: Sequence[str]) -> dict[str, Window]:
    """Return which events of these rooms are meant, of those that have any in the log."""
    oldest = (
        select(func.min(room_events.c.sequence))
        .where(room_events.c.tenant == tenant, room_events.c.room_ref == rooms.c.id)
        .scalar_subquery()
    )
    query = select(rooms.c.id, rooms.c.last_sequence, oldest).where(
        rooms.c.tenant == tenant, among(connection, rooms.c.id, refs)
    )
    begin = asked.from_sequence or 1
    found = {
        ref: Window(first, (max(begin, first), newest))
        for ref, newest, first in connection.execute(query)
        if first is not None
    }
    if asked.since is None and asked.until is None:
        return found
    # By the first and the last, as a clock may have been set back in between.
    spans = _spans(connection, asked, tenant, list(found))
    return {ref: replace(found[ref], events=common(found[ref].events, span)) for ref, span in spans.items()}


def _spans(connection: Connection, asked: Asked, tenant: str, refs: Sequence[str]) -> dict[str, Range]:
    """Return the first and the last event of each room that was stored when it is asked for."""
    query = select(
        room_events.c.room_ref, func.min(room_events.c.sequence), func.max(room_events.c.sequence)
    ).where(room_events.c.tenant == tenant, among(connection, room_events.c.room_ref, refs))
    if asked.since is not None:
        query = query.where(room_events.c.received_at >= asked.since)
    if asked.until is not None:
        query = query.where(room_events.c.received_at < asked.until)
    rows = connection.execute(query.group_by(room_events.c.room_ref))
    return {ref: (first, last) for ref, first, last in rows}

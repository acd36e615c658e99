"""How many events wait: stored, and not yet taken by an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.tables import lanes, rooms

MOST_COUNTED = 1000
"""Of how many rooms the waiting events are counted where it need not be exact; more take long to read."""

_EVENTS = rooms.c.last_sequence - lanes.c.acked_sequence
_ROOM = and_(rooms.c.tenant == lanes.c.tenant, rooms.c.id == lanes.c.room_ref)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many *events* wait for the endpoint *key*."""

    key: EndpointKey
    events: int


def events(connection: Connection, endpoint: EndpointKey) -> int:
    """Return how many events wait for the endpoint in those `MOST_COUNTED` rooms that wait longest."""
    longest = (
        _of(endpoint, select(_EVENTS.label("events")))
        .order_by(lanes.c.waiting_since)
        .limit(MOST_COUNTED)
        .subquery()
    )
    found = connection.execute(select(func.coalesce(func.sum(longest.c.events), 0))).scalar_one()
    return int(found)


def all_events(connection: Connection, endpoint: EndpointKey) -> int:
    """Return how many events wait for the endpoint, however many rooms have to be read."""
    query = _of(endpoint, select(func.coalesce(func.sum(_EVENTS), 0)))
    return int(connection.execute(query).scalar_one())


def more_than(connection: Connection, most: int) -> list[Waiting]:
    """Return the endpoints for which more than *most* events wait, at the cost of the rooms that wait."""
    key = (lanes.c.owner, lanes.c.endpoint_ref)
    query = (
        select(*key, func.sum(_EVENTS))
        .join_from(lanes, rooms, _ROOM)
        .where(lanes.c.waiting_since.is_not(None))
        .group_by(*key)
        .having(func.sum(_EVENTS) > most)
    )
    return [Waiting((owner, ref), int(number)) for owner, ref, number in connection.execute(query)]


def _of(endpoint: EndpointKey, query: Select[Any]) -> Select[Any]:
    owner, endpoint_ref = endpoint
    return query.join_from(lanes, rooms, _ROOM).where(
        lanes.c.owner == owner, lanes.c.endpoint_ref == endpoint_ref, lanes.c.waiting_since.is_not(None)
    )

"""Parking by hand: an admin stops one room's delivery to one endpoint, and lets it go on.

It is the same as when a lane is parked after its last try (`store.lanes`): new events are kept for it, and it
goes on as well when its endpoint is changed or resumed.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, func, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.tables import lanes


def park(connection: Connection, endpoint: EndpointKey, tenant: str, room_ref: str, *, now: int) -> bool:
    """Stop the lane of a tenant's room; False when there is none.

    What is under way may still be taken; nothing is sent after it.
    """
    parked = connection.execute(
        update(lanes)
        .where(_lane(endpoint, tenant, room_ref))
        .values(parked_at=func.coalesce(lanes.c.parked_at, now), due_at=None)
    )
    return parked.rowcount > 0


def resume(connection: Connection, endpoint: EndpointKey, tenant: str, room_ref: str, *, now: int) -> bool:
    """Have a parked lane go on, with a whole schedule before it; False when it is not parked."""
    resumed = connection.execute(
        update(lanes)
        .where(_lane(endpoint, tenant, room_ref), lanes.c.parked_at.is_not(None))
        .values(
            parked_at=None,
            due_at=case((lanes.c.waiting_since.is_not(None), now)),
            attempts=0,
            refusals=0,
        )
    )
    return resumed.rowcount > 0


def _lane(endpoint: EndpointKey, tenant: str, room_ref: str) -> ColumnElement[bool]:
    owner, endpoint_ref = endpoint
    return and_(
        lanes.c.tenant == tenant,
        lanes.c.endpoint_ref == endpoint_ref,
        lanes.c.room_ref == room_ref,
        lanes.c.owner == owner,
    )

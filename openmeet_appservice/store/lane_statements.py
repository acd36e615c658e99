"""What every batch needs of the lanes, as statements built once: building one costs more than running it."""

from __future__ import annotations

from sqlalchemy import BigInteger, BindParameter, String, and_, bindparam, case, func, or_, select, update

from openmeet_appservice.store import replay_parts
from openmeet_appservice.store.tables import lanes, room_events, rooms

_DUE = (
    select(
        lanes.c.tenant,
        lanes.c.owner,
        lanes.c.endpoint_ref,
        lanes.c.room_ref,
        lanes.c.acked_sequence,
        lanes.c.attempts,
        lanes.c.refusals,
        lanes.c.narrow,
        lanes.c.narrow_through,
        lanes.c.lease_epoch,
    )
    .where(lanes.c.owner == bindparam("owner"), lanes.c.endpoint_ref == bindparam("endpoint_ref"))
    .where(lanes.c.due_at <= bindparam("now"))
    .where(or_(lanes.c.lease_until.is_(None), lanes.c.lease_until <= bindparam("now")))
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
DUE = _DUE.order_by(lanes.c.due_at)
DUE_UNTRIED = _DUE.order_by(lanes.c.attempts, lanes.c.due_at)
"""An endpoint's due lanes, the longest due first; or before all those that failed least."""

_THIS = and_(
    lanes.c.tenant == bindparam("_tenant"),
    lanes.c.endpoint_ref == bindparam("_endpoint_ref"),
    lanes.c.room_ref == bindparam("_room_ref"),
)

LEASE = (
    update(lanes)
    .where(_THIS)
    .values(lease_epoch=bindparam("_epoch"), lease_until=bindparam("_until"), due_at=bindparam("_until"))
)

NEWEST = (
    select(rooms.c.last_sequence)
    .where(rooms.c.tenant == bindparam("tenant"), rooms.c.id == bindparam("room_ref"))
    .with_for_update()
)
"""The room's newest sequence, which stays so until the transaction ends."""

RECEIVED_AT = select(room_events.c.received_at).where(
    room_events.c.tenant == bindparam("tenant"),
    room_events.c.room_ref == bindparam("room_ref"),
    room_events.c.sequence == bindparam("sequence"),
)

_arrived: BindParameter[int | None] = bindparam("_arrived", type_=BigInteger)
_asked = replay_parts.waiting_since(
    (lanes.c.tenant, lanes.c.endpoint_ref, lanes.c.room_ref),
    but=bindparam("_replay_ref", type_=String),
    upto=bindparam("_upto", type_=BigInteger),
)

TAKEN = (
    update(lanes)
    .where(_THIS, lanes.c.lease_epoch == bindparam("_epoch"), lanes.c.lease_until.is_not(None))
    .values(
        acked_sequence=bindparam("_acked"),
        attempts=0,
        refusals=0,
        narrow=bindparam("_narrow"),
        narrow_through=bindparam("_narrow_through"),
        lease_until=None,
        # It may have been parked by hand during the try.
        due_at=case(
            (
                and_(lanes.c.parked_at.is_(None), or_(_arrived.is_not(None), _asked.is_not(None))),
                bindparam("_now", type_=BigInteger),
            )
        ),
        waiting_since=case((_asked < _arrived, _asked), else_=func.coalesce(_arrived, _asked)),
    )
)
"""Ends the lease of a lane that is still held; it is due again where new events ``_arrived`` or something
is to be sent again. The replays are read here: in a statement of their own they would cost every batch a
round trip."""

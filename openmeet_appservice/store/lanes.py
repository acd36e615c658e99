"""Lanes: how far each room has been delivered to each endpoint.

A lane is worked on by one worker at a time, and only one batch of it is under way, which is what keeps a
room's events in order. Storing an event makes an idle lane due; how many events there are to send, the room's
own row tells (``rooms.last_sequence``)::

    idle ──event──▶ due ──lease──▶ leased ──taken──▶ idle, or due at once when there is more
                     ▲               │
                     ├──── fail ─────┤   due at the next try
                     ├─ lease ends ──┘   the worker died; its late result is refused by the epoch
                     │               └──park──▶ parked: what there is to send is kept
                     └──── the endpoint is changed or resumed ──┘

What it shall send again (`store.replay_parts`) makes a lane due as well, and goes before new events.

An admin parks a lane in whatever state it is (`store.parking`); a try under way then ends as ever, but leaves
it parked.

While a lane is leased its ``due_at`` is the end of the lease, so that a dead worker's lanes come back by
themselves; any other value there says that the endpoint was changed meanwhile.

A due lane is claimed only while its endpoint may be called (`store.breaker`, `store.due_endpoints`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, case, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store import due_endpoints, replay_parts
from openmeet_appservice.store.due_endpoints import DueEndpoint
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.lane_statements import DUE, DUE_UNTRIED, LEASE, NEWEST, RECEIVED_AT, TAKEN
from openmeet_appservice.store.replay_parts import LaneKey
from openmeet_appservice.store.tables import lanes, replays, rooms


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane as it was found, or, with *epoch* and *until*, as it is leased.

    Parameters
    ----------
    tenant
        Whose room it is.
    owner
        Whose endpoint it is: the tenant's own, or the platform's.
    acked
        The last sequence that the endpoint took.
    attempts, refusals
        How often the batch under way has failed, and how many of these times it was refused.
    narrow, narrow_through
        No batch holds more events than *narrow* until the sequence *narrow_through* was taken.
    epoch
        The number of the lease; a result counts only while it is the newest.
    until
        The end of the lease (milliseconds since the epoch).
    """

    tenant: str
    owner: str
    endpoint_ref: str
    room_ref: str
    acked: int
    attempts: int
    refusals: int
    narrow: int | None
    narrow_through: int | None
    epoch: int
    until: int

    @property
    def endpoint(self) -> EndpointKey:
        """The endpoint it leads to."""
        return self.owner, self.endpoint_ref

    @property
    def key(self) -> LaneKey:
        """How its batch and its replays are found."""
        return self.tenant, self.endpoint_ref, self.room_ref


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not been taken yet: *waiting* lanes, *parked* ones, and since when the oldest event waits.

    *oldest* is in milliseconds since the epoch, None where nothing waits.
    """

    waiting: int
    parked: int
    oldest: int | None


def endpoints_due(
    connection: Connection, *, now: int, but: Collection[EndpointKey] = ()
) -> list[DueEndpoint]:
    """Return the endpoints that may be called and have due lanes; see `due_endpoints.find`."""
    return due_endpoints.find(connection, lanes, now=now, but=but)


def next_due(connection: Connection, *, now: int) -> int | None:
    """Return when a lane will be due that is not due now; see `due_endpoints.next_due`."""
    return due_endpoints.next_due(connection, lanes, now=now)


def is_due(connection: Connection, endpoint: EndpointKey, *, now: int) -> bool:
    """Tell whether any lane of the endpoint is due."""
    query = select(lanes.c.room_ref).where(_of(endpoint), lanes.c.due_at <= now).limit(1)
    return connection.execute(query).first() is not None


def due(
    connection: Connection, endpoint: EndpointKey, *, now: int, limit: int, untried_first: bool = False
) -> list[Lane]:
    """Return up to *limit* due lanes of the endpoint, the longest due first.

    They are locked until the transaction ends.

    Parameters
    ----------
    untried_first
        Those that failed least before all: a probe with a room that the endpoint never takes would say
        nothing of the others.
    """
    owner, endpoint_ref = endpoint
    rows = connection.execute(
        DUE_UNTRIED if untried_first else DUE,
        {"owner": owner, "endpoint_ref": endpoint_ref, "now": now, "limit": limit},
    )
    return [
        Lane(
            tenant=row.tenant,
            owner=row.owner,
            endpoint_ref=row.endpoint_ref,
            room_ref=row.room_ref,
            acked=row.acked_sequence,
            attempts=row.attempts,
            refusals=row.refusals,
            narrow=row.narrow,
            narrow_through=row.narrow_through,
            epoch=row.lease_epoch,
            until=now,
        )
        for row in rows
    ]


def lease(connection: Connection, found: Sequence[Lane], *, until: int) -> list[Lane]:
    """Take the lanes that `due` returned, until *until* (milliseconds since the epoch)."""
    if not found:
        return []
    connection.execute(LEASE, [{**_named(lane), "_epoch": lane.epoch + 1, "_until": until} for lane in found])
    return [replace(lane, epoch=lane.epoch + 1, until=until) for lane in found]


def taken(connection: Connection, lane: Lane, *, last: int, now: int, replay_ref: str | None = None) -> bool:
    """Record that the lane is done with everything up to *last*; False when the lease was lost.

    Parameters
    ----------
    replay_ref
        The replay that this was a part of; how far the lane has come with new events stays as it is.
    """
    # Whoever stores an event, or queues a replay, has the room's row locked first and the lane after it; so
    # does this. What it finds is then all there is, and what comes later finds the lane as it is left here.
    room = {"tenant": lane.tenant, "room_ref": lane.room_ref}
    newest: int = connection.execute(NEWEST, room).scalar_one()
    acked = last if replay_ref is None else lane.acked
    still_narrow = lane.narrow_through is not None and lane.narrow_through > last
    recorded = connection.execute(
        TAKEN,
        {
            **_named(lane),
            "_epoch": lane.epoch,
            "_acked": acked,
            "_narrow": lane.narrow if still_narrow else None,
            "_narrow_through": lane.narrow_through if still_narrow else None,
            "_arrived": _received_at(connection, lane, acked + 1) or now if newest > acked else None,
            "_replay_ref": replay_ref,
            "_upto": last,
            "_now": now,
        },
    )
    if recorded.rowcount > 0 and replay_ref is not None:
        replay_parts.advance(connection, lane.key, replay_ref, upto=last)
    return recorded.rowcount > 0


def rest(connection: Connection, lane: Lane) -> None:
    """Make a lane idle that was leased just now and has nothing to send."""
    # Whoever stores an event waits for the lane, and finds it as it is left here.
    connection.execute(
        update(lanes).where(_held(lane)).values(lease_until=None, due_at=None, waiting_since=None)
    )


def fail(connection: Connection, lane: Lane, *, retry_at: int, refused: bool = False) -> bool:
    """Record that the try failed and when to make the next; False when the lease was lost.

    Where the endpoint was changed meanwhile, it is tried again at once, as if for the first time.

    Parameters
    ----------
    refused
        The endpoint said that it will not have this batch.
    """
    failed = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            attempts=case((_untouched(lane), lane.attempts + 1), else_=0),
            refusals=case((_untouched(lane), lane.refusals + refused), else_=0),
            lease_until=None,
            due_at=case((_untouched(lane), retry_at), else_=lanes.c.due_at),
        )
    )
    return failed.rowcount > 0


def narrow(connection: Connection, lane: Lane, *, most: int, through: int, now: int) -> bool:
    """Have the batches up to *through* hold at most *most* events; False when the lease was lost.

    The batch under way is no longer one: the caller drops it.
    """
    narrowed = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            attempts=0,
            refusals=0,
            narrow=most,
            narrow_through=max(through, lane.narrow_through or 0),
            lease_until=None,
            due_at=_unless_parked(now),
        )
    )
    return narrowed.rowcount > 0


def park(connection: Connection, lane: Lane, *, now: int) -> bool:
    """Stop the lane until its endpoint is changed or resumed; False when the lease was lost.

    Where the endpoint was changed meanwhile, it is tried again at once instead.
    """
    parked = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(
            attempts=case((_untouched(lane), lane.attempts + 1), else_=0),
            refusals=case((_untouched(lane), lanes.c.refusals), else_=0),
            parked_at=case((_untouched(lane), now), else_=lanes.c.parked_at),
            lease_until=None,
            due_at=case((_untouched(lane), None), else_=lanes.c.due_at),
        )
    )
    return parked.rowcount > 0


def give_back(connection: Connection, lane: Lane, *, due_at: int) -> bool:
    """End the lease without a result; False when it was lost."""
    returned = connection.execute(
        update(lanes)
        .where(_held(lane))
        .values(lease_until=None, due_at=case((_untouched(lane), due_at), else_=lanes.c.due_at))
    )
    return returned.rowcount > 0


def release_all(connection: Connection, *, now: int) -> int:
    """End every lease; for a process that knows it is the only one. Returns how many there were."""
    return connection.execute(
        update(lanes)
        .where(lanes.c.lease_until.is_not(None))
        .values(lease_until=None, due_at=_unless_parked(now))
    ).rowcount


def backlog(connection: Connection, endpoint: EndpointKey | None = None) -> Backlog:
    """Return how much has not been taken, by one endpoint or by all."""
    query = select(func.count(), func.count(lanes.c.parked_at), func.min(lanes.c.waiting_since)).where(
        lanes.c.waiting_since.is_not(None)
    )
    row = connection.execute(query if endpoint is None else query.where(_of(endpoint))).one()
    return Backlog(waiting=row[0], parked=row[1], oldest=row[2])


def try_again(connection: Connection, endpoint: EndpointKey, *, now: int) -> int:
    """Make every lane of the endpoint that has something to send due at once, parked ones too.

    Each has a whole schedule before it again. Returns how many there were. A lane that is leased is tried
    again when its result is in. One that is parked with nothing to send is no longer parked.
    """
    connection.execute(
        update(lanes)
        .where(_of(endpoint), lanes.c.parked_at.is_not(None), lanes.c.waiting_since.is_(None))
        .values(parked_at=None)
    )
    asked = exists().where(
        replays.c.tenant == lanes.c.tenant,
        replays.c.endpoint_ref == lanes.c.endpoint_ref,
        replays.c.room_ref == lanes.c.room_ref,
    )
    newest = (
        select(rooms.c.last_sequence)
        .where(rooms.c.tenant == lanes.c.tenant, rooms.c.id == lanes.c.room_ref)
        .scalar_subquery()
    )
    return connection.execute(
        update(lanes)
        .where(_of(endpoint), lanes.c.waiting_since.is_not(None))
        .where(or_(lanes.c.acked_sequence < newest, asked))
        .values(due_at=now, attempts=0, refusals=0, parked_at=None)
    ).rowcount


def _received_at(connection: Connection, lane: Lane, sequence: int) -> int | None:
    event = {"tenant": lane.tenant, "room_ref": lane.room_ref, "sequence": sequence}
    found: int | None = connection.execute(RECEIVED_AT, event).scalar_one_or_none()
    return found


def _named(lane: Lane) -> dict[str, object]:
    """Return what names the lane in the statements that are built once."""
    return {"_tenant": lane.tenant, "_endpoint_ref": lane.endpoint_ref, "_room_ref": lane.room_ref}


def _lane(lane: Lane) -> ColumnElement[bool]:
    return and_(
        lanes.c.tenant == lane.tenant,
        lanes.c.endpoint_ref == lane.endpoint_ref,
        lanes.c.room_ref == lane.room_ref,
    )


def _of(endpoint: EndpointKey) -> ColumnElement[bool]:
    owner, endpoint_ref = endpoint
    return and_(lanes.c.owner == owner, lanes.c.endpoint_ref == endpoint_ref)


def _held(lane: Lane) -> ColumnElement[bool]:
    return and_(_lane(lane), lanes.c.lease_epoch == lane.epoch, lanes.c.lease_until.is_not(None))


def _untouched(lane: Lane) -> ColumnElement[bool]:
    return lanes.c.due_at == lane.until


def _unless_parked(due_at: int) -> ColumnElement[int | None]:
    # It may have been parked by hand during the try.
    return case((lanes.c.parked_at.is_(None), due_at))

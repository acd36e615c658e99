"""Notices: operational webhooks, one row for each endpoint that is still to take one.

A notice is stored in the transaction that makes true what it tells, with its exact text, and for each
endpoint by itself: none is lost and none is invented, whoever dies when. It goes out like a batch, but on its
own: no order is promised, and one that is not taken holds up no other::

    due ──lease──▶ leased ──taken, or given up──▶ gone
     ▲               │
     ├──── fail ─────┤   due at the next try
     ├─ lease ends ──┘   the worker died; its late result is refused by the epoch
     └─ the endpoint is changed or resumed

While a notice is leased its ``due_at`` is the end of the lease, so that a dead worker's notices come back by
themselves; any other value there says that the endpoint was changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.names import key
from openmeet_appservice.store import due_endpoints, lanes
from openmeet_appservice.store.due_endpoints import DueEndpoint
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey, is_endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import endpoint_tenants, endpoints, notices, tenants

EXPIRE_AT_ONCE = 2000
"""How many are dropped in one transaction, for ingest waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice as it was found, or, with *epoch* and *until*, as it is leased.

    Parameters
    ----------
    owner
        Whose endpoint it is for: a tenant's, or the platform's.
    id
        The ``webhook-id``, the same on every try.
    tenant, tenant_id
        Whom it is about, and as OpenMeet gave it; both empty where it is about no tenant.
    body
        Exactly as it is signed.
    attempts
        How often it was not taken.
    epoch
        The number of the lease; a result counts only while it is the newest.
    until
        The end of the lease (milliseconds since the epoch).
    """

    owner: str
    endpoint_ref: str
    id: str
    tenant: str
    tenant_id: str
    type: str
    body: str
    attempts: int
    epoch: int
    until: int

    @property
    def endpoint(self) -> EndpointKey:
        """The endpoint it is for."""
        return self.owner, self.endpoint_ref


def add(
    connection: Connection,
    tenant: str,
    type: str,
    data: Mapping[str, object],
    *,
    now: int,
    new_id: NewId,
    but: EndpointKey | None = None,
) -> int:
    """Store a notice for each endpoint that takes the type and gets the tenant's events.

    Call it in the transaction that makes true what it tells, and wake ``notify`` afterwards.

    Parameters
    ----------
    tenant
        Whom it is about; `PLATFORM` where it is about no tenant: then only the platform's endpoints get it,
        whichever tenants they serve.
    data
        What the body's ``data`` holds besides ``tenant``.
    now
        The body's ``timestamp``, in milliseconds since the epoch.
    but
        An endpoint that does not get it.

    Returns how many were stored.
    """
    takers = _takers(connection, tenant, type, but)
    if not takers:
        return 0
    given = connection.execute(select(tenants.c.tenant_id).where(tenants.c.tenant == tenant)).scalar()
    body = dumps({"type": type, "timestamp": to_rfc3339(now), "data": {"tenant": given, **data}})
    rows = [
        {
            "owner": owner,
            "endpoint_ref": ref,
            "id": new_id("msg"),
            "tenant": tenant,
            "type": type,
            "body": body,
            "created_at": now,
            "due_at": now,
            "attempts": 0,
            "lease_epoch": 0,
        }
        for owner, ref in takers
    ]
    connection.execute(insert(notices), rows)
    return len(rows)


def takes(type: str) -> ColumnElement[bool]:
    """Return whether an endpoint takes webhooks of that type, as SQL."""
    # A list of names, none of which is part of another's quoted form.
    return or_(endpoints.c.types.is_(None), endpoints.c.types.contains(f'"{type}"', autoescape=True))


def serves(tenant: str) -> ColumnElement[bool]:
    """Return whether an endpoint gets what is about the tenant, as SQL."""
    listed = select(endpoint_tenants.c.endpoint_ref).where(endpoint_tenants.c.tenant == tenant)
    return or_(endpoints.c.tenant == tenant, endpoints.c.every_tenant, endpoints.c.id.in_(listed))


def endpoints_due(
    connection: Connection, *, now: int, but: Collection[EndpointKey] = ()
) -> list[DueEndpoint]:
    """Return the endpoints that may be called and have due notices; see `due_endpoints.find`.

    The one try that an open breaker lets through is left to a room's events, where any are due: a receiver
    may choke on notices alone.
    """
    return [
        due
        for due in due_endpoints.find(connection, notices, now=now, but=but)
        if not (due.probing and lanes.is_due(connection, due.key, now=now))
    ]


def next_due(connection: Connection, *, now: int) -> int | None:
    """Return when a notice will be due that is not due now; see `due_endpoints.next_due`."""
    return due_endpoints.next_due(connection, notices, now=now)


def due(
    connection: Connection, endpoint: EndpointKey, *, now: int, limit: int, untried_first: bool = False
) -> list[Notice]:
    """Return up to *limit* due notices of the endpoint, the longest due first.

    They are locked until the transaction ends.

    Parameters
    ----------
    untried_first
        Those that failed least before all: a probe with one that the endpoint never takes would say nothing
        of the others.
    """
    query = (
        select(
            notices.c.owner,
            notices.c.endpoint_ref,
            notices.c.id,
            notices.c.tenant,
            func.coalesce(tenants.c.tenant_id, ""),
            notices.c.type,
            notices.c.body,
            notices.c.attempts,
            notices.c.lease_epoch,
        )
        .outerjoin_from(notices, tenants, tenants.c.tenant == notices.c.tenant)
        .where(_of(endpoint), notices.c.due_at <= now)
        .where(or_(notices.c.lease_until.is_(None), notices.c.lease_until <= now))
        .order_by(*((notices.c.attempts,) if untried_first else ()), notices.c.due_at, notices.c.created_at)
        .limit(limit)
        .with_for_update(of=notices, skip_locked=True)
    )
    return [Notice(*row, until=now) for row in connection.execute(query)]


def lease(connection: Connection, found: Sequence[Notice], *, until: int) -> list[Notice]:
    """Take the notices that `due` returned, until *until* (milliseconds since the epoch)."""
    if not found:
        return []
    connection.execute(
        update(notices)
        .where(
            notices.c.owner == bindparam("_owner"),
            notices.c.endpoint_ref == bindparam("_endpoint_ref"),
            notices.c.id == bindparam("_id"),
        )
        .values(lease_epoch=bindparam("_epoch"), lease_until=until, due_at=until),
        [
            {
                "_owner": notice.owner,
                "_endpoint_ref": notice.endpoint_ref,
                "_id": notice.id,
                "_epoch": notice.epoch + 1,
            }
            for notice in found
        ],
    )
    return [replace(notice, epoch=notice.epoch + 1, until=until) for notice in found]


def drop(connection: Connection, notice: Notice) -> bool:
    """Forget a notice that was taken, or is given up; False when the lease was lost."""
    return connection.execute(delete(notices).where(_held(notice))).rowcount > 0


def fail(connection: Connection, notice: Notice, *, retry_at: int) -> bool:
    """Record that the try failed and when to make the next; False when the lease was lost.

    Where the endpoint was changed meanwhile, it is tried again at once, as if for the first time.
    """
    failed = connection.execute(
        update(notices)
        .where(_held(notice))
        .values(
            attempts=case((_untouched(notice), notice.attempts + 1), else_=0),
            lease_until=None,
            due_at=case((_untouched(notice), retry_at), else_=notices.c.due_at),
        )
    )
    return failed.rowcount > 0


def give_back(connection: Connection, notice: Notice, *, due_at: int) -> bool:
    """End the lease without a result; False when it was lost."""
    returned = connection.execute(
        update(notices)
        .where(_held(notice))
        .values(lease_until=None, due_at=case((_untouched(notice), due_at), else_=notices.c.due_at))
    )
    return returned.rowcount > 0


def release_all(connection: Connection, *, now: int) -> int:
    """End every lease; for a process that knows it is the only one. Returns how many there were."""
    return connection.execute(
        update(notices).where(notices.c.lease_until.is_not(None)).values(lease_until=None, due_at=now)
    ).rowcount


def try_again(connection: Connection, endpoint: EndpointKey, *, now: int) -> int:
    """Make every notice of the endpoint due at once, with a whole schedule before it again.

    Returns how many there were. One that is leased is tried again when its result is in.
    """
    return connection.execute(update(notices).where(_of(endpoint)).values(due_at=now, attempts=0)).rowcount


def give_up(
    connection: Connection,
    endpoint: EndpointKey,
    *,
    types: Collection[str] | None,
    tenant_ids: Collection[str] | None,
) -> int:
    """Drop what waits for the endpoint and leads nowhere any more; return how much that was.

    Parameters
    ----------
    types, tenant_ids
        The types that it takes, and the tenants that it serves, as OpenMeet gave them; None: all. What is
        about no tenant is not about one that it does not serve.
    """
    unwanted = []
    if types is not None:
        unwanted.append(notices.c.type.not_in(sorted(types)))
    if tenant_ids is not None:
        unwanted.append(notices.c.tenant.not_in([PLATFORM, *map(key, tenant_ids)]))
    if not unwanted:
        return 0
    return connection.execute(delete(notices).where(_of(endpoint), or_(*unwanted))).rowcount


def drop_all(connection: Connection, endpoint: EndpointKey) -> int:
    """Drop everything that waits for the endpoint, which exists no more; return how much that was."""
    return connection.execute(delete(notices).where(_of(endpoint))).rowcount


def expire(connection: Connection, *, before: int) -> int:
    """Drop up to `EXPIRE_AT_ONCE` notices stored before *before* (milliseconds since the epoch).

    Returns how many; repeat it while there were any. They are those of endpoints that were paused, disabled
    or dead all that time: every other one ends with its schedule.
    """
    old = (
        select(notices.c.owner, notices.c.endpoint_ref, notices.c.id)
        .where(notices.c.created_at < before)
        .where(or_(notices.c.lease_until.is_(None), notices.c.lease_until < before))
        .limit(EXPIRE_AT_ONCE)
    )
    dropped = 0
    for row in connection.execute(old).all():
        this = and_(
            notices.c.owner == row.owner,
            notices.c.endpoint_ref == row.endpoint_ref,
            notices.c.id == row.id,
        )
        dropped += connection.execute(delete(notices).where(this)).rowcount
    return dropped


def count(connection: Connection, endpoint: EndpointKey) -> int:
    """Return how many notices the endpoint has not taken yet."""
    return connection.execute(select(func.count()).select_from(notices).where(_of(endpoint))).scalar_one()


def _takers(connection: Connection, tenant: str, type: str, but: EndpointKey | None) -> Sequence[EndpointKey]:
    about = serves(tenant) if tenant != PLATFORM else endpoints.c.tenant == PLATFORM
    query = select(endpoints.c.tenant, endpoints.c.id).where(takes(type), about)
    if but is not None:
        query = query.where(~is_endpoint(but))
    # Whoever deletes one of them waits, and then drops this too. The weakest lock there is: everybody else
    # may go on changing them.
    query = query.order_by(endpoints.c.tenant, endpoints.c.id).with_for_update(read=True, key_share=True)
    return [(row.tenant, row.id) for row in connection.execute(query)]


def _of(endpoint: EndpointKey) -> ColumnElement[bool]:
    owner, endpoint_ref = endpoint
    return and_(notices.c.owner == owner, notices.c.endpoint_ref == endpoint_ref)


def _held(notice: Notice) -> ColumnElement[bool]:
    return and_(
        _of(notice.endpoint),
        notices.c.id == notice.id,
        notices.c.lease_epoch == notice.epoch,
        notices.c.lease_until.is_not(None),
    )


def _untouched(notice: Notice) -> ColumnElement[bool]:
    return notices.c.due_at == notice.until

"""Webhook endpoints: where events are sent, a tenant's own and the platform's.

An endpoint receives a room from the first event stored after the endpoint was made. For a tenant's own both
happen under the tenant's row lock, so each event is clearly before or after; a platform endpoint begins, in
each room, with the first event whose transaction saw it. When what waits for one is given up, the rows of all
tenants are locked: an event being stored just then would raise a lane that nobody gives up any more.

Whether it is called at all is told by `store.breaker`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, text, update
from sqlalchemy import delete as sql_delete

from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.store import breaker, lanes, notices
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey, is_endpoint
from openmeet_appservice.store.endpoint_row import Endpoint, Wanted, read_row, values
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import (
    batches,
    dead_letters,
    delivery_attempts,
    endpoint_tenants,
    endpoints,
    replays,
    tenants,
)
from openmeet_appservice.store.tables import lanes as lane_rows


@dataclass(frozen=True, slots=True)
class Put:
    """What `put` left behind, and whether it made the endpoint."""

    endpoint: Endpoint
    created: bool


def lock(connection: Connection, owner: str) -> None:
    """Let nobody else change the owner's endpoints, or store the tenant's events, until the transaction ends.

    For a caller who decides by what it reads before it calls `put` or `delete`; these lock by
    themselves. On SQLite a transaction that writes is alone anyway.
    """
    if owner != PLATFORM:
        connection.execute(select(tenants.c.tenant).where(tenants.c.tenant == owner).with_for_update())
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('platform endpoints', 0))"))


def put(
    connection: Connection,
    owner: str,
    name: str,
    wanted: Wanted,
    *,
    secret_encrypted: str | None,
    fresh_secret_encrypted: str,
    now: int,
    new_id: NewId,
) -> Put:
    """Make the endpoint, or change it.

    Nothing is written where nothing changes. A changed endpoint is tried again at once in every room
    that waits for it, as by `resume`, unless it is paused: what was wrong may just have been put right. What
    waits for an endpoint that no longer takes that type of webhook, or that tenant's, is given up.

    Parameters
    ----------
    secret_encrypted
        The only secret to use from now on; None keeps what it has.
    fresh_secret_encrypted
        The secret of an endpoint that is new and was given none.
    """
    lock(connection, owner)
    found = get(connection, owner, name)
    if found is None:
        made = Endpoint(
            owner=owner,
            ref=new_id("endpoint"),
            name=name,
            wanted=wanted,
            secret=secret_encrypted or fresh_secret_encrypted,
            revision=1,
            created_at=now,
            updated_at=now,
        )
        connection.execute(insert(endpoints).values(tenant=owner, id=made.ref, name=name, **values(made)))
        _set_tenants(connection, made)
        return Put(made, created=True)
    secret = secret_encrypted or found.secret
    if (wanted, secret) == (found.wanted, found.secret):
        return Put(found, created=False)
    changed = _touched(found, now, wanted=wanted, secret=secret)
    if secret != found.secret:
        changed = replace(changed, old_secret=None, old_secret_until=None)
    if wanted.tenants != found.wanted.tenants:
        _set_tenants(connection, changed)
    _give_up_lanes(connection, changed)
    notices.give_up(connection, changed.key, types=wanted.types, tenant_ids=wanted.tenants)
    return Put(_resumed(connection, changed, now=now), created=False)


def get(connection: Connection, owner: str, name: str) -> Endpoint | None:
    """Return the owner's endpoint of that name."""
    row = connection.execute(
        select(endpoints).where(endpoints.c.tenant == owner, endpoints.c.name == name)
    ).first()
    return None if row is None else _with_tenants(connection, [read_row(row)])[0]


def by_key(connection: Connection, endpoint: EndpointKey) -> Endpoint | None:
    """Return the endpoint; its ``wanted.tenants`` is not read."""
    owner, ref = endpoint
    row = connection.execute(_BY_KEY, {"owner": owner, "ref": ref}).first()
    return None if row is None else read_row(row)


# Built once, for every claim reads its endpoints: building a statement costs more than running it.
_BY_KEY = select(endpoints).where(
    endpoints.c.tenant == bindparam("owner"), endpoints.c.id == bindparam("ref")
)


def list_page(connection: Connection, owner: str, *, limit: int, after: str | None = None) -> list[Endpoint]:
    """Return up to *limit* of the owner's endpoints by name, those after the name *after*."""
    query = select(endpoints).where(endpoints.c.tenant == owner).order_by(endpoints.c.name).limit(limit)
    if after is not None:
        query = query.where(endpoints.c.name > after)
    return _with_tenants(connection, [read_row(row) for row in connection.execute(query)])


def list_all(connection: Connection) -> list[Endpoint]:
    """Return every endpoint, of whichever owner; their ``wanted.tenants`` are not read."""
    query = select(endpoints).order_by(endpoints.c.tenant, endpoints.c.name)
    return [read_row(row) for row in connection.execute(query)]


def delete(connection: Connection, owner: str, name: str) -> bool:
    """Remove the endpoint and what was still to be sent to it; return whether there was one.

    An attempt under way may still arrive; its outcome is then dropped.
    """
    lock(connection, owner)
    found = get(connection, owner, name)
    if found is None:
        return False
    _drop_lanes(connection, found)
    for table in (dead_letters, delivery_attempts):
        connection.execute(sql_delete(table).where(table.c.owner == owner, table.c.endpoint_ref == found.ref))
    connection.execute(sql_delete(endpoint_tenants).where(endpoint_tenants.c.endpoint_ref == found.ref))
    connection.execute(sql_delete(endpoints).where(is_endpoint(found.key)))
    # After the row itself: whoever is just storing one has that locked.
    notices.drop_all(connection, found.key)
    return True


def pause(connection: Connection, endpoint: Endpoint, *, now: int) -> Endpoint:
    """Send the endpoint nothing more; what comes in meanwhile is kept for it."""
    if endpoint.paused_at is not None:
        return endpoint
    return _save(connection, _touched(endpoint, now, paused_at=now))


def resume(connection: Connection, endpoint: Endpoint, *, now: int) -> Endpoint:
    """Send again, whyever nothing was sent: paused, disabled, resting, breaker open, or rooms parked.

    Every room and notice that waits is due at once, with a whole retry schedule before it.
    """
    return _resumed(connection, _touched(endpoint, now, paused_at=None), now=now)


def rotate_secret(
    connection: Connection, endpoint: Endpoint, *, secret_encrypted: str, old_until: int | None, now: int
) -> Endpoint:
    """Sign with another secret, and with the present one too until *old_until*.

    That is in milliseconds since the epoch; None forgets the present one at once.
    """
    old_secret = None if old_until is None else endpoint.secret
    return _save(
        connection,
        _touched(endpoint, now, secret=secret_encrypted, old_secret=old_secret, old_secret_until=old_until),
    )


def retire_secret(connection: Connection, endpoint: Endpoint, *, now: int) -> Endpoint:
    """Sign no more with the secret of before."""
    if endpoint.old_secret is None:
        return endpoint
    return _save(connection, _touched(endpoint, now, old_secret=None, old_secret_until=None))


def forget_old_secrets(connection: Connection, *, now: int) -> int:
    """Drop the secrets of before whose overlap has ended; return how many."""
    return connection.execute(
        update(endpoints)
        .where(endpoints.c.old_secret_until <= now)
        .values(old_secret=None, old_secret_until=None)
    ).rowcount


def is_unchanged(connection: Connection, endpoint: Endpoint) -> bool:
    """Tell whether the endpoint is as it was read, and keep it so until the transaction ends."""
    revision = connection.execute(
        select(endpoints.c.revision).where(is_endpoint(endpoint.key)).with_for_update(key_share=True)
    ).scalar_one_or_none()
    return revision == endpoint.revision


def _resumed(connection: Connection, endpoint: Endpoint, *, now: int) -> Endpoint:
    lanes.try_again(connection, endpoint.key, now=now)
    notices.try_again(connection, endpoint.key, now=now)
    breaker.reset(connection, endpoint.key)
    _save(connection, endpoint)
    return replace(
        endpoint,
        disabled_at=None,
        rest_until=None,
        breaker=breaker.CLOSED,
        breaker_failures=0,
        breaker_until=None,
    )


def _touched(endpoint: Endpoint, now: int, **changes: Any) -> Endpoint:
    return replace(endpoint, revision=endpoint.revision + 1, updated_at=now, **changes)


def _save(connection: Connection, endpoint: Endpoint) -> Endpoint:
    connection.execute(update(endpoints).where(is_endpoint(endpoint.key)).values(values(endpoint)))
    return endpoint


def _set_tenants(connection: Connection, endpoint: Endpoint) -> None:
    connection.execute(sql_delete(endpoint_tenants).where(endpoint_tenants.c.endpoint_ref == endpoint.ref))
    if endpoint.wanted.tenants:
        rows = [{"tenant": key(tenant), "endpoint_ref": endpoint.ref} for tenant in endpoint.wanted.tenants]
        connection.execute(insert(endpoint_tenants), rows)


def _give_up_lanes(connection: Connection, endpoint: Endpoint) -> None:
    """Drop the lanes that lead nowhere any more, with all that was to be sent in them."""
    wanted = endpoint.wanted
    takes_events = wanted.types is None or ROOM_EVENTS in wanted.types
    if not takes_events:
        _drop_lanes(connection, endpoint)
    elif wanted.tenants is not None:
        _drop_lanes(connection, endpoint, but=wanted.tenants)


def _drop_lanes(connection: Connection, endpoint: Endpoint, *, but: Collection[str] = ()) -> None:
    """Drop the endpoint's lanes, their batches and replays, except those of the tenants *but*."""
    if endpoint.owner == PLATFORM:
        connection.execute(select(tenants.c.tenant).order_by(tenants.c.tenant).with_for_update())
    # Lanes first: whoever is just making a batch holds its lane, so that no batch is left over.
    for table in (lane_rows, batches, replays):
        gone = sql_delete(table).where(table.c.endpoint_ref == endpoint.ref)
        if endpoint.owner != PLATFORM:
            gone = gone.where(table.c.tenant == endpoint.owner)
        elif but:
            gone = gone.where(table.c.tenant.not_in([key(tenant) for tenant in but]))
        connection.execute(gone)


def _with_tenants(connection: Connection, found: list[Endpoint]) -> list[Endpoint]:
    """Add to platform endpoints that serve only some tenants, which."""
    limited = [one.ref for one in found if one.owner == PLATFORM and one.wanted.tenants is not None]
    if not limited:
        return found
    by_ref: dict[str, list[str]] = {}
    for tenant_id, ref in connection.execute(
        select(tenants.c.tenant_id, endpoint_tenants.c.endpoint_ref)
        .join_from(endpoint_tenants, tenants, tenants.c.tenant == endpoint_tenants.c.tenant)
        .where(endpoint_tenants.c.endpoint_ref.in_(limited))
    ):
        by_ref.setdefault(ref, []).append(tenant_id)
    return [
        replace(one, wanted=replace(one.wanted, tenants=tuple(sorted(by_ref.get(one.ref, ())))))
        if one.ref in limited
        else one
        for one in found
    ]

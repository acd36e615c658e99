"""The transaction of delivery that takes due lanes, with what to send in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from openmeet_appservice.delivery.batch import build, candidates
from openmeet_appservice.delivery.loop import Claimed
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.delivery.taking import take
from openmeet_appservice.store import batches, endpoints, lanes, replay_parts
from openmeet_appservice.store.batches import Batch, LoggedEvent, Puppet, Route
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.lanes import Lane

CLAIM_AT_ONCE = 16
"""The most lanes taken in one transaction. Ingest waits while it runs, on SQLite at least."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A batch to send now, in a lane that is ours for a while."""

    lane: Lane
    endpoint: Endpoint
    route: Route
    batch: Batch

    @property
    def key(self) -> EndpointKey:
        """The endpoint."""
        return self.lane.endpoint

    @property
    def context(self) -> Mapping[str, str]:
        """What the log says with every line about it."""
        return {"tenant": self.route.tenant_id, "room": self.route.room_id or ""}

    @property
    def events(self) -> int:
        """How many events the batch holds at most: some may be gone from the log."""
        span = self.batch.last - self.batch.first + 1
        return span if self.lane.narrow is None else min(span, self.lane.narrow)


def claim(
    connection: Connection, shares: Shares, settings: DeliverySettings, *, now: int, new_id: NewId
) -> Claimed[Job]:
    """Lease due lanes as far as *shares* allows, and begin a batch in each that has none under way.

    The batches are committed with the leases: what is sent is in the database first.
    """
    until = now + settings.lease
    leased = take(connection, lanes, shares.copy(), now=now, until=until, most=CLAIM_AT_ONCE)
    jobs = _jobs(connection, leased, settings, now, new_id) if leased else ()
    if len(leased) == CLAIM_AT_ONCE:
        return Claimed(jobs, more=True, next_due=None)
    return Claimed(jobs, more=False, next_due=lanes.next_due(connection, now=now))


def _jobs(
    connection: Connection, leased: Sequence[Lane], settings: DeliverySettings, now: int, new_id: NewId
) -> tuple[Job, ...]:
    """Return each lane with its batch under way, or with one that is begun here."""
    jobs: list[Job] = []
    begun: list[tuple[Lane, Batch]] = []
    for endpoint, tenant, theirs in _grouped(connection, leased):
        found = batches.prepare(connection, tenant, endpoint.ref, [lane.room_ref for lane in theirs])
        fresh = [lane for lane in theirs if lane.room_ref in found and found[lane.room_ref].batch is None]
        again = [lane for lane in fresh if found[lane.room_ref].replaying]
        parts = {lane.room_ref: replay_parts.next_part(connection, lane.key) for lane in again}
        limits = settings.limits(endpoint.wanted.max_batch, endpoint.wanted.max_batch_bytes)
        events = {
            lane.room_ref: candidates(
                batches.events_of(connection, lane, parts.get(lane.room_ref)),
                max_events=min(limits.events, lane.narrow or limits.events),
                max_bytes=limits.size,
            )
            for lane in fresh
        }
        senders = {event.sender for some in events.values() for event in some}
        puppets = batches.puppets(connection, tenant, senders)
        for lane in theirs:
            prepared = found.get(lane.room_ref)
            if prepared is None:
                _report(lane, "a room is due for delivery that is not there")
                continue
            batch = prepared.batch
            if some := events.get(lane.room_ref):
                part = parts.get(lane.room_ref)
                batch = _make(prepared.route, some, puppets, settings.bot, limits.size, now, new_id)
                batch = replace(batch, replay_ref=None if part is None else part.ref)
                begun.append((lane, batch))
            if batch is not None:
                jobs.append(Job(lane, endpoint, prepared.route, batch))
                continue
            # All that it should have sent again is gone from the log; else it cannot be.
            lanes.rest(connection, lane)
            if not prepared.replaying:
                _report(lane, "a room is due for delivery with nothing to deliver")
    batches.begin(connection, begun, now=now)
    return tuple(jobs)


def _grouped(connection: Connection, leased: Sequence[Lane]) -> Iterator[tuple[Endpoint, str, list[Lane]]]:
    """Yield the lanes of each endpoint and tenant together."""
    found: dict[tuple[str, str, str], list[Lane]] = {}
    for lane in leased:
        found.setdefault((*lane.endpoint, lane.tenant), []).append(lane)
    known: dict[tuple[str, str], Endpoint | None] = {}
    for (owner, ref, tenant), theirs in found.items():
        if (owner, ref) not in known:
            known[owner, ref] = endpoints.by_key(connection, (owner, ref))
        endpoint = known[owner, ref]
        if endpoint is not None:
            yield endpoint, tenant, theirs


def _make(
    route: Route,
    events: Sequence[LoggedEvent],
    puppets: Mapping[str, Puppet],
    bot: str,
    max_bytes: int,
    now: int,
    new_id: NewId,
) -> Batch:
    built = build(route, events, puppets, bot=bot, max_bytes=max_bytes, now=now)
    return Batch(new_id("msg"), built.first, built.last, built.body)


def _report(lane: Lane, what: str) -> None:
    # Cannot be, as far as anybody knows; the others go on.
    log.error(
        what,
        extra={"tenant": lane.tenant, "room_ref": lane.room_ref, "endpoint_ref": lane.endpoint_ref},
    )

"""The transactions of delivery: taking due lanes with what to send in them, and recording what came of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import Connection

from openmeet_appservice.delivery.batch import build, candidates
from openmeet_appservice.delivery.policy import Decision, Park, Retry, Taken
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.store import batches, endpoints, lanes
from openmeet_appservice.store.batches import Batch, LoggedEvent, Puppet, Route
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.lanes import EndpointKey, Lane

CLAIM_AT_ONCE = 16
"""The most lanes taken in one transaction. Ingest waits while it runs, on SQLite at least."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A batch to send now, in a lane that is ours for a while."""

    lane: Lane
    route: Route
    batch: Batch


@dataclass(frozen=True, slots=True)
class Claimed:
    """What `claim` took.

    *more* tells that there may be more to take at once; *next_due* is when something else will be due
    (milliseconds since the epoch), None when nothing will.
    """

    jobs: tuple[Job, ...]
    more: bool
    next_due: int | None


def claim(
    connection: Connection, shares: Shares, settings: DeliverySettings, *, now: int, new_id: NewId
) -> Claimed:
    """Lease due lanes as far as *shares* allows, and begin a batch in each that has none under way.

    The batches are committed with the leases: what is sent is in the database first.
    """
    earliest = lanes.next_due(connection)
    if earliest is None or earliest > now:
        return Claimed((), more=False, next_due=earliest)
    leased = _take(connection, shares.copy(), now=now, until=now + settings.lease)
    return Claimed(
        _jobs(connection, leased, settings, now, new_id),
        more=len(leased) == CLAIM_AT_ONCE,
        next_due=lanes.next_due(connection, after=now),
    )


def record(connection: Connection, job: Job, decision: Decision, *, now: int) -> bool:
    """Record what came of a try; False, with nothing changed, when the lease was lost meanwhile."""
    match decision:
        case Taken():
            held = lanes.taken(connection, job.lane, last=job.batch.last, now=now)
            if held:
                batches.end(connection, job.lane, job.batch.webhook_id)
        case Retry(at):
            held = lanes.fail(connection, job.lane, retry_at=at)
        case Park():
            held = lanes.park(connection, job.lane, now=now)
        case _:
            assert_never(decision)
    return held


def _take(connection: Connection, shares: Shares, *, now: int, until: int) -> list[Lane]:
    """Lease due lanes, the longest due first, no endpoint beyond its share."""
    limit = min(CLAIM_AT_ONCE, shares.free)
    taken: list[Lane] = []
    while len(taken) < limit:
        found = lanes.due(connection, now=now, limit=limit - len(taken), but=shares.full())
        allowed = []
        for lane in found:
            if shares.may_start(lane.endpoint):
                shares.start(lane.endpoint)
                allowed.append(lane)
        taken += lanes.lease(connection, allowed, until=until)
        if len(allowed) == len(found) or not endpoints.any_but(connection, shares.full()):
            break
        # An endpoint has used up its share; the next look is at those that it hid.
    return taken


def _jobs(
    connection: Connection, leased: Sequence[Lane], settings: DeliverySettings, now: int, new_id: NewId
) -> tuple[Job, ...]:
    """Return each lane with its batch under way, or with one that is begun here."""
    jobs: list[Job] = []
    begun: list[tuple[Lane, Batch]] = []
    for endpoint, theirs in _by_endpoint(leased).items():
        found = batches.prepare(connection, endpoint, [lane.room_ref for lane in theirs])
        fresh = [lane for lane in theirs if lane.room_ref in found and found[lane.room_ref][1] is None]
        events = {lane.room_ref: _candidates(connection, lane, settings) for lane in fresh}
        senders = {event.sender for some in events.values() for event in some}
        puppets = batches.puppets(connection, endpoint[0], senders)
        for lane in theirs:
            route, batch = found.get(lane.room_ref, (None, None))
            if route is not None and (some := events.get(lane.room_ref)):
                batch = _make(route, some, puppets, settings, now, new_id)
                begun.append((lane, batch))
            if route is not None and batch is not None:
                jobs.append(Job(lane, route, batch))
            else:
                _report_nothing(lane)
    batches.begin(connection, begun, now=now)
    return tuple(jobs)


def _by_endpoint(leased: Sequence[Lane]) -> dict[EndpointKey, list[Lane]]:
    found: dict[EndpointKey, list[Lane]] = {}
    for lane in leased:
        found.setdefault(lane.endpoint, []).append(lane)
    return found


def _candidates(connection: Connection, lane: Lane, settings: DeliverySettings) -> list[LoggedEvent]:
    return candidates(
        batches.events_after(connection, lane),
        max_events=settings.max_batch,
        max_bytes=settings.max_batch_bytes,
    )


def _make(
    route: Route,
    events: Sequence[LoggedEvent],
    puppets: Mapping[str, Puppet],
    settings: DeliverySettings,
    now: int,
    new_id: NewId,
) -> Batch:
    built = build(route, events, puppets, bot=settings.bot, max_bytes=settings.max_batch_bytes, now=now)
    return Batch(new_id("msg"), built.first, built.last, built.body)


def _report_nothing(lane: Lane) -> None:
    # Cannot be, as far as anybody knows. The lane comes back when its lease ends, and the others go on.
    log.error(
        "a room is due for delivery with nothing to deliver",
        extra={"tenant": lane.tenant, "room_ref": lane.room_ref, "endpoint_ref": lane.endpoint_ref},
    )

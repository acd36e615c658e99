"""What delivery promises, as a model: what each endpoint took, and what it may and must be sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from openmeet_appservice.delivery.claim import Job
from openmeet_appservice.delivery.policy import Decision, Refused, Skip, Split, Taken
from openmeet_appservice.domain.replay import Only


def span(first: int, last: int) -> set[int]:
    return set(range(first, last + 1))


@dataclass
class Room:
    """A room: the ids of its events, and when each was stored."""

    tenant: str
    room_id: str
    events: list[str] = field(default_factory=list)
    stored_at: list[int] = field(default_factory=list)

    @property
    def ref(self) -> str:
        return f"room_{self.room_id}"


@dataclass
class Lane:
    """A room as an endpoint has it.

    *settled* is what the service knows to be taken, *accepted* what the receiver took; *owed* are new events
    and *pending* events asked for again that are still to come. *passed* is how far the new events are, taken
    or dead. *under* is the webhook under way, *holder* the job that has the lease.
    """

    began: int
    passed: int
    alive: bool = True
    accepted: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    owed: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    dead: list[tuple[int, int]] = field(default_factory=list)
    under: str | None = None
    holder: Job | None = None


@dataclass
class Endpoint:
    """An endpoint: whose events it takes, and its lanes by room."""

    owner: str
    name: str
    tenants: set[str]
    takes_events: bool = True
    paused: bool = False
    lanes: dict[str, Lane] = field(default_factory=dict)

    def takes(self, room: Room) -> bool:
        return self.takes_events and room.tenant in self.tenants

    def lane(self, room: Room) -> Lane:
        """Return the room's lane; one that is not there has passed everything and begun with nothing."""
        newest = len(room.events)
        lane = self.lanes.setdefault(room.ref, Lane(newest, newest, alive=False))
        if not lane.alive:
            lane.began = lane.passed = newest
        return lane

    def drop_lanes(self, rooms: list[Room]) -> None:
        """Forget what was to be sent of rooms that it does not take any more."""
        for room in rooms:
            lane = self.lane(room)
            if not self.takes(room):
                lane.alive = False
                lane.owed.clear()
                lane.pending.clear()
                lane.under = lane.holder = None


class Model:
    """The endpoints, the rooms, and the bytes that were seen under each webhook-id."""

    def __init__(self, rooms: list[Room], endpoints: list[Endpoint]) -> None:
        self.rooms = {room.ref: room for room in rooms}
        self.endpoints = endpoints
        self.bytes: dict[str, str] = {}

    def of(self, job: Job) -> tuple[Endpoint, Room, Lane]:
        [endpoint] = [
            e for e in self.endpoints if (e.owner, e.name) == (job.endpoint.owner, job.endpoint.name)
        ]
        room = self.rooms[job.lane.room_ref]
        return endpoint, room, endpoint.lane(room)

    def stored(self, room: Room, event_ids: list[str], now: int) -> None:
        first = len(room.events) + 1
        for endpoint in self.endpoints:
            lane = endpoint.lane(room)
            if endpoint.takes(room):
                lane.alive = True
                lane.owed |= span(first, first + len(event_ids) - 1)
        room.events += event_ids
        room.stored_at += [now] * len(event_ids)

    def claimed(self, job: Job) -> None:
        """Check a batch that is about to be sent."""
        endpoint, room, lane = self.of(job)
        batch = job.batch
        assert endpoint.takes(room)
        assert lane.alive
        assert not endpoint.paused
        sequences = _sequences(job)
        assert sequences == list(range(batch.first, batch.last + 1))
        assert _event_ids(job) == room.events[batch.first - 1 : batch.last]
        if lane.under is not None:
            assert batch.webhook_id == lane.under
            assert batch.body == self.bytes[batch.webhook_id]
        else:
            assert batch.webhook_id not in self.bytes
            self.bytes[batch.webhook_id] = batch.body
            if lane.pending:
                assert batch.first == min(lane.pending)
                assert set(sequences) <= lane.pending
            else:
                assert batch.first == lane.passed + 1
        lane.under, lane.holder = batch.webhook_id, job

    def accept(self, job: Job) -> None:
        """The receiver takes a batch."""
        _, _, lane = self.of(job)
        sequences = set(_sequences(job))
        if lane.holder is job:
            # Who lost the lease may repeat anything; who has it, nothing that is known to be taken.
            assert not (sequences & lane.settled) - lane.pending
            new = sequences - span(1, lane.passed)
            assert new in (set(), sequences)
            assert not new or min(new) == lane.passed + 1
        lane.accepted |= sequences

    def recorded(self, job: Job, decision: Decision) -> None:
        """The service has recorded what came of a batch."""
        _, _, lane = self.of(job)
        lane.holder = None
        if isinstance(decision, Split | Taken | Refused | Skip):
            lane.under = None
        if not isinstance(decision, Taken | Refused | Skip):
            return
        sequences = span(job.batch.first, job.batch.last)
        if isinstance(decision, Taken):
            assert sequences <= lane.accepted
            lane.settled |= sequences
        else:
            lane.dead.append((job.batch.first, job.batch.last))
        if job.batch.first > lane.passed:
            lane.passed = job.batch.last
            lane.owed -= sequences
        else:
            lane.pending -= sequences

    def replayed(
        self,
        endpoint: Endpoint,
        only: Only,
        rooms: list[Room],
        begin: int = 1,
        since: int = 0,
        letters: list[tuple[str, int, int]] | None = None,
    ) -> tuple[int, int]:
        """Expect what is asked for; return in how many rooms, and how many events that adds."""
        found = []
        for room in rooms:
            lane = endpoint.lane(room)
            first = max([begin, *[n for n, at in enumerate(room.stored_at, 1) if at >= since][:1]])
            if not endpoint.takes(room) or not room.events or room.stored_at[-1] < since:
                continue
            window = span(first, lane.passed)
            usable = [(a, b) for a, b in lane.dead if letters is None or (room.ref, a, b) in letters]
            wanted = set().union(*[span(a, b) for a, b in usable if span(a, b) & window])
            if only is Only.ALL:
                wanted = window
            elif only is Only.MISSING:
                wanted |= window & span(1, lane.began)
            lane.dead = [(a, b) for a, b in lane.dead if (a, b) not in usable or not span(a, b) <= wanted]
            if only is not Only.FAILED and first <= lane.began <= lane.passed:
                lane.began = first - 1
            added = wanted - lane.pending
            if added:
                began, lane.alive = lane.began, True
                lane.began = began
                lane.pending |= added
                found.append(len(added))
        return len(found), sum(found)

    def check_nothing_is_owed(self) -> None:
        """At the end: everything that was meant for an endpoint has arrived there."""
        for endpoint in self.endpoints:
            for room in self.rooms.values():
                lane = endpoint.lane(room)
                assert not lane.owed, (endpoint.name, room.ref, lane)
                assert not lane.pending, (endpoint.name, room.ref, lane)
                if endpoint.takes(room):
                    assert not lane.dead, (endpoint.name, room.ref, lane)
                if lane.alive:
                    assert lane.passed == len(room.events)


def _events(job: Job) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(job.batch.body)["data"]["events"]
    return events


def _sequences(job: Job) -> list[int]:
    return [event["sequence"] for event in _events(job)]


def _event_ids(job: Job) -> list[str]:
    return [event["event"]["event_id"] for event in _events(job)]

"""The verdict: what the receiver saw, held against what was sent; pure.

It is told of each request when it has come in whole, and again when it is about to be answered. For every
endpoint and room it knows two numbers: up to where events have come, and up to where they were taken. From
these follows what is allowed::

    the next event      only when all before it were taken, and never one further
    the same webhook    at any time, but with the same bytes to the same endpoint
    an event again      under another webhook-id only after its batch was to be split: refused as too large
                        (413), or as wrong (400, 422) three times, and never taken; in a smaller batch
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

REFUSALS = 3
"""After so many refusals (400, 422) of a batch its events may come one by one."""

EXAMPLES = 5
"""How many faults of one kind are told in words."""


class Outcome(Enum):
    """What the receiver's answer means to the sender."""

    TAKEN = "taken"
    """2xx, though it may get lost on its way."""
    TOO_LARGE = "too large"
    REFUSED = "refused"
    FAILED = "failed"


class Fault(Enum):
    """What must never be seen."""

    UNSIGNED = "signature wrong"
    FOREIGN = "another tenant's event"
    ALTERED = "event altered"
    UNKNOWN = "event that was never sent"
    ORDER = "events in another order"
    GAP = "gap"
    EARLY = "event before those before it were taken"
    REWRITTEN = "webhook-id with other bytes"
    DOUBLED = "event under a second webhook-id"
    LOST = "event lost"


@dataclass(frozen=True, slots=True)
class Seen:
    """One event in a request."""

    sequence: int
    event_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as its receiver read it.

    Parameters
    ----------
    endpoint
        At whose address it came.
    digest
        Of the whole body.
    signed
        Whether the signature is that of this endpoint's secret.
    header_tenant
        ``x-tenant-id``.
    tenant, room_id, events
        From the body.
    """

    endpoint: str
    webhook_id: str
    digest: bytes
    signed: bool
    header_tenant: str
    tenant: str
    room_id: str
    events: tuple[Seen, ...]


@dataclass(slots=True)
class Room:
    """A room: whose it is, and the events sent in it so far, in order: ids and digests."""

    tenant: str
    events: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it all.

    Parameters
    ----------
    faults
        How many there are of each kind; none of a sound run.
    examples
        Some of them in words.
    events
        How many events were to arrive, counted once for each endpoint they go to.
    arrived
        How many of them were taken.
    requests
        How many requests came.
    repeats
        Requests with a webhook-id that had come before.
    needless
        Of these, how many had been taken already: the sender did not learn of it, or died before it wrote it
        down.
    late
        Of these, how many came when later events of the room had come already.
    splits
        Batches that came in place of one that was to be split.
    """

    faults: Mapping[Fault, int]
    examples: tuple[str, ...]
    events: int
    arrived: int
    requests: int
    repeats: int
    needless: int
    late: int
    splits: int

    @property
    def holds(self) -> bool:
        """Whether everything is as promised."""
        return not self.faults


@dataclass(slots=True)
class _Batch:
    digest: bytes
    lane: tuple[str, str]
    first: int
    last: int
    taken: bool = False
    too_large: bool = False
    refusals: int = 0

    @property
    def most_after(self) -> int:
        """How many events a batch in place of this one may hold; 0 when there may be none."""
        if self.taken:
            return 0
        if self.too_large:
            return (self.last - self.first + 1) // 2
        return 1 if self.refusals >= REFUSALS else 0


@dataclass(slots=True)
class _Lane:
    come: int = 0
    taken: int = 0
    newest: _Batch | None = None
    batches: list[_Batch] = field(default_factory=list)
    """Those that hold events which have not been taken yet."""


class Judge:
    """Watches what a receiver gets.

    Parameters
    ----------
    endpoints
        Whose each is, by name; None: the platform's, which gets every tenant's events.
    rooms
        The rooms by their ids. Their events may be added while it goes on, but before they are sent.
    """

    def __init__(self, endpoints: Mapping[str, str | None], rooms: Mapping[str, Room]) -> None:
        self._endpoints = endpoints
        self._rooms = rooms
        self._lanes = {
            (endpoint, room_id): _Lane()
            for endpoint, owner in endpoints.items()
            for room_id, room in rooms.items()
            if owner in (None, room.tenant)
        }
        self._batches: dict[str, _Batch] = {}
        self._faults: Counter[Fault] = Counter()
        self._examples: list[str] = []
        self._told: Counter[Fault] = Counter()
        self._requests: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self.arrived = 0
        """How many events were taken so far, counted once for each endpoint."""

    def came(self, request: Request) -> None:
        """Take note of a request that has come in whole."""
        self._requests[request.endpoint] += 1
        if not request.signed:
            self._fault(Fault.UNSIGNED, request, "")
        lane = self._lanes.get((request.endpoint, request.room_id))
        room = self._rooms.get(request.room_id)
        if lane is None or room is None or {request.tenant, request.header_tenant} != {room.tenant}:
            self._fault(Fault.FOREIGN, request, f"of {request.tenant}, header {request.header_tenant}")
            return
        if not request.events:
            self._fault(Fault.UNKNOWN, request, "no event at all")
            return
        self._compare(request, room)
        first, last = request.events[0].sequence, request.events[-1].sequence
        batch = self._batches.get(request.webhook_id)
        if batch is not None:
            self._repeated(request, batch, lane)
            return
        self._place(request, lane, first, last)
        batch = _Batch(request.digest, (request.endpoint, request.room_id), first, last)
        self._batches[request.webhook_id] = batch
        lane.newest = batch
        lane.batches.append(batch)
        lane.come = max(lane.come, last)

    def answering(self, request: Request, outcome: Outcome) -> None:
        """Take note of how a request is about to be answered."""
        batch = self._batches.get(request.webhook_id)
        lane = self._lanes.get((request.endpoint, request.room_id))
        if batch is None or lane is None:
            return
        match outcome:
            case Outcome.TAKEN:
                batch.taken = True
                if batch.last > lane.taken:
                    self.arrived += batch.last - lane.taken
                    lane.taken = batch.last
                    lane.batches = [each for each in lane.batches if each.last > lane.taken]
            case Outcome.TOO_LARGE:
                batch.too_large = True
            case Outcome.REFUSED:
                batch.refusals += 1

    def requests_to(self, endpoint: str) -> int:
        """Return how many requests came to an endpoint."""
        return self._requests[endpoint]

    def taken_by(self, endpoint: str) -> int:
        """Return how many events an endpoint took."""
        return sum(lane.taken for (name, _), lane in self._lanes.items() if name == endpoint)

    @property
    def expected(self) -> int:
        """How many events are to arrive, counted once for each endpoint, as far as sent."""
        return sum(len(self._rooms[room_id].events) for _, room_id in self._lanes)

    def verdict(self) -> Verdict:
        """Return the verdict; what has not come by now is lost."""
        faults, examples = self._faults.copy(), list(self._examples)
        for (endpoint, room_id), lane in self._lanes.items():
            missing = len(self._rooms[room_id].events) - lane.taken
            if missing > 0:
                faults[Fault.LOST] += missing
                if len(examples) < EXAMPLES * len(Fault):
                    examples.append(f"{Fault.LOST.value}: {endpoint} {room_id} has only {lane.taken} events")
        return Verdict(
            faults=dict(faults),
            examples=tuple(examples),
            events=self.expected,
            arrived=self.arrived,
            requests=self._requests.total(),
            **{name: self._counts[name] for name in ("repeats", "needless", "late", "splits")},
        )

    def _compare(self, request: Request, room: Room) -> None:
        """Hold each event against what was sent at its place."""
        for place, seen in enumerate(request.events):
            if seen.sequence != request.events[0].sequence + place:
                self._fault(Fault.GAP, request, f"{seen.sequence} inside")
            if not 1 <= seen.sequence <= len(room.events):
                self._fault(Fault.UNKNOWN, request, f"number {seen.sequence}")
                continue
            event_id, digest = room.events[seen.sequence - 1]
            if seen.event_id != event_id:
                self._fault(Fault.ORDER, request, f"number {seen.sequence} is {seen.event_id}")
            elif seen.digest != digest:
                self._fault(Fault.ALTERED, request, seen.event_id)

    def _repeated(self, request: Request, batch: _Batch, lane: _Lane) -> None:
        self._counts["repeats"] += 1
        if batch.digest != request.digest or batch.lane != (request.endpoint, request.room_id):
            self._fault(Fault.REWRITTEN, request, request.webhook_id)
        self._counts["needless"] += batch.taken
        self._counts["late"] += batch is not lane.newest

    def _place(self, request: Request, lane: _Lane, first: int, last: int) -> None:
        """Look whether this is the place for a new batch."""
        if first > lane.come + 1:
            self._fault(Fault.GAP, request, f"{first} after {lane.come}")
        elif first > lane.taken + 1:
            self._fault(Fault.EARLY, request, f"{first} while {lane.taken} is the last that was taken")
        elif first <= lane.taken:
            self._fault(Fault.DOUBLED, request, f"{first} was taken")
        elif before := [batch for batch in lane.batches if batch.last >= first]:
            most = min(batch.most_after for batch in before)
            if last - first + 1 > most:
                self._fault(Fault.DOUBLED, request, f"{first} to {last} came before, in no batch to split")
            else:
                self._counts["splits"] += 1

    def _fault(self, kind: Fault, request: Request, words: str) -> None:
        self._faults[kind] += 1
        if self._told[kind] < EXAMPLES:
            self._told[kind] += 1
            self._examples.append(f"{kind.value}: {request.endpoint} {request.room_id} {words}".rstrip())


def digest_of(raw: bytes) -> bytes:
    """Return what stands for bytes that are compared later."""
    return hashlib.blake2b(raw, digest_size=16).digest()


def digest_of_event(event: Any) -> bytes:
    """Return what stands for an event, its keys in their order."""
    return digest_of(orjson.dumps(event))


def read_request(endpoint: str, webhook_id: str, header_tenant: str, raw: bytes, *, signed: bool) -> Request:
    """Return the request of which *raw* is the body."""
    data = orjson.loads(raw)["data"]
    return Request(
        endpoint=endpoint,
        webhook_id=webhook_id,
        digest=digest_of(raw),
        signed=signed,
        header_tenant=header_tenant,
        tenant=data["tenant"],
        room_id=data["room"]["room_id"],
        events=tuple(
            Seen(each["sequence"], each["event"]["event_id"], digest_of_event(each["event"]))
            for each in data["events"]
        ),
    )

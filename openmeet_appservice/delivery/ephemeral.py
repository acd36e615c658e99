"""Typing and receipts on their way to OpenMeet: best effort, and never in the way of what must arrive.

Nothing of it is stored. What Synapse pushes is kept for a moment, so that much becomes little, then sent once
to every endpoint that takes it and can be called. There is no retry and no record, and a failure says nothing
of the endpoint: the next update tells what is true then::

    pushed ──a moment──▶ one update for each room ──▶ waits for each endpoint ──a free slot──▶ sent once
                                                           │ newer ones of the same room are merged into it
                                                           └──too old, or too many──▶ dropped
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice import errors, metrics
from openmeet_appservice.delivery.batch import sender
from openmeet_appservice.delivery.posting import Poster, Posting
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.ephemeral import RoomUpdate, Updates
from openmeet_appservice.domain.moments import Now, to_rfc3339
from openmeet_appservice.domain.webhook_types import ROOM_EPHEMERAL
from openmeet_appservice.store import batches, routes, takers
from openmeet_appservice.store.batches import Puppet, Route
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.secretbox import SecretBox

MOMENT = 0.25
"""Seconds for which updates are gathered before they are sent."""

SLOTS = 8
"""How many may be on their way at once. A single endpoint gets at most half of them."""

MOST_WAITING = 500
"""Of how many rooms updates wait for one endpoint."""

STALE_MS = 10_000
"""Milliseconds after which what waits for an endpoint is no longer worth telling."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A room of ours: whose, where, who takes its updates, and whose puppets the people in them are."""

    route: Route
    takers: Sequence[Endpoint]
    puppets: Mapping[str, Puppet]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A room's update that waits for an endpoint, last added to at *since* (milliseconds since the epoch)."""

    route: Route
    puppets: Mapping[str, Puppet]
    update: RoomUpdate
    since: int


@dataclass(slots=True)
class Queue:
    """What waits for one endpoint, by room, the longest waiting first."""

    endpoint: Endpoint
    rooms: OrderedDict[str, Waiting] = field(default_factory=OrderedDict)


class Ephemeral:
    """Sends updates from `start` to `stop`.

    Parameters
    ----------
    bot
        The bot's user id.
    sleep
        Waits that many seconds.
    """

    def __init__(
        self,
        database: Database,
        client: Poster,
        secrets: SecretBox,
        *,
        bot: str,
        now: Now,
        new_id: NewId,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._posting = Posting(client, secrets, now)
        self._bot = bot
        self._now = now
        self._new_id = new_id
        self._sleep = sleep
        self._updates = Updates()
        self._something = asyncio.Event()
        self._queues: dict[EndpointKey, Queue] = {}
        self._shares = Shares(SLOTS)
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def take(self, elements: Sequence[Any]) -> None:
        """Take the ephemeral elements of a transaction, whatever they are."""
        self._updates.read(elements)
        if self._updates:
            self._something.set()

    def start(self) -> None:
        """Begin to send."""
        self._loop = asyncio.create_task(self._run(), name="ephemeral")

    async def stop(self) -> None:
        """Stop at once: none of it will be missed."""
        tasks = [*self._under_way, *([] if self._loop is None else [self._loop])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._something.wait()
            await self._sleep(MOMENT)
            self._something.clear()
            updates, self._updates = self._updates, Updates()
            _drop(updates.dropped)
            try:
                places = await self._database.read(_places, updates, now=self._now())
                self._enqueue(updates, places)
                self._pump()
            except errors.DatabaseUnavailable as error:
                log.debug("typing and receipts of %d rooms are dropped: %s", len(updates), error)
                _drop(len(updates))
            except Exception:
                log.exception("typing and receipts of %d rooms are dropped", len(updates))
                _drop(len(updates))

    def _enqueue(self, updates: Updates, places: Mapping[str, Place]) -> None:
        for room_id, update in updates.items():
            if (place := places.get(room_id)) is not None:
                for endpoint in place.takers:
                    self._add(endpoint, room_id, place, update)

    def _add(self, endpoint: Endpoint, room_id: str, place: Place, update: RoomUpdate) -> None:
        queue = self._queues.setdefault(endpoint.key, Queue(endpoint))
        queue.endpoint = endpoint
        known = queue.rooms.get(room_id)
        # Each endpoint merges into an update of its own.
        merged, puppets = RoomUpdate(), dict(place.puppets)
        if known is not None:
            merged.merge(known.update)
            puppets = {**known.puppets, **puppets}
        merged.merge(update)
        queue.rooms[room_id] = Waiting(place.route, puppets, merged, self._now())
        if len(queue.rooms) > MOST_WAITING:
            queue.rooms.popitem(last=False)
            _drop(1)

    def _pump(self) -> None:
        """Send what waits, as far as there are slots."""
        for key, queue in list(self._queues.items()):
            while queue.rooms and self._shares.may_start(key):
                _, waiting = queue.rooms.popitem(last=False)
                if self._now() - waiting.since > STALE_MS:
                    _drop(1)
                else:
                    self._begin(queue.endpoint, waiting)
            if not queue.rooms:
                del self._queues[key]

    def _begin(self, endpoint: Endpoint, waiting: Waiting) -> None:
        self._shares.start(endpoint.key)
        task = asyncio.create_task(self._send(endpoint, waiting), name="an ephemeral webhook")
        self._under_way.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            self._shares.end(endpoint.key)
            if not task.cancelled():
                self._pump()

        task.add_done_callback(ended)

    async def _send(self, endpoint: Endpoint, waiting: Waiting) -> None:
        route = waiting.route
        try:
            text = body(route, waiting.update, waiting.puppets, bot=self._bot, now=self._now())
            answer = await self._posting.post(endpoint, self._new_id("msg"), text.encode(), route.tenant_id)
        except errors.SecretUnreadable:
            # The lanes say so in the log, each time.
            metrics.EPHEMERAL.labels("unsigned").inc()
        except Exception:
            metrics.EPHEMERAL.labels("failed").inc()
            log.exception("typing and receipts could not be sent")
        else:
            metrics.EPHEMERAL.labels(answer.outcome).inc()


def body(route: Route, update: RoomUpdate, puppets: Mapping[str, Puppet], *, bot: str, now: int) -> str:
    """Return the body of a ``room.ephemeral`` webhook (*now* in milliseconds since the epoch)."""
    data: dict[str, object] = {"tenant": route.tenant_id, "room": route.shown()}
    if update.typing is not None:
        data["typing"] = {"users": [sender(user_id, puppets, bot) for user_id in update.typing]}
    if update.receipts:
        data["receipts"] = [
            {
                "event_id": receipt.event_id,
                "receipt_type": receipt.receipt_type,
                "sender": sender(receipt.user_id, puppets, bot),
                "ts": receipt.ts,
                **({} if receipt.thread_id is None else {"thread_id": receipt.thread_id}),
            }
            for receipt in update.receipts.values()
        ]
    return dumps({"type": ROOM_EPHEMERAL, "timestamp": to_rfc3339(now), "data": data})


def _places(connection: Connection, updates: Updates, *, now: int) -> dict[str, Place]:
    """Return where the updates come from, of the rooms of ours whose updates somebody takes."""
    found = routes.by_room_ids(connection, [room_id for room_id, _ in updates.items()])
    tenants = {tenant for tenant, _ in found.values()}
    taking = takers.callable_now(connection, ROOM_EPHEMERAL, tenants, now=now) if tenants else {}
    people: dict[str, set[str]] = {}
    for room_id, update in updates.items():
        if room_id in found and (tenant := found[room_id][0]) in taking:
            people.setdefault(tenant, set()).update(update.user_ids)
    puppets = {tenant: batches.puppets(connection, tenant, users) for tenant, users in people.items()}
    return {
        room_id: Place(route, taking[tenant], puppets[tenant])
        for room_id, (tenant, route) in found.items()
        if tenant in taking
    }


def _drop(number: int) -> None:
    if number:
        metrics.EPHEMERAL.labels("dropped").inc(number)

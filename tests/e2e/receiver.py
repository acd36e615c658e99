"""OpenMeet's side of webhooks: what came, when it is willing to take it, and what must never happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from openmeet_appservice.dev.ports import LOOPBACK
from openmeet_appservice.dev.stand_in import StandIn
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.web.server import Listener

from .waiting import LONG, until_true

_GONE = "/gone"

Mood = Literal["takes", "fails", "breaks", "waits"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One request that came, taken or not; *data* is the part of its body that tells of events."""

    webhook_id: str
    raw: bytes
    data: Mapping[str, Any]
    taken: bool

    @property
    def log_id(self) -> str:
        """Which room's log it is of."""
        return str(self.data["room"]["log_id"])

    @property
    def sequences(self) -> list[int]:
        """The numbers of its events."""
        return [event["sequence"] for event in self.data["events"]]


@dataclass(frozen=True, slots=True)
class Told:
    """Any other webhook that came, taken or not."""

    webhook_id: str
    type: str
    data: Mapping[str, Any]
    taken: bool


@dataclass(slots=True)
class Receiver:
    """Listens on *port* as long as it is up, and checks signatures as OpenMeet would."""

    port: int
    secret: str = field(default_factory=new_secret)
    mood: Mood = "takes"
    batches: list[Batch] = field(default_factory=list)
    others: list[Told] = field(default_factory=list)
    _go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: int = 0
    _stand_in: StandIn | None = None
    _listener: Listener | None = None

    @property
    def url(self) -> str:
        """Where webhooks are to be sent."""
        return f"http://{LOOPBACK}:{self.port}/webhooks"

    @property
    def gone_url(self) -> str:
        """Where every webhook is answered 410."""
        return f"http://{LOOPBACK}:{self.port}{_GONE}"

    @property
    def stand_in(self) -> StandIn:
        """The stand-in for OpenMeet behind it."""
        if self._stand_in is None:
            self._stand_in = StandIn(self.secret)
        return self._stand_in

    async def up(self) -> None:
        """Listen."""
        app = self.stand_in.app()
        app.middlewares.append(self._notice())
        self._listener = Listener("webhooks", app, Address(LOOPBACK, self.port), drain_seconds=0.1)
        await self._listener.start()

    async def down(self) -> None:
        """Listen no more; connections are refused."""
        self.go_on()
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None

    def go_on(self) -> None:
        """Take webhooks, those that wait included."""
        self.mood = "takes"
        self._go_on.set()

    async def somebody_waits(self) -> None:
        """Return once a webhook waits for its answer."""
        await until_true(lambda: self._waiting, "a webhook waits for its answer")

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return each event that was taken, once, in the order they came; only those of type *kind*."""
        found: dict[str, dict[str, Any]] = {}
        for batch in self.batches:
            if batch.taken:
                for event in batch.data["events"]:
                    found.setdefault(event["event"]["event_id"], event)
        return [event for event in found.values() if kind in (None, event["event"]["type"])]

    async def told(
        self, kind: str, wanted: Callable[[Mapping[str, Any]], object] = lambda data: True
    ) -> Mapping[str, Any]:
        """Return the data of the first webhook of that type that was taken and is *wanted*, once it came."""

        def look() -> list[Mapping[str, Any]]:
            return [o.data for o in self.others if o.type == kind and o.taken and wanted(o.data)]

        await until_true(look, f"{kind} comes")
        return look()[0]

    def texts(self, room_id: str) -> list[str]:
        """Return what was said in a room, in the order in which it came here."""
        return [
            event["event"]["content"]["body"]
            for event in self.events("m.room.message")
            if event["event"]["room_id"] == room_id
        ]

    async def has(self, event_ids: list[str], limit: float = LONG) -> None:
        """Return once all these events were taken."""
        missing = set(event_ids)

        def look() -> bool:
            missing.difference_update(event["event"]["event_id"] for event in self.events())
            return not missing

        await until_true(look, f"all of {len(event_ids)} events arrive", limit)

    def check(self) -> None:
        """Fail if anything came that the contract rules out.

        Every room's numbers begin with 1 and have no gap; what is repeated is the batch before, under the
        same id and with the same bytes; nothing comes under two ids; every signature is right.
        """
        faults = {each.fault for each in self.stand_in.deliveries if each.fault}
        assert not faults, f"not accepted as genuine: {faults}"
        bytes_of: dict[str, bytes] = {}
        id_of: dict[tuple[str, int], str] = {}
        latest: dict[str, Batch] = {}
        for batch in self.batches:
            assert bytes_of.setdefault(batch.webhook_id, batch.raw) == batch.raw, (
                f"{batch.webhook_id} came with other bytes"
            )
            for number in batch.sequences:
                first = id_of.setdefault((batch.log_id, number), batch.webhook_id)
                assert first == batch.webhook_id, f"number {number} came under two ids"
            if not batch.taken:
                continue
            before = latest.get(batch.log_id)
            if before is not None and before.webhook_id == batch.webhook_id:
                continue
            start = 1 if before is None else before.sequences[-1] + 1
            expected = list(range(start, start + len(batch.sequences)))
            assert batch.sequences == expected, f"{batch.sequences} came instead of {expected}"
            latest[batch.log_id] = batch

    def _notice(self) -> Any:
        @web.middleware
        async def notice(request: web.Request, handler: Handler) -> web.StreamResponse:
            raw = await request.read()
            if request.path == _GONE:
                return web.Response(status=410)
            mood, body = self.mood, orjson.loads(raw)
            is_batch = body["type"] == "room.events"
            if mood == "waits" and is_batch:
                self._waiting += 1
                await self._go_on.wait()
                self._waiting -= 1
            taken = mood in ("takes", "waits")
            webhook_id = request.headers.get("webhook-id", "")
            if is_batch:
                self.batches.append(Batch(webhook_id, raw, body["data"], taken))
            else:
                self.others.append(Told(webhook_id, body["type"], body["data"], taken))
            if mood == "breaks" and request.transport is not None:
                request.transport.abort()
            return await handler(request) if taken else web.Response(status=500)

        return notice

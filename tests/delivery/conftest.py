"""A store with tenants, rooms and events in it; a receiver that checks signatures; a clock to turn."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
import standardwebhooks.webhooks
from aiohttp import web
from cryptography.fernet import Fernet
from sqlalchemy import Connection, insert, select
from standardwebhooks import Webhook

from openmeet_appservice.delivery.notices import NoticeWorker
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.worker import DeliveryWorker
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.store import endpoints, event_log, notices
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import Endpoint, Wanted
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import batches, entities, lanes, rooms, tenants, users
from openmeet_appservice.store.tables import notices as notice_rows
from openmeet_appservice.store.wakeups import Wakeups

BOT = "@openmeet-bot:example.org"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
START = 1_795_374_000_000
RETRY = (5.0, 300.0)


class Clock:
    """Milliseconds since the epoch, standing still until it is turned."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def turn(self, milliseconds: int) -> None:
        self.now += milliseconds


@dataclass(frozen=True)
class Received:
    """A webhook that reached the receiver."""

    path: str
    webhook_id: str
    timestamp: int
    tenant_header: str
    raw: bytes

    @property
    def data(self) -> dict[str, Any]:
        assert self.type == "room.events"
        data: dict[str, Any] = self.body["data"]
        return data

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.raw)
        return body

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def room(self) -> str:
        return str(self.data["room"]["room_id"])

    @property
    def sequences(self) -> list[int]:
        return [event["sequence"] for event in self.data["events"]]


@dataclass
class Receiver:
    """An OpenMeet that verifies each webhook as its library does, and answers as it is told."""

    clock: Clock
    url: str = ""
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], Awaitable[int]] | None = None
    faults: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    seen_headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            Webhook(SECRET).verify(raw, dict(request.headers))
        except Exception as error:
            self.faults.append(repr(error))
            return web.Response(status=401)
        got = Received(
            path=request.path,
            webhook_id=request.headers["webhook-id"],
            timestamp=int(request.headers["webhook-timestamp"]),
            tenant_header=request.headers["x-tenant-id"],
            raw=raw,
        )
        self.received.append(got)
        self.seen_headers.append(dict(request.headers))
        status = 200 if self.answer is None else await self.answer(got)
        return web.Response(status=status, text=self.text, headers=self.headers)

    def of(self, room: str) -> list[Received]:
        return [got for got in self.received if got.room == room]


class World:
    """What a test of delivery acts on."""

    def __init__(self, database: Database, receiver: Receiver, clock: Clock, client: GuardedClient) -> None:
        self.database = database
        self.receiver = receiver
        self.clock = clock
        self.client = client
        self.box = SecretBox([Fernet.generate_key().decode()])
        self.wakeups = Wakeups()
        self.workers: list[DeliveryWorker | NoticeWorker] = []
        self._ids: Iterator[int] = itertools.count(1)
        self._events: Iterator[int] = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids)}"

    async def add_tenant(self, tenant_id: str = "T1") -> None:
        await self.database.write(self._add_tenant, tenant_id)

    def _add_tenant(self, connection: Connection, tenant_id: str) -> None:
        connection.execute(
            insert(tenants).values(
                tenant=tenant_id.lower(),
                tenant_id=tenant_id,
                name=tenant_id,
                settings="{}",
                revision=1,
                last_position=0,
                created_at=START,
                updated_at=START,
            )
        )

    async def add_endpoint(
        self, tenant: str = "t1", name: str = "main", url: str | None = None, **wanted: Any
    ) -> Endpoint:
        put = await self.database.write(
            endpoints.put,
            tenant,
            name,
            Wanted(url or self.receiver.url, **wanted),
            secret_encrypted=self.box.seal(SECRET),
            fresh_secret_encrypted="",
            now=self.clock(),
            new_id=self.new_id,
        )
        return put.endpoint

    async def add_room(self, room_id: str, tenant: str = "t1", *, external_id: str | None = None) -> None:
        await self.database.write(self._add_room, room_id, tenant, external_id)

    def _add_room(self, connection: Connection, room_id: str, tenant: str, external_id: str | None) -> None:
        slug = "Slug-" + room_id.strip("!")
        connection.execute(
            insert(entities).values(
                tenant=tenant,
                id=f"entity_{room_id}",
                kind="event",
                slug=slug,
                slug_key=slug.lower(),
                alias=f"#event-{slug}-{tenant}:example.org".lower(),
                external_id=external_id,
                spec="{}",
                revision=1,
                members_revision=1,
                removals_confirmed=0,
                created_at=START,
                updated_at=START,
            )
        )
        connection.execute(
            insert(rooms).values(
                tenant=tenant,
                id=f"room_{room_id}",
                entity_ref=f"entity_{room_id}",
                state="open",
                claim=f"claim{room_id}",
                lock_alias="#lock:example.org",
                alias=f"#event-{slug}-{tenant}:example.org".lower(),
                room_id=room_id,
                room_version="12",
                log_id=f"log_{room_id}",
                last_sequence=0,
                created_at=START,
            )
        )

    async def add_puppet(
        self, slug: str, user_id: str, tenant: str = "t1", *, external_id: str | None = None
    ) -> None:
        def add(connection: Connection) -> None:
            connection.execute(
                insert(users).values(
                    tenant=tenant,
                    id=f"user_{slug}",
                    slug=slug,
                    slug_key=slug.lower(),
                    placeholder=False,
                    external_id=external_id,
                    spec="{}",
                    revision=1,
                    user_id=user_id,
                    created_at=START,
                    updated_at=START,
                )
            )

        await self.database.write(add)

    async def say(self, room_id: str, *bodies: str, sender: str = "@bob:example.org") -> None:
        """Store messages, one transaction for all, and wake the workers."""
        await self.store(
            room_id,
            *({"type": "m.room.message", "sender": sender, "content": {"body": b}} for b in bodies),
        )

    async def store(self, room_id: str, *elements: dict[str, Any]) -> None:
        """Store events as Synapse pushes them, and wake the workers."""
        arrivals = []
        for element in elements:
            element = {"event_id": f"$e{next(self._events)}", "room_id": room_id, **element}
            arrival = read_event(element)
            assert isinstance(arrival, Arrival)
            arrivals.append(arrival)
        await self.database.write(event_log.append, arrivals, now=self.clock(), bot=BOT)
        self.wakeups.wake("deliver")

    def worker(
        self,
        *,
        start: bool = True,
        box: SecretBox | None = None,
        database: Database | None = None,
        random: float = 0.5,
        **settings: Any,
    ) -> DeliveryWorker:
        """Return a worker, by default started; the test's end stops it."""
        worker = DeliveryWorker(
            database or self.database,
            self.client,
            box or self.box,
            self.wakeups,
            DeliverySettings(**{"bot": BOT, "retry": RETRY, "poll": 0.2, "pause": 0.01, **settings}),
            now=self.clock,
            random=lambda: random,
            new_id=self.new_id,
        )
        self.workers.append(worker)
        if start:
            worker.start()
        return worker

    def notifier(self, *, start: bool = True, box: SecretBox | None = None, **settings: Any) -> NoticeWorker:
        """Return a worker that sends notices, by default started; the test's end stops it."""
        worker = NoticeWorker(
            self.database,
            self.client,
            box or self.box,
            self.wakeups,
            DeliverySettings(**{"bot": BOT, "retry": RETRY, "poll": 0.2, "pause": 0.01, **settings}),
            now=self.clock,
            random=lambda: 0.5,
            new_id=self.new_id,
        )
        self.workers.append(worker)
        if start:
            worker.start()
        return worker

    async def notify(self, type: str = "room.ready", tenant: str = "t1", **data: Any) -> int:
        """Store a notice for everybody who is to get it, and wake the workers."""
        added = await self.database.write(
            notices.add, tenant, type, data, now=self.clock(), new_id=self.new_id
        )
        self.wakeups.wake("notify")
        return added

    async def notices(self) -> list[Any]:
        """Return the rows of all notices that wait."""
        query = select(notice_rows).order_by(notice_rows.c.created_at, notice_rows.c.id)
        return await self.database.read(lambda connection: list(connection.execute(query)))

    async def turn(self, milliseconds: int) -> None:
        """Turn the clock, and have the workers look at it."""
        self.clock.turn(milliseconds)
        self.wakeups.wake("deliver")
        self.wakeups.wake("notify")

    async def lane(self, room_id: str, tenant: str = "t1") -> Any:
        """Return the row of the room's one lane, with ``last_sequence`` of the room."""
        joined = lanes.join(rooms, (rooms.c.tenant == lanes.c.tenant) & (rooms.c.id == lanes.c.room_ref))
        query = (
            select(lanes, rooms.c.last_sequence)
            .select_from(joined)
            .where(lanes.c.tenant == tenant, lanes.c.room_ref == f"room_{room_id}")
        )
        return await self.database.read(lambda connection: connection.execute(query).one())

    async def batches(self) -> list[Any]:
        """Return the rows of all batches under way."""
        query = select(batches).order_by(batches.c.webhook_id)
        return await self.database.read(lambda connection: list(connection.execute(query)))

    async def until(self, reached: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait until something is so; fail when it takes far too long."""
        async with asyncio.timeout(20):
            while True:
                is_so = reached()
                if not isinstance(is_so, bool):
                    is_so = await is_so
                if is_so:
                    return
                await asyncio.sleep(0.005)

    async def until_idle(self, room_id: str, tenant: str = "t1") -> None:
        """Wait until everything of the room was taken and recorded."""

        async def idle() -> bool:
            lane = await self.lane(room_id, tenant)
            return bool(lane.acked_sequence == lane.last_sequence and lane.lease_until is None)

        await self.until(idle)

    async def until_all_idle(self) -> None:
        """Wait until everything of every room was taken by every endpoint and recorded."""
        waiting = select(lanes.c.room_ref).where(
            lanes.c.waiting_since.is_not(None) | lanes.c.lease_until.is_not(None)
        )

        async def idle() -> bool:
            return not await self.database.read(lambda c: list(c.execute(waiting)))

        await self.until(idle)

    async def until_tried(self, room_id: str, attempts: int, tenant: str = "t1") -> None:
        """Wait until that many tries of the room's batch have failed."""

        async def tried() -> bool:
            lane = await self.lane(room_id, tenant)
            return bool(lane.attempts == attempts and lane.lease_until is None)

        await self.until(tried)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of both sides: the verifying library checks how old a webhook is."""
    clock = Clock()

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Then:
            return cls.fromtimestamp(clock() / 1000, tz=tz or UTC)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Then)
    return clock


@pytest.fixture
async def receiver(clock: Clock) -> AsyncIterator[Receiver]:
    """A receiver on a loopback port; the test fails when a signature did not verify."""
    receiver = Receiver(clock)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()
    assert receiver.faults == []


@pytest.fixture
async def world(database: Database, receiver: Receiver, clock: Clock) -> AsyncIterator[World]:
    """Tenant ``T1`` with endpoint ``main`` and the rooms ``!a`` and ``!b``; no worker yet."""
    guard = Guard([ip_network("127.0.0.0/8")])
    async with GuardedClient(guard, total_seconds=10, user_agent="test") as client:
        world = World(database, receiver, clock, client)
        await world.add_tenant()
        await world.add_endpoint()
        await world.add_room("!a")
        await world.add_room("!b")
        yield world
        for worker in world.workers:
            await worker.stop(0)

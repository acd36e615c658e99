"""A tenant with a room, delivery to a URL, and what Node needs."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import shutil
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet
from sqlalchemy import Connection

from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.worker import DeliveryWorker
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.store import endpoints, entities, event_log, rooms, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import Endpoint, Wanted
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups

FOLDER = Path(__file__).parent
BOT = "@openmeet-bot:example.org"
ROOM = "!games:example.org"


class Receiver:
    """Keeps what came, headers and bytes."""

    def __init__(self) -> None:
        self.webhooks: list[dict[str, Any]] = []
        self.events = 0
        self._arrived = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self._arrived:
            self.webhooks.append({"headers": headers, "body": base64.b64encode(raw).decode()})
            self.events += len(json.loads(raw)["data"]["events"])
            self._arrived.notify_all()
        return web.Response(status=204)

    async def until(self, events: int) -> None:
        """Wait until that many events have come."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: self.events >= events)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    """A receiver on a loopback port, and its URL."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/webhooks", receiver.take)
    async with TestServer(app) as server:
        yield receiver, str(server.make_url("/webhooks"))


class Sender:
    """Delivers what is said in a room. Its clock is the real one, as the receivers' is, and can be put on."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.secret = new_secret()
        self.ahead = 0
        self._box = SecretBox([Fernet.generate_key().decode()])
        self._wakeups = Wakeups()
        self._numbers = itertools.count(1)

    def now(self) -> int:
        """Return the time in milliseconds."""
        return time.time_ns() // 1_000_000 + self.ahead

    async def add_endpoint(self, url: str) -> None:
        """Deliver to *url* from now on; the first also makes the tenant and the room."""
        await self.database.write(self._set_up, url)

    def _set_up(self, connection: Connection, url: str) -> None:
        now, sealed = self.now(), self._box.seal(self.secret)
        tenants.create(connection, "T1", name="One", settings={}, now=now)
        endpoints.put(
            connection,
            "t1",
            "main",
            Wanted(url),
            secret_encrypted=sealed,
            fresh_secret_encrypted=sealed,
            now=now,
            new_id=new_id,
        )
        entity = entities.create(
            connection,
            "t1",
            EntityKind.EVENT,
            "board-games",
            alias="#event-board-games-t1:example.org",
            spec={"name": "Board games"},
            external_id=None,
            as_of=None,
            now=now,
            new_id=new_id,
        )
        assert entity is not None
        room = rooms.claim(
            connection, "t1", entity.ref, claim="c", lock_alias="#lock:x", now=now, new_id=new_id
        )
        event_log.record_room_id(connection, "t1", room.ref, ROOM, "12", now=now, bot=BOT)

    async def say(self, *bodies: str) -> None:
        """Say these in the room."""
        said = []
        for body in bodies:
            arrival = read_event(
                {
                    "type": "m.room.message",
                    "event_id": f"$e{next(self._numbers)}",
                    "room_id": ROOM,
                    "sender": "@bob:example.org",
                    "origin_server_ts": self.now(),
                    "content": {"msgtype": "m.text", "body": body},
                }
            )
            assert isinstance(arrival, Arrival)
            said.append(arrival)
        await self.database.write(event_log.append, said, now=self.now(), bot=BOT)
        self._wakeups.wake("deliver")

    async def rotate(self, overlap_seconds: int) -> str:
        """Sign with a new secret, which is returned, and with the present one until the overlap ends."""
        self.secret = new_secret()
        sealed = self._box.seal(self.secret)

        def rotate(connection: Connection) -> Endpoint:
            return endpoints.rotate_secret(
                connection,
                self._endpoint(connection),
                secret_encrypted=sealed,
                old_until=self.now() + overlap_seconds * 1000,
                now=self.now(),
            )

        await self.database.write(rotate)
        return self.secret

    async def retire(self) -> None:
        """Sign no more with the secret of before."""
        await self.database.write(
            lambda connection: endpoints.retire_secret(connection, self._endpoint(connection), now=self.now())
        )

    def _endpoint(self, connection: Connection) -> Endpoint:
        found = endpoints.get(connection, "t1", "main")
        assert found is not None
        return found

    def worker(self, client: GuardedClient) -> DeliveryWorker:
        """Return a worker, not started."""
        settings = DeliverySettings(bot=BOT, retry=(1.0,) * 10, max_batch=2, poll=0.2)
        return DeliveryWorker(
            self.database,
            client,
            self._box,
            self._wakeups,
            settings,
            now=self.now,
            random=random.random,
            new_id=new_id,
        )


@pytest.fixture
async def sender(database: Database) -> AsyncIterator[Sender]:
    """A sender at work; it has no endpoint yet."""
    sender = Sender(database)
    async with GuardedClient(Guard([ip_network("127.0.0.0/8")]), total_seconds=10, user_agent="t") as client:
        worker = sender.worker(client)
        worker.start()
        yield sender
        await worker.stop(5)


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node."""
    node = shutil.which("node")
    assert node is not None, "Node is not installed: run this with `make test-clients`"
    assert (FOLDER / "node_modules").is_dir(), "its packages are missing: run this with `make test-clients`"
    return node

"""npm's `standardwebhooks`, which OpenMeet's backend uses, accepts what this service delivers."""

from __future__ import annotations

import asyncio
import base64
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
from openmeet_appservice.store.endpoints import Wanted
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups

FOLDER = Path(__file__).parent
BOT = "@openmeet-bot:example.org"
ROOM = "!games:example.org"
BODIES = ["Hello", "Grüße, 你好 👋", "</script>\u2028 \\ \" '", "x" * 20_000]


def now() -> int:
    return time.time_ns() // 1_000_000


def set_up(connection: Connection, url: str, sealed: str) -> None:
    tenants.create(connection, "T1", name="One", settings={}, now=now())
    endpoints.put(
        connection,
        "t1",
        "main",
        Wanted(url),
        secret_encrypted=sealed,
        fresh_secret_encrypted=sealed,
        now=now(),
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
        now=now(),
        new_id=new_id,
    )
    assert entity is not None
    room = rooms.claim(
        connection, "t1", entity.ref, claim="c", lock_alias=entity.alias, now=now(), new_id=new_id
    )
    event_log.record_room_id(connection, "t1", room.ref, ROOM, "12", now=now(), bot=BOT)


def messages() -> list[Arrival]:
    found = []
    for number, body in enumerate(BODIES):
        arrival = read_event(
            {
                "type": "m.room.message",
                "event_id": f"$e{number}",
                "room_id": ROOM,
                "sender": "@bob:example.org",
                "origin_server_ts": now(),
                "content": {"msgtype": "m.text", "body": body},
            }
        )
        assert isinstance(arrival, Arrival)
        found.append(arrival)
    return found


class Receiver:
    """Keeps what came, headers and bytes."""

    def __init__(self) -> None:
        self.webhooks: list[dict[str, Any]] = []
        self.events = 0
        self.complete = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.webhooks.append({"headers": headers, "body": base64.b64encode(raw).decode()})
        self.events += len(json.loads(raw)["data"]["events"])
        if self.events == len(BODIES):
            self.complete.set()
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    """A receiver on a loopback port, and its URL."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/webhooks", receiver.take)
    async with TestServer(app) as server:
        yield receiver, str(server.make_url("/webhooks"))


async def verify(secret: str, webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let Node verify the webhooks."""
    node = shutil.which("node")
    assert node is not None, "Node is not installed: run this with `make test-clients`"
    assert (FOLDER / "node_modules").is_dir(), "its packages are missing: run this with `make test-clients`"
    process = await asyncio.create_subprocess_exec(
        node,
        str(FOLDER / "verify.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    asked = json.dumps({"secret": secret, "webhooks": webhooks}).encode()
    async with asyncio.timeout(60):
        out, err = await process.communicate(asked)
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out)
    assert len(found) == len(webhooks)
    return found


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
async def test_a_delivered_webhook_is_verified_by_node(
    database: Database, receiver: tuple[Receiver, str]
) -> None:
    received, url = receiver
    secret, box = new_secret(), SecretBox([Fernet.generate_key().decode()])
    await database.write(set_up, url, box.seal(secret))
    await database.write(event_log.append, messages(), now=now(), bot=BOT)
    guard = Guard([ip_network("127.0.0.0/8")])
    async with GuardedClient(guard, total_seconds=10, user_agent="tests") as client:
        settings = DeliverySettings(bot=BOT, retry=(1.0,), max_batch=2)
        worker = DeliveryWorker(
            database, client, box, Wakeups(), settings, now=now, random=random.random, new_id=new_id
        )
        worker.start()
        try:
            async with asyncio.timeout(30):
                await received.complete.wait()
        finally:
            await worker.stop(5)

    webhooks = received.webhooks
    assert len(webhooks) == 2
    verified = await verify(secret, webhooks)
    assert [one["data"] for one in verified] == [
        json.loads(base64.b64decode(one["body"])) for one in webhooks
    ]
    shown = [e["event"]["content"]["body"] for one in verified for e in one["data"]["data"]["events"]]
    assert shown == BODIES

    assert all("fault" in one for one in await verify(new_secret(), webhooks)), "another secret"
    tampered = [forged(webhooks[0], **change) for change in CHANGES]
    assert all("fault" in one for one in await verify(secret, tampered))


CHANGES: list[dict[str, str]] = [
    {"body": "eyJ0eXBlIjogInJvb20uZXZlbnRzIn0="},
    {"webhook-id": "another"},
    {"webhook-timestamp": str(int(time.time()) - 60)},
    {"webhook-signature": ""},
]


def forged(webhook: dict[str, Any], **changes: str) -> dict[str, Any]:
    """Return the webhook with other headers or another body."""
    headers = webhook["headers"] | {name: value for name, value in changes.items() if name != "body"}
    return {"headers": headers, "body": changes.get("body", webhook["body"])}


def test_the_lock_names_no_registry() -> None:
    """So that everybody's own is asked; `.npmrc` keeps it so when the lock is made anew."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert lock["packages"][""]["dependencies"] == wanted

"""The receivers that `docs/webhooks.md` shows for Node take what this service delivers, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest
from standardwebhooks import Webhook

from .conftest import FOLDER, Receiver, Sender

RECEIVERS = FOLDER.parents[1] / "docs" / "receivers"
OVERLAP = 60

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Running:
    """A receiver that runs."""

    url: str
    database: Path

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Return what it has stored, in the order in which it did."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(f"SELECT {columns} FROM {table} ORDER BY rowid").fetchall()


Start: TypeAlias = Callable[[str], Awaitable[Running]]


@pytest.fixture(scope="session")
def programs(node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command of each receiver, the one in TypeScript checked and compiled."""
    folder = tmp_path_factory.mktemp("receivers")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    shutil.copy(RECEIVERS / "express.mjs", folder)
    nest = folder / "nestjs"
    shutil.copytree(RECEIVERS / "nestjs", nest)
    shutil.copytree(FOLDER / "nestjs", nest, dirs_exist_ok=True)
    compiler = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
    compiled = subprocess.run([node, compiler, "-p", nest], capture_output=True, text=True, timeout=120)
    assert compiled.returncode == 0, compiled.stdout
    return {
        "express": [node, str(folder / "express.mjs")],
        "nestjs": [node, str(nest / "built" / "main.js")],
    }


@pytest.fixture(params=["express", "nestjs"])
async def start(
    request: pytest.FixtureRequest, programs: dict[str, list[str]], tmp_path: Path
) -> AsyncIterator[Start]:
    """Start a receiver that knows the secret; the test's end stops it."""
    numbers = itertools.count(1)
    async with AsyncExitStack() as running:

        async def start(secret: str) -> Running:
            database = tmp_path / f"received-{next(numbers)}.db"
            command = programs[request.param]
            return await running.enter_async_context(_running(command, secret, database))

        yield start


@asynccontextmanager
async def _running(command: list[str], secret: str, database: Path) -> AsyncIterator[Running]:
    log = database.with_suffix(".log")
    environment = {"WEBHOOK_SECRET": secret, "DATABASE": str(database), "PORT": "0", "NO_COLOR": "1"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(60):
            while not (port := re.search(r"listening on .*?(\d+)\n", log.read_text())):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield Running(f"http://127.0.0.1:{port[1]}/webhooks/matrix", database)
    finally:
        with suppress(ProcessLookupError):
            # The `node` of the wheel is a program that starts the real one.
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def post(running: Running, raw: bytes, headers: dict[str, str]) -> int:
    """Return what it answers."""
    headers = {"content-type": "application/json", **headers}
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(running.url, data=raw, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


async def forward(running: Running, webhook: dict[str, Any]) -> int:
    """Hand on what another receiver got."""
    kept = ("webhook-", "x-tenant-id")
    headers = {name: value for name, value in webhook["headers"].items() if name.startswith(kept)}
    return await post(running, base64.b64decode(webhook["body"]), headers)


def signed(secret: str, body: dict[str, Any], webhook_id: str) -> tuple[bytes, dict[str, str]]:
    """Return a webhook that nobody has sent yet."""
    now = datetime.now(UTC)
    raw = json.dumps(body)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, raw),
    }
    return raw.encode(), headers


async def test_it_stores_what_is_delivered(sender: Sender, start: Start) -> None:
    """More often than its throttler allows, past its guards and pipes."""
    running = await start(sender.secret)
    await sender.add_endpoint(running.url)
    bodies = ["Grüße 👋 \0 \u2028", "x" * 60_000, *map(str, range(10))]
    await sender.say(*bodies)

    def stored() -> list[str]:
        items = [json.loads(item) for (item,) in running.rows("matrix_events", "item")]
        return [item["event"]["content"]["body"] for item in items]

    async with asyncio.timeout(60):
        while len(stored()) < len(bodies):
            await asyncio.sleep(0.05)
    assert stored() == bodies
    rows = running.rows("matrix_events", "tenant, event_id, sequence, log_id")
    assert [row[:3] for row in rows] == [("T1", f"$e{n}", n) for n in range(1, len(bodies) + 1)]
    assert len({log_id for *_, log_id in rows}) == 1


async def test_it_stores_once_and_keeps_what_it_does_not_know(
    sender: Sender, receiver: tuple[Receiver, str], start: Start
) -> None:
    received, url = receiver
    running = await start(sender.secret)
    await sender.add_endpoint(url)
    await sender.say("once")
    await received.until(1)
    for _ in range(3):
        assert await forward(running, received.webhooks[0]) == 204
    assert running.rows("matrix_events", "event_id") == [("$e1",)]

    body = json.loads(base64.b64decode(received.webhooks[0]["body"]))
    split = {**body, "data": {**body["data"], "new": {"field": 1}}, "also": "new"}
    assert await post(running, *signed(sender.secret, split, "msg_split")) == 204
    assert len(running.rows("matrix_events", "1")) == 1, "the same event under another webhook-id"

    # Larger than what Express and NestJS take if they are not told otherwise.
    later = {
        "type": "room.invented",
        "timestamp": "2030-01-01T00:00:00.000Z",
        "data": {"tenant": None, "padding": "x" * 500_000},
    }
    for _ in range(2):
        assert await post(running, *signed(sender.secret, later, "msg_later")) == 204
    assert running.rows("matrix_notices", "webhook_id, type") == [("msg_later", "room.invented")]
    passing = {**later, "type": "room.ephemeral"}
    assert await post(running, *signed(sender.secret, passing, "msg_passing")) == 204
    assert len(running.rows("matrix_notices", "1")) == 1


async def test_it_refuses_what_is_not_signed(
    sender: Sender, receiver: tuple[Receiver, str], start: Start
) -> None:
    received, url = receiver
    running = await start(sender.secret)
    await sender.add_endpoint(url)
    await sender.say("hello")
    await received.until(1)
    webhook = received.webhooks[0]
    raw, headers = base64.b64decode(webhook["body"]), webhook["headers"]
    good = {name: headers[name] for name in headers if name.startswith("webhook-")}
    wrong: list[tuple[bytes, dict[str, str]]] = [
        (raw.replace(b"hello", b"jello"), good),
        (raw + b" ", good),
        (b"", good),
        (b"not JSON", {}),
        (raw, {}),
        *((raw, {**good, "webhook-signature": text}) for text in ("v1", "v1,", "v1,!", ",", "v2,x", "x" * 9)),
        (raw, {**good, "webhook-timestamp": "0"}),
        (raw, {**good, "webhook-timestamp": "soon"}),
        (raw, {**good, "webhook-id": "msg_other"}),
    ]
    for body, sent in wrong:
        # What a JSON parser in front of it refuses, never reaches it.
        assert await post(running, body, sent) in ({400, 401} if body == b"not JSON" else {401})
    assert running.rows("matrix_events", "1") == []
    assert await post(running, raw, good) == 204


async def test_it_asks_for_another_try_when_it_cannot_store(
    sender: Sender, receiver: tuple[Receiver, str], start: Start
) -> None:
    received, url = receiver
    running = await start(sender.secret)
    await sender.add_endpoint(url)
    await sender.say("one", "two")
    await received.until(2)
    with closing(sqlite3.connect(running.database)) as database:
        # The second event cannot be stored.
        database.execute("CREATE UNIQUE INDEX one_only ON matrix_events (tenant)")
    assert await forward(running, received.webhooks[0]) == 500
    assert running.rows("matrix_events", "1") == [], "half of a webhook is nothing of it"
    with closing(sqlite3.connect(running.database)) as database:
        database.execute("DROP INDEX one_only")
    assert await forward(running, received.webhooks[0]) == 204
    assert running.rows("matrix_events", "event_id") == [("$e1",), ("$e2",)]


async def test_a_rotation_needs_no_moment_at_which_both_sides_change(
    sender: Sender, receiver: tuple[Receiver, str], start: Start
) -> None:
    received, url = receiver
    knows_old = await start(sender.secret)
    await sender.add_endpoint(url)
    await sender.say("before")
    await received.until(1)
    knows_new = await start(await sender.rotate(OVERLAP))
    await sender.say("during")
    await received.until(2)
    await sender.retire()
    await sender.say("after")
    await received.until(3)
    assert [await forward(knows_old, webhook) for webhook in received.webhooks] == [204, 204, 401]
    assert [await forward(knows_new, webhook) for webhook in received.webhooks] == [401, 204, 204]

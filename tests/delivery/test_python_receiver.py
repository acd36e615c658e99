"""The receiver that `docs/webhooks.md` shows for Python takes what is delivered, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from sqlalchemy import Connection
from standardwebhooks import Webhook

from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.store import endpoints
from openmeet_appservice.store.endpoint_row import Endpoint

from .conftest import SECRET

FILE = Path(__file__).parents[2] / "docs" / "receivers" / "python_receiver.py"
OVERLAP_MS = 60_000

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def _program() -> Any:
    spec = importlib.util.spec_from_file_location("python_receiver", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Running:
    """The receiver, at work; *taken* are the webhooks that reached it, and how it answered."""

    def __init__(self, secret: str, database: Path) -> None:
        self.database = database
        self.url = ""
        self.app: web.Application = _program().Receiver(secret, str(database)).app()
        self.app.middlewares.append(self._watch)
        self.taken: list[tuple[bytes, dict[str, str], int]] = []
        self.lose_answers = 0

    @web.middleware
    async def _watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        kept = {name: value for name, value in headers.items() if name.startswith("webhook-")}
        self.taken.append((await request.read(), kept, response.status))
        if self.lose_answers:
            self.lose_answers -= 1
            return web.Response(status=502)
        return response

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Return what it has stored, in the order in which it did."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(f"SELECT {columns} FROM {table} ORDER BY rowid").fetchall()

    async def post(self, raw: bytes, headers: dict[str, str]) -> int:
        """Return what it answers."""
        async with ClientSession() as session, session.post(self.url, data=raw, headers=headers) as answer:
            return answer.status


class Receivers:
    """Starts receivers."""

    def __init__(self, folder: Path, running: AsyncExitStack) -> None:
        self._folder = folder
        self._running = running
        self._started = 0

    async def start(self, secret: str) -> Running:
        self._started += 1
        receiver = Running(secret, self._folder / f"received-{self._started}.db")
        server = await self._running.enter_async_context(TestServer(receiver.app))
        receiver.url = str(server.make_url("/webhooks/matrix"))
        return receiver


@pytest.fixture
async def receivers(tmp_path: Path) -> AsyncIterator[Receivers]:
    async with AsyncExitStack() as running:
        yield Receivers(tmp_path, running)


def signed(world: Any, body: dict[str, Any], webhook_id: str) -> tuple[bytes, dict[str, str]]:
    """Return a webhook that nobody has sent yet."""
    now = datetime.fromtimestamp(world.clock() // 1000, tz=UTC)
    raw = json.dumps(body)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(webhook_id, now, raw),
    }
    return raw.encode(), headers


async def test_it_stores_each_event_once_and_in_order(world: Any, receivers: Receivers) -> None:
    running = await receivers.start(SECRET)
    await world.add_endpoint(url=running.url)
    running.lose_answers = 1
    bodies = ["Grüße 👋 \0 \u2028", "x" * 60_000, "y" * 60_000, *map(str, range(10))]
    await world.say("!a", *bodies)
    world.worker(max_batch=2, max_batch_bytes=256 * 1024)
    await world.until_tried("!a", 1)
    await world.turn(10_000)
    await world.until_idle("!a")
    assert running.taken[0][0] == running.taken[1][0], "the first came twice, for its answer was lost"
    rows = running.rows("matrix_events", "tenant, log_id, sequence, item")
    assert [row[:3] for row in rows] == [("T1", "log_!a", n) for n in range(1, len(bodies) + 1)]
    assert [json.loads(row[3])["event"]["content"]["body"] for row in rows] == bodies


async def test_it_keeps_what_it_does_not_know(world: Any, receivers: Receivers) -> None:
    running = await receivers.start(SECRET)
    later = {"type": "room.invented", "timestamp": "2030-01-01T00:00:00.000Z", "data": {"tenant": None}}
    for _ in range(2):
        assert await running.post(*signed(world, later, "msg_later")) == 204
    assert running.rows("matrix_notices", "webhook_id, type") == [("msg_later", "room.invented")]
    assert await running.post(*signed(world, {**later, "type": "room.ephemeral"}, "msg_passing")) == 204
    assert len(running.rows("matrix_notices", "1")) == 1


async def test_it_refuses_what_is_not_signed(world: Any, receivers: Receivers) -> None:
    running = await receivers.start(SECRET)
    await world.add_endpoint(url=running.url)
    await world.say("!a", "hello")
    world.worker()
    await world.until_idle("!a")
    [(raw, good, status)] = running.taken
    assert status == 204
    with closing(sqlite3.connect(running.database)) as database, database:
        database.execute("DELETE FROM matrix_events")
    wrong: list[tuple[bytes, dict[str, str]]] = [
        (raw.replace(b"hello", b"jello"), good),
        (raw + b" ", good),
        (b"\xff\xfe", good),
        (b"", good),
        (raw, {}),
        *((raw, {**good, "webhook-signature": text}) for text in ("v1", "v1,", "v1,!", "a,b,c", "x" * 9)),
        (raw, {**good, "webhook-timestamp": "0"}),
        (raw, {**good, "webhook-timestamp": "nan"}),
        (raw, {**good, "webhook-id": "msg_other"}),
    ]
    for body, headers in wrong:
        assert await running.post(body, headers) == 401
    assert running.rows("matrix_events", "1") == []
    assert await running.post(raw, good) == 204


async def test_it_asks_for_another_try_when_it_cannot_store(world: Any, receivers: Receivers) -> None:
    running = await receivers.start(SECRET)
    await world.add_endpoint(url=running.url)
    with closing(sqlite3.connect(running.database)) as database:
        # The second event cannot be stored.
        database.execute("CREATE UNIQUE INDEX one_only ON matrix_events (tenant)")
    await world.say("!a", "one", "two")
    world.worker()
    await world.until_tried("!a", 1)
    assert running.rows("matrix_events", "1") == [], "half of a webhook is nothing of it"
    with closing(sqlite3.connect(running.database)) as database:
        database.execute("DROP INDEX one_only")
    await world.turn(10_000)
    await world.until_idle("!a")
    assert running.rows("matrix_events", "sequence") == [(1,), (2,)]


@pytest.mark.parametrize("ending", ["retired", "overlap over"])
async def test_a_rotation_needs_no_moment_at_which_both_sides_change(
    world: Any, receivers: Receivers, ending: str
) -> None:
    fresh = new_secret()
    knows_old, knows_new = await receivers.start(SECRET), await receivers.start(fresh)
    await world.add_endpoint(url=knows_old.url)
    world.worker()

    def changed(change: Any) -> Any:
        def write(connection: Connection) -> Endpoint:
            found = endpoints.get(connection, "t1", "main")
            return change(connection, found, now=world.clock())  # type: ignore[no-any-return]

        return world.database.write(write)

    await world.say("!a", "before")
    await world.until_idle("!a")
    await changed(
        lambda connection, found, now: endpoints.rotate_secret(
            connection, found, secret_encrypted=world.box.seal(fresh), old_until=now + OVERLAP_MS, now=now
        )
    )
    await world.say("!a", "during")
    await world.until_idle("!a")
    if ending == "retired":
        await changed(endpoints.retire_secret)
    else:
        world.clock.turn(OVERLAP_MS)
    await world.say("!a", "after")
    await world.until_tried("!a", 1)

    assert [status for *_, status in knows_old.taken] == [204, 204, 401]
    again = [await knows_new.post(raw, headers) for raw, headers, _ in knows_old.taken]
    assert again == [401, 204, 204]

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.metrics import REGISTRY, record_build
from openmeet_appservice.ops.health import Health, Phase
from openmeet_appservice.ops.listener import build_ops_app


@dataclass
class Database:
    """Answers as told."""

    state: str = "ok"

    async def __call__(self) -> bool:
        if self.state == "hangs":
            await asyncio.Event().wait()
        if self.state == "raises":
            raise DatabaseUnavailable
        return self.state == "ok"


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def health(database: Database) -> Health:
    return Health(database, database_seconds=0.05)


Get = Callable[[str], Awaitable[tuple[int, Any]]]


@pytest.fixture
async def get(health: Health, aiohttp_client: Any) -> Get:
    client: TestClient[Any, Any] = await aiohttp_client(build_ops_app(health, "1.2.3", REGISTRY))

    async def get(path: str) -> tuple[int, Any]:
        async with client.get(path) as response:
            return response.status, await response.json()

    return get


async def test_not_ready_while_starting_and_draining(get: Get, health: Health) -> None:
    assert await get("/ready") == (503, {"ready": False, "reasons": ["starting"]})
    health.ready()
    assert await get("/ready") == (200, {"ready": True, "degraded": []})
    health.draining()
    assert health.phase is Phase.DRAINING
    assert await get("/ready") == (503, {"ready": False, "reasons": ["draining"]})


@pytest.mark.parametrize("state", ["no", "raises", "hangs"])
async def test_not_ready_without_the_database(
    get: Get, health: Health, database: Database, state: str
) -> None:
    health.ready()
    database.state = state
    status, body = await get("/ready")
    assert (status, body["reasons"]) == (503, ["the database cannot be reached"])
    database.state = "ok"
    assert (await get("/ready"))[0] == 200


async def test_what_is_degraded_leaves_it_ready(get: Get, health: Health) -> None:
    health.ready()
    health.degrade("webhooks", "x")
    health.degrade("homeserver", "the as_token is refused")
    health.degrade("webhooks", "parked")
    status, body = await get("/ready")
    assert status == 200
    assert body["degraded"] == ["homeserver: the as_token is refused", "webhooks: parked"]
    health.recover("homeserver")
    health.recover("homeserver")
    assert (await get("/ready"))[1]["degraded"] == ["webhooks: parked"]


async def test_live_and_version(get: Get, database: Database) -> None:
    database.state = "raises"
    assert await get("/live") == (200, {"live": True})
    status, body = await get("/version")
    assert (status, body["version"]) == (200, "1.2.3")


async def test_metrics(health: Health, aiohttp_client: Any) -> None:
    record_build("1.2.3")
    client = await aiohttp_client(build_ops_app(health, "1.2.3", REGISTRY))
    async with client.get("/metrics") as response:
        text = await response.text()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
    names = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP ")}
    assert names
    assert all(name.startswith("openmeet_as_") for name in names)
    assert 'openmeet_as_build_info{python="' in text

"""A real Synapse beside the model, whose events go wherever a test says."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from ruamel.yaml import YAML

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.person import Person
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, open_session

from .stack import BOT, SERVER

Take = Callable[[list[dict[str, Any]]], None]


@dataclass(slots=True)
class World:
    """A running Synapse with our application service, and an ordinary person on it.

    *take* is given the events that Synapse pushes.
    """

    synapse: Synapse
    session: ClientSession
    token: str
    person: Person
    take: Take

    def homeserver(self, url: str | None = None, retries: RetryPolicy | None = None) -> Homeserver:
        """Return a client, of Synapse itself or of what stands at *url*."""
        api = MatrixApi(url or self.synapse.url, [self.token], self.session, retries=retries)
        return Homeserver(api, "openmeet")


def _registration(file: Path, token: str, url: str, *, rate_limited: bool) -> Path:
    content = {
        "id": "openmeet",
        "url": url,
        "as_token": token,
        "hs_token": secrets.token_hex(16),
        "sender_localpart": "openmeet-bot",
        "rate_limited": rate_limited,
        "namespaces": {
            "users": [{"regex": r"@openmeet_.*:hs\.test$", "exclusive": True}],
            "aliases": [
                {"regex": r"#(event|group)-.*:hs\.test$", "exclusive": True},
                {"regex": r"#_openmeet_.*:hs\.test$", "exclusive": True},
            ],
            "rooms": [],
        },
    }
    YAML(typ="safe").dump(content, file)
    return file


@asynccontextmanager
async def running_synapse(
    folder: Path, *, rate_limited: bool = False, extra: Mapping[str, object] | None = None
) -> AsyncIterator[World]:
    """Run a Synapse of its own in *folder*.

    Parameters
    ----------
    rate_limited
        Whether its limits hold for the application service too.
    extra
        Top-level keys of its configuration.
    """
    made: list[World] = []

    async def listen(request: web.Request) -> web.Response:
        if "/transactions/" not in request.path:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "Not found."}, status=404)
        events = (await request.json())["events"]
        if made:
            made[0].take(events)
        return web.json_response({})

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", listen)
    token = secrets.token_hex(16)
    async with TestServer(app) as listener, open_session("tests") as session:
        url = str(listener.make_url("/")).rstrip("/")
        registration = _registration(folder / "registration.yaml", token, url, rate_limited=rate_limited)
        settings = SynapseSettings(
            folder / "synapse",
            SERVER,
            ports.any_free_port(),
            (registration,),
            bot_user_id=BOT,
            extra=extra or {},
        )
        synapse = Synapse(settings)
        await synapse.start()
        try:
            person = await Person.register(session, synapse.url, "paul", "correct horse")
            made.append(World(synapse, session, token, person, lambda events: None))
            yield made[0]
        finally:
            await synapse.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One Synapse without limits for all tests here."""
    async with running_synapse(tmp_path_factory.mktemp("model")) as running:
        yield running

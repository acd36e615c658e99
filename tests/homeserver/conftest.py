"""A real Synapse with one working application service, and stand-ins that misbehave."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from ruamel.yaml import YAML

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.homeserver import (
    Homeserver,
    MatrixApi,
    RetryPolicy,
    TimeLimits,
    open_session,
)

SERVER_NAME = "hs.test"
BOT = f"@om_bot:{SERVER_NAME}"


@dataclass(frozen=True, slots=True)
class World:
    """A running Synapse and our application service's view of it."""

    synapse: Synapse
    session: ClientSession
    as_tokens: dict[str, str]

    def homeserver(self, appservice_id: str = "openmeet") -> Homeserver:
        """Return the client of one of the registered application services."""
        api = MatrixApi(
            self.synapse.url,
            [self.as_tokens[appservice_id]],
            self.session,
            retries=RetryPolicy(attempts=2),
        )
        return Homeserver(api, appservice_id)


async def _listener(request: web.Request) -> web.Response:
    """Answer as an application service that takes everything and knows nobody."""
    if request.path.startswith("/angry"):
        return web.json_response({}, status=500)
    known = request.path.endswith("/ping") or "/transactions/" in request.path
    return web.json_response({}, status=200 if known else 404)


def _registration(folder: Path, appservice_id: str, url: str | None, prefix: str) -> Path:
    def only(sigil: str) -> list[dict[str, object]]:
        regex = rf"{sigil}{prefix}_.*:hs\.test$"
        return [{"regex": regex, "exclusive": True}]

    content = {
        "id": appservice_id,
        "url": url,
        "as_token": secrets.token_hex(16),
        "hs_token": secrets.token_hex(16),
        "sender_localpart": f"{prefix}_bot",
        "rate_limited": False,
        "namespaces": {"users": only("@"), "aliases": only("#"), "rooms": []},
    }
    file = folder / f"{appservice_id}.yaml"
    YAML(typ="safe").dump(content, file)
    return file


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One Synapse with four application services that differ in what their URL leads to."""
    folder = tmp_path_factory.mktemp("homeserver")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _listener)
    async with TestServer(app) as listener, open_session("tests") as session:
        good = str(listener.make_url("/")).rstrip("/")
        registrations = (
            _registration(folder, "openmeet", good, "om"),
            _registration(folder, "nowhere", None, "nowhere"),
            _registration(folder, "deaf", f"http://127.0.0.1:{ports.any_free_port()}", "deaf"),
            _registration(folder, "angry", f"{good}/angry", "angry"),
        )
        yaml = YAML(typ="safe")
        tokens = {file.stem: yaml.load(file)["as_token"] for file in registrations}
        settings = SynapseSettings(
            folder / "synapse",
            SERVER_NAME,
            ports.any_free_port(),
            registrations,
            bot_user_id=BOT,
        )
        synapse = Synapse(settings)
        await synapse.start()
        try:
            yield World(synapse, session, tokens)
        finally:
            await synapse.stop()


@pytest.fixture(scope="session")
def homeserver(world: World) -> Homeserver:
    """The client of the application service that works."""
    return world.homeserver()


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Seen:
    """One request that reached the stand-in."""

    method: str
    raw_path: str
    token: str
    body: bytes


@dataclass(slots=True)
class StandIn:
    """A homeserver that answers what the test says, in order; the last answer stays."""

    answers: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def will(self, *answers: Answer) -> None:
        """Set the answers to come."""
        self.answers = list(answers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and give the next answer."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = await request.read()
        self.seen.append(Seen(request.method, request.raw_path, token, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    """A misbehaving homeserver on the loopback address."""
    made = StandIn()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    # A handler that hangs on purpose must not hold up the end of the test.
    async with TestServer(app, handler_cancellation=True, shutdown_timeout=0.1) as server:
        made.url = str(server.make_url("/")).rstrip("/")
        yield made


@dataclass(slots=True)
class FakeTime:
    """A clock that only sleeping moves, and the sleeps."""

    seconds: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        """Pretend to wait."""
        self.sleeps.append(seconds)
        self.seconds += seconds

    def monotonic(self) -> float:
        """Return the pretended time."""
        return self.seconds


@pytest.fixture
def fake_time() -> FakeTime:
    """Time that does not pass by itself."""
    return FakeTime()


@pytest.fixture
async def make_api(stand_in: StandIn, fake_time: FakeTime) -> AsyncIterator[Callable[..., MatrixApi]]:
    """Make clients of the stand-in whose waiting takes no time."""
    async with open_session("tests") as session:

        def make(*tokens: str, url: str | None = None, **options: Any) -> MatrixApi:
            return MatrixApi(
                url or stand_in.url,
                tokens or ("secret-as-token",),
                session,
                limits=options.get("limits", TimeLimits()),
                retries=options.get("retries", RetryPolicy()),
                sleep=fake_time.sleep,
                random_number=lambda: 0.5,
                monotonic=fake_time.monotonic,
                now=lambda: 1_795_377_600_000,  # 2026-11-22T20:00:00Z
                in_trouble=options.get("in_trouble", lambda: None),
            )

        yield make

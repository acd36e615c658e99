"""The API over real HTTP on a real database, a clock that stands still, and a stand-in for the reconciler."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from cryptography.fernet import Fernet
from sqlalchemy import Connection

from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.outbound import client
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.provisioning.idempotency import StoredIdempotency
from openmeet_appservice.provisioning.keys import key_lookup
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.store import entities, event_log, rooms, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.sync import SyncError
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.app import build_app
from openmeet_appservice.web.auth import digest
from openmeet_appservice.web.routes import Route

SERVER = "example.org"
BOT = f"@openmeet-bot:{SERVER}"
ADMIN_KEY = "omk_admin_" + "0123456789abcdef" * 2
LOOKUP_SECRET = "whsec_" + "A" * 32
START = 1_795_374_000_000
"""2026-11-22T19:00:00Z, in milliseconds."""

Client: TypeAlias = TestClient[Any, Any]
ClientMaker: TypeAlias = Callable[[web.Application], Awaitable[Client]]


@dataclass
class Clock:
    """A clock that a test sets."""

    ms: int = START

    def __call__(self) -> int:
        """Return the time in milliseconds."""
        return self.ms


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    json: Any

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return str(self.json["code"])

    @property
    def pointers(self) -> list[str]:
        """The pointers of the faults, sorted."""
        return sorted(fault["pointer"] for fault in self.json["errors"])


@dataclass
class Api:
    """A caller with a key."""

    client: Client
    database: Database
    parts: Parts
    clock: Clock
    routes: list[Route]
    key: str = ADMIN_KEY

    def with_key(self, key: str) -> Api:
        """The same API with another key."""
        return Api(self.client, self.database, self.parts, self.clock, self.routes, key)

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call ``/v1`` and *path*."""
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        kwargs: dict[str, Any] = {} if body is None else {"json": body}
        async with self.client.request(method, f"/v1{path}", headers=sent, **kwargs) as response:
            raw = await response.read()
            json = await response.json(content_type=None) if raw else None
            return Answer(response.status, response.headers, json)

    async def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return await self.call("GET", path, headers=headers)

    async def put(self, path: str, body: Any, **headers: str) -> Answer:
        """PUT; header names with underscores."""
        return await self.call("PUT", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    async def patch(self, path: str, body: Any, **headers: str) -> Answer:
        """PATCH."""
        return await self.call("PATCH", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST."""
        return await self.call("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    async def delete(self, path: str, **headers: str) -> Answer:
        """DELETE."""
        return await self.call("DELETE", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    async def all(self, path: str, limit: int) -> list[Any]:
        """Every item of a list, page by page."""
        items: list[Any] = []
        token = ""
        for _ in itertools.count():
            page = await self.get(f"{path}?limit={limit}{token}")
            assert page.status == 200, page.json
            assert len(page.json["items"]) <= limit
            items += page.json["items"]
            if page.json["next_page_token"] is None:
                return items
            assert len(page.json["items"]) == limit
            token = f"&page_token={page.json['next_page_token']}"
        raise AssertionError

    async def settle(self, lacking: SyncError | None = None) -> int:
        """Do what the reconciler does to the store when Synapse agrees; return how many rows were due."""
        done = await self.database.write(_agree, self.clock.ms, lacking)
        self.parts.wakeups.wake("reconciled")
        return done

    async def fail(self, code: str) -> None:
        """Have everything that is due fail."""
        await self.database.write(_fail, self.clock.ms, code)
        self.parts.wakeups.wake("reconciled")


def _agree(connection: Connection, now: int, lacking: SyncError | None) -> int:
    leases = sync.claim_due(connection, now=now, lease=1000, limit=1000)
    for lease in leases:
        if lease.subject == "entity":
            _make_room(connection, lease.tenant, lease.ref, now)
        assert sync.finish(connection, lease, observed=lease.generation, lacking=lacking)
    return len(leases)


def _make_room(connection: Connection, tenant: str, ref: str, now: int) -> None:
    entity = entities.get(connection, tenant, ref)
    assert entity is not None
    published = entity.status in {"published", "cancelled"}
    if entity.archived_at or not published or rooms.in_use(connection, tenant, ref):
        return
    lock = entity.alias or f"#_openmeet_{ref}:{SERVER}"
    claimed = rooms.claim(connection, tenant, ref, claim=new_id("c"), lock_alias=lock, now=now, new_id=new_id)
    room_id = f"!{claimed.ref}:{SERVER}"
    event_log.record_room_id(connection, tenant, claimed.ref, room_id, "12", now=now, bot=BOT)
    if entity.visibility != "private":
        rooms.set_alias(connection, tenant, claimed.ref, entity.alias)


def _fail(connection: Connection, now: int, code: str) -> None:
    for lease in sync.claim_due(connection, now=now, lease=1000, limit=1000):
        sync.fail(connection, lease, SyncError(code, "No.", now), retry_at=now + 1000)


@pytest.fixture
def clock() -> Clock:
    """The clock."""
    return Clock()


async def _post(url: str, body: bytes, headers: Mapping[str, str]) -> client.Answer | client.NoAnswer:
    """Take what is sent to some URLs, and refuse or lose it at others, as their paths say."""
    if url.endswith("/nobody"):
        return client.NoAnswer(client.Reason.TIMED_OUT, "There was no answer in time.", 15.0)
    POSTED.append((url, body, dict(headers)))
    return client.Answer(401 if url.endswith("/stranger") else 200, b"So be it.", {}, 0.012)


async def _explain(tenant: str, kind: EntityKind, slug: str) -> Explanation | None:
    """Return what tests have put there."""
    return EXPLAINED.get((tenant, kind, slug))


EXPLAINED: dict[tuple[str, EntityKind, str], Explanation] = {}
"""What the reconciler says of each event and group, by tenant and slug."""

POSTED: list[tuple[str, bytes, dict[str, str]]] = []
"""What was sent by tests of endpoints, the newest last."""


@pytest.fixture
def parts(database: Database, clock: Clock) -> Parts:
    """What the handlers work with."""
    return Parts(
        database=database,
        wakeups=Wakeups(),
        now=clock,
        clock=time.monotonic,
        new_id=new_id,
        puppets=Template("openmeet_{tenant}_{user}", SERVER),
        aliases=Template("{kind}-{slug}-{tenant}", SERVER),
        bot=BOT,
        secrets=SecretBox([Fernet.generate_key().decode()]),
        check_url=Guard().check_url,
        post=_post,
        lookups=LookupSettings(
            url="https://openmeet.test/lookup", alias_timeout=3.0, timeout=15.0, resync_interval=21600.0
        ),
        lookup_secrets=(LOOKUP_SECRET,),
        explain=_explain,
    )


def application(parts: Parts, served: list[Route]) -> web.Application:
    """The API as an application."""
    return build_app(
        served,
        key_lookup=key_lookup(parts.database, [digest(ADMIN_KEY)]),
        idempotency=StoredIdempotency(parts.database, parts.now),
    )


@pytest.fixture
async def admin(parts: Parts, clock: Clock, aiohttp_client: ClientMaker) -> Api:
    """The API, called with the admin key."""
    served = routes(parts)
    client = await aiohttp_client(application(parts, served))
    return Api(client, parts.database, parts, clock, served)


@pytest.fixture
async def api(admin: Api) -> Api:
    """The API, called with the key of the tenant ``t1``, whose paths begin with ``/tenants/t1``."""
    assert (await admin.put("/tenants/t1", {"name": "One"})).status == 201
    made = await admin.post("/tenants/t1/keys", {"name": "backend"})
    assert made.status == 201, made.json
    return admin.with_key(made.json["api_key"])

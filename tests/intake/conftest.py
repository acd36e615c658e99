"""The homeserver's listener over a real database and real HTTP, and a hand for pushing."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from sqlalchemy import Connection, insert, select

from openmeet_appservice.domain.kinds import Access
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.intake.app import IntakeSettings, build_app
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import entities, members, room_events, rooms, sync, tenants, users
from openmeet_appservice.store.wakeups import Wakeups

SERVER = "hs.test"
BOT = "@openmeet-bot:hs.test"
TOKEN = "the-hs-token"
BASE = "/_matrix/app/v1"


@dataclass(slots=True)
class Intake:
    """The listener and what it works with."""

    app: web.Application
    url: str
    http: ClientSession
    database: Database
    wakeups: Wakeups
    storage_failures: list[None] = field(default_factory=list)
    ephemeral: list[Any] = field(default_factory=list)
    suspicion: Suspicion = field(default_factory=Suspicion)

    async def request(
        self, method: str, path: str, *, token: str | None = TOKEN, **more: Any
    ) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= more.pop("headers", {})
        if isinstance(more.get("data"), bytes):
            # aiohttp warns of large bodies that are bytes.
            more["data"] = io.BytesIO(more["data"])
        async with self.http.request(method, self.url + path, headers=headers, **more) as response:
            assert "Traceback" not in await response.text()
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def push(self, txn_id: str, *events: Any) -> tuple[int, Any]:
        """Push a transaction."""
        return await self.request("PUT", f"{BASE}/transactions/{txn_id}", json={"events": events})

    async def logged(self, tenant: str = "t1") -> list[str]:
        """The event ids in the tenant's log."""
        query = select(room_events.c.event_id).where(room_events.c.tenant == tenant)
        query = query.order_by(room_events.c.position)
        return await self.database.read(lambda connection: list(connection.execute(query).scalars()))


def settings(**more: Any) -> IntakeSettings:
    """Settings with one token."""
    room_settings = RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=False,
        version=None,
        federate=False,
        access=Access.MEMBERS,
        power_levels=MappingProxyType({}),
        chat_statuses=frozenset(),
    )
    given: dict[str, Any] = {
        "hs_tokens": [TOKEN],
        "server_name": SERVER,
        "bot": BOT,
        "rooms": room_settings,
        "aliases": Template("{kind}-{slug}-{tenant}", SERVER),
        "lookups": LookupSettings(url=None, alias_timeout=3.0, timeout=15.0, resync_interval=21600.0),
    }
    return IntakeSettings(**given | more)


StartIntake = Callable[..., Awaitable[Intake]]


@pytest.fixture
async def start_intake() -> AsyncIterator[StartIntake]:
    """Starts listeners: ``await start_intake(database, **settings)``."""
    stops: list[Callable[[], Awaitable[None]]] = []

    async def start(
        database: Database, wakeups: Wakeups | None = None, *, ephemeral_fails: bool = False, **more: Any
    ) -> Intake:
        failures: list[None] = []
        ephemeral: list[Any] = []

        def take(elements: list[Any]) -> None:
            if ephemeral_fails:
                raise LookupError("a fault of ours")
            ephemeral.append(elements)

        wakeups, suspicion = wakeups or Wakeups(), Suspicion()
        app = build_app(
            settings(**more),
            database=database,
            wakeups=wakeups,
            storage_failed=lambda: failures.append(None),
            ephemeral=take,
            suspicion=suspicion,
            now=lambda: 1_790_000_000_000,
        )
        server = TestServer(app)
        await server.start_server()
        http = ClientSession()
        stops.extend((http.close, server.close))
        url = str(server.make_url("")).rstrip("/")
        return Intake(app, url, http, database, wakeups, failures, ephemeral, suspicion)

    yield start
    for stop in stops:
        await stop()


def add_tenant(connection: Connection, tenant: str = "t1", settings: str = "{}") -> None:
    """Insert a tenant."""
    connection.execute(
        insert(tenants).values(
            tenant=tenant,
            tenant_id=tenant,
            name=tenant,
            settings=settings,
            revision=1,
            last_position=0,
            created_at=0,
            updated_at=0,
        )
    )


def add_entity(connection: Connection, ref: str, alias: str, spec: str) -> None:
    """Insert an event of ``t1`` that waits for the reconciler."""
    connection.execute(
        insert(entities).values(
            tenant="t1",
            id=ref,
            kind="event",
            slug=ref,
            slug_key=ref,
            alias=alias,
            spec=spec,
            revision=1,
            members_revision=1,
            removals_confirmed=0,
            created_at=0,
            updated_at=0,
        )
    )
    connection.execute(
        insert(sync).values(
            tenant="t1",
            subject="entity",
            ref=ref,
            generation=1,
            observed_generation=0,
            due_at=0,
            attempts=0,
            lease_epoch=0,
        )
    )


def add_room(
    connection: Connection,
    ref: str,
    room_id: str | None,
    *,
    state: str = "open",
    entity: str | None = None,
    alias: str | None = None,
    claim: str | None = None,
) -> None:
    """Insert a room of ``t1``."""
    connection.execute(
        insert(rooms).values(
            tenant="t1",
            id=ref,
            entity_ref=entity or f"entity-of-{ref}",
            state=state,
            claim=claim or f"claim-{ref}",
            lock_alias=f"#{ref}:{SERVER}",
            alias=alias,
            room_id=room_id,
            room_version="12" if room_id else None,
            log_id=f"log-{ref}",
            last_sequence=0,
            created_at=0,
        )
    )


def add_user(connection: Connection, user_id: str) -> None:
    """Insert a user of ``t1`` who is not registered yet."""
    connection.execute(
        insert(users).values(
            tenant="t1",
            id=user_id,
            slug=user_id,
            slug_key=user_id,
            placeholder=False,
            spec="{}",
            revision=1,
            user_id=user_id,
            created_at=0,
            updated_at=0,
        )
    )


def add_pair(connection: Connection, ref: str, *user_ids: str) -> None:
    """Insert a direct room's entity of ``t1``, and its two users."""
    connection.execute(
        insert(entities).values(
            tenant="t1",
            id=ref,
            kind="direct",
            slug=ref,
            slug_key=ref,
            spec="{}",
            revision=1,
            members_revision=1,
            removals_confirmed=0,
            created_at=0,
            updated_at=0,
        )
    )
    for user_id in user_ids:
        add_user(connection, user_id)
        member = {"tenant": "t1", "entity_ref": ref, "user_ref": user_id, "role": "member"}
        connection.execute(insert(members).values(**member, banned=False, muted=False))


@dataclass(frozen=True, slots=True)
class Rows:
    """Inserts rows: tests cannot import this file."""

    tenant: Callable[..., None] = add_tenant
    entity: Callable[..., None] = add_entity
    room: Callable[..., None] = add_room
    user: Callable[..., None] = add_user
    pair: Callable[..., None] = add_pair


@pytest.fixture
def rows() -> Rows:
    """What inserts rows."""
    return Rows()


@pytest.fixture
async def intake(database: Database, start_intake: StartIntake) -> Intake:
    """A listener over a database with one tenant and the room ``!a``."""
    await database.write(add_tenant)
    await database.write(add_room, "room-a", "!a")
    return await start_intake(database)


@pytest.fixture
async def light_intake(tmp_path: Any, start_intake: StartIntake) -> Intake:
    """A listener whose database must not be needed: using it fails."""

    class NoDatabase(Database):
        dialect = "sqlite"

        async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the database was written to")

        async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the database was read")

        async def close(self) -> None:
            await asyncio.sleep(0)

    return await start_intake(NoDatabase())

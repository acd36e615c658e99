"""What a change costs, counted: requests to a real Synapse, and statements, on both databases."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import orjson
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from cryptography.fernet import Fernet
from sqlalchemy import Connection, delete, event, func, select, update
from sqlalchemy.engine import Engine, make_url

from openmeet_appservice.chat.routes import MessageRoutes
from openmeet_appservice.chat.sending import Sending
from openmeet_appservice.domain.names import Template
from openmeet_appservice.homeserver import new_txn_id
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.provisioning.idempotency import StoredIdempotency
from openmeet_appservice.provisioning.keys import key_lookup
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.store import keys, schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.member_tables import member_checks
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import sync, tenants, users
from openmeet_appservice.web.app import build_app
from openmeet_appservice.web.auth import digest, new_key
from openmeet_appservice.web.routes import Scope

from .conftest import BOT, SERVER, TENANT, Service, World, make_service, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_REQUESTS = 4
MOST_STATEMENTS = 15
CLAIM = "SELECT sync.tenant, sync.subject"
LOOK = "SELECT min(CASE"
"""How the worker asks whether there is something to do."""
SIZES = 10, 10_000


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements that any database is given meanwhile."""
    seen: list[str] = []

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", before)


@dataclass(slots=True)
class Whole:
    """The provisioning API in front of a reconciler at work."""

    service: Service
    client: TestClient[Any, Any]
    key: str

    async def call(self, method: str, path: str, body: Any = None, expected: int = 202) -> Any:
        """Call the API below the tenant."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"/v1/tenants/{TENANT}{path}"
        async with self.client.request(method, url, json=body, headers=headers) as answer:
            shown = await answer.json(content_type=None)
            assert answer.status == expected, shown
            return shown

    async def user(self, name: str) -> None:
        """Make a user, and wait until its puppet is there."""
        await self.call("PUT", f"/users/{self.service.slug(name)}", {"display_name": name}, 202)

        async def is_ready() -> bool:
            shown = await self.call("GET", f"/users/{self.service.slug(name)}", expected=200)
            return bool(shown["sync"]["phase"] == "ready")

        await until(is_ready, "the user is ready")

    async def ready(self, path: str) -> dict[str, Any]:
        """Return the event once Synapse agrees."""
        found: dict[str, Any] = {}

        async def is_ready() -> bool:
            found.update(await self.call("GET", path, expected=200))
            return bool(found["sync"]["phase"] == "ready")

        await until(is_ready, f"{path} is ready")
        return found


@pytest_asyncio.fixture(loop_scope="session", params=["sqlite", "postgresql"])
async def whole(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    """API and reconciler, once on each database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'test.db'}"
    else:
        server = request.getfixturevalue("postgresql_server")
        name = f"test_{secrets.token_hex(6)}"
        connection = await asyncpg.connect(server)
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
    database = open_database(url)
    await database.write(schema.migrate)
    # Looks for work only when woken, so that only the work itself is counted.
    service = await make_service(world, database, None, poll=60.0)
    await service.start()
    assert service.reconciler is not None
    parts = Parts(
        database=database,
        wakeups=service.wakeups,
        now=_now,
        clock=time.monotonic,
        new_id=new_id,
        puppets=Template("openmeet_{tenant}_{user}", SERVER),
        aliases=Template("{kind}-{slug}-{tenant}", SERVER),
        bot=BOT,
        secrets=SecretBox([Fernet.generate_key().decode()]),
        check_url=Guard().check_url,
        post=_post,
    )
    homeserver = service.client(service.proxy.url)
    sending = Sending(database, homeserver, asyncio.sleep, _now, service.reconciler.admit)
    spoken = MessageRoutes(sending, service.settings.rooms, new_txn_id, lambda: new_id("msg"))
    app = build_app(
        [*routes(parts), *spoken.routes()],
        key_lookup=key_lookup(database, []),
        idempotency=StoredIdempotency(database, _now),
    )
    key = new_key(Scope.TENANT)
    await database.write(keys.add, TENANT, name="backend", digest=digest(key), now=1, new_id=new_id)
    async with TestClient(TestServer(app)) as client:
        yield Whole(service, client, key)
    await service.stop()
    await service.proxy.stop()
    await database.close()


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _post(url: str, body: bytes, headers: Mapping[str, str]) -> NoReturn:
    raise AssertionError("nobody is called here")


def attendees(whole: Whole, number: int) -> list[dict[str, str]]:
    return [{"user": whole.service.slug(f"a{n}"), "role": "participant"} for n in range(number)]


async def large(whole: Whole, name: str, size: int, settings: dict[str, Any]) -> str:
    """Make an event of *size* members, as good as all of them inside, and return its path."""
    service = whole.service
    await service.database.write(
        lambda connection: connection.execute(
            update(tenants).values(settings=orjson.dumps({"rooms": settings}).decode())
        )
    )
    path = f"/events/{service.slug(name)}"
    await whole.call("PUT", path, {"name": name, "visibility": "public", "status": "published"})
    await whole.call("PUT", f"{path}/members", {"members": attendees(whole, 3)})
    await whole.ready(path)
    await service.stop()
    await whole.call("PUT", f"{path}/members", {"members": attendees(whole, size)})
    # Ten thousand joins take a quarter of an hour, and nobody has to see them.
    await service.database.write(_agree)
    service.proxy.seen.clear()
    await service.start()
    await until(is_quiet(service), "the new process has asked who it is")
    return path


def _agree(connection: Connection) -> None:
    connection.execute(
        update(sync).values(
            observed_generation=sync.c.generation,
            seen_touch=sync.c.touches,
            due_at=None,
            lease_until=None,
        )
    )
    connection.execute(delete(member_checks))


async def cost(whole: Whole, method: str, path: str, body: Any, event: str) -> tuple[list[str], list[str]]:
    """Make a request; return which requests and statements it took until Synapse agreed."""
    whole.service.proxy.seen.clear()
    settled = whole.service.wakeups.ticket("reconciled")
    with statements() as run:
        await whole.call(method, path, body)
        assert await whole.service.wakeups.wait("reconciled", settled, 30)
    shown = await whole.call("GET", event, expected=200)
    assert shown["sync"]["phase"] == "ready", shown["sync"]
    return [f"{seen.method} {seen.path}" for seen in whole.service.proxy.seen], run


CHANGES: list[tuple[str, str, str, Any, int]] = [
    ("a participant more", "PUT", "new", {"role": "participant"}, 2),
    ("a host more", "PUT", "new", {"role": "host"}, 4),
    ("another role", "PUT", "a1", {"role": "moderator"}, 2),
    ("one less", "DELETE", "a1", None, 1),
    ("a delta", "PATCH", "", {"upsert": [{"user": "new", "role": "guest"}], "remove": ["a1"]}, 3),
]


@pytest.mark.parametrize("settings", [{"join": "eager"}, {"join": "auto", "join_auto_limit": 5}])
@pytest.mark.parametrize(("what", "method", "user", "body", "most"), CHANGES, ids=[c[0] for c in CHANGES])
async def test_one_member_costs_the_same_in_a_room_of_ten_and_of_ten_thousand(
    whole: Whole, what: str, method: str, user: str, body: Any, most: int, settings: dict[str, Any]
) -> None:
    await whole.user("new")
    runs = []
    for size in SIZES:
        event = await large(whole, f"club{size}", size, settings)
        members = f"{event}/members"
        path = f"{members}/{whole.service.slug(user)}" if user else members
        requests, run = await cost(whole, method, path, named(whole, body), event)
        assert len(requests) <= most + (settings["join"] == "auto"), requests
        assert len(requests) <= MOST_REQUESTS
        # How often the worker looks is chance, and so is when a new connection introduces itself.
        runs.append(
            [statement for statement in run if LOOK not in statement and "pg_catalog" not in statement]
        )
    assert sorted(map(shape, runs[0])) == sorted(map(shape, runs[1]))
    # What OpenMeet's request took, and then the reconciler.
    request = next(n for n, statement in enumerate(runs[1]) if statement.startswith(CLAIM))
    assert request <= MOST_STATEMENTS, "\n".join(runs[1][:request])
    assert len(runs[1]) - request <= MOST_STATEMENTS, "\n".join(runs[1][request:])


def named(whole: Whole, body: Any) -> Any:
    """Return *body* with the slugs of this test."""
    if not body or "upsert" not in body:
        return body
    slug = whole.service.slug
    upsert = [{**member, "user": slug(member["user"])} for member in body["upsert"]]
    return {"upsert": upsert, "remove": [slug(user) for user in body["remove"]]}


def shape(statement: str) -> str:
    """Return the beginning of a statement, to compare what was done."""
    return " ".join(statement.split())[:80]


async def test_an_event_of_ten_thousand_is_ready_and_its_first_message_sent(whole: Whole) -> None:
    for host in ("ada", "bob"):
        await whole.user(host)
    service = whole.service
    await until(is_quiet(service), "the new process has asked who it is")
    service.proxy.seen.clear()
    hosts = [{"user": service.slug(host), "role": "host"} for host in ("ada", "bob")]
    path = f"/events/{service.slug('fair')}"
    spec = {"name": "Fair", "visibility": "public", "status": "published"}
    started = time.monotonic()
    await whole.call("PUT", path, {**spec, "members": [*hosts, *attendees(whole, 10_000)]})
    room_id = (await whole.ready(path))["matrix"]["room_id"]
    message = {"sender": service.slug("a77"), "body": "Hello from the last row"}
    sent = await whole.call("POST", f"{path}/messages", message, 201)
    seconds = time.monotonic() - started
    requests = [f"{seen.method} {seen.path}" for seen in service.proxy.seen]
    print(f"{len(requests)} requests, {seconds:.2f} s")
    assert len(requests) <= 20, requests
    inside = {service.user_id(who) for who in ("ada", "bob", "a77")}
    assert await service.inside(room_id) == inside
    page = await service.homeserver.messages(room_id)
    [said] = [event for event in page.events if event["event_id"] == sent["event_id"]]
    assert (said["sender"], said["content"]["body"]) == (service.user_id("a77"), message["body"])
    # Nobody else has an account.
    registered = select(func.count()).select_from(users).where(users.c.registered_at.is_not(None))
    assert await service.database.read(lambda c: c.execute(registered).scalar_one()) == 3
    again = await whole.call("POST", f"{path}/messages", message, 201)
    assert again["event_id"] != sent["event_id"]
    assert len(service.proxy.seen) == len(requests) + 1, "once inside, a message is one request"


def is_quiet(service: Service) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the process has asked who it is, as each does when it starts."""

    async def look() -> bool:
        return service.proxy.count("GET", "/whoami") > 0

    return look

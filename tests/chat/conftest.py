"""A store with an event and its room, a homeserver that loses answers, and the API over both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import Connection, select, update

from openmeet_appservice.chat.routes import MessageRoutes
from openmeet_appservice.chat.sending import Sending
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.kinds import Access, AttendeeStatus, EntityKind
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, new_txn_id, open_session
from openmeet_appservice.provisioning.idempotency import StoredIdempotency
from openmeet_appservice.provisioning.keys import key_lookup
from openmeet_appservice.store import (
    entities,
    event_log,
    keys,
    members,
    messages,
    puppets,
    rooms,
    sync,
    tenants,
    users,
)
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.messages import Message, Sender
from openmeet_appservice.store.tables import messages as messages_table
from openmeet_appservice.store.tables import users as users_table
from openmeet_appservice.web.app import build_app
from openmeet_appservice.web.auth import digest, new_key
from openmeet_appservice.web.routes import Scope

SERVER = "example.org"
BOT = f"@openmeet-bot:{SERVER}"
ADA, ALAN = f"@openmeet_t1_ada:{SERVER}", f"@openmeet_t1_alan:{SERVER}"
ROOM = f"!games:{SERVER}"
START = 1_795_374_000_000
DEFAULTS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels={},
    chat_statuses=frozenset({AttendeeStatus.CONFIRMED, AttendeeStatus.ATTENDED}),
)
Client: TypeAlias = TestClient[Any, Any]


@dataclass
class Clock:
    """Milliseconds since the epoch; stands still until a test turns it."""

    ms: int = START

    def __call__(self) -> int:
        return self.ms


@dataclass(frozen=True)
class Refusal:
    """An answer of the homeserver that is none of its usual ones."""

    status: int
    errcode: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Synapse:
    """Takes messages as Synapse does, and fails as Synapse does.

    Parameters
    ----------
    faults
        What happens to the next requests to send: ``lost`` acts, and the answer is cut off; ``hang up``
        acts and closes the connection; ``unheard`` gets no further than a proxy; a `Refusal` is answered.
        When there is none left, all goes well.
    history_faults
        The same for requests to read the history.
    """

    clock: Clock
    faults: list[str | Refusal] = field(default_factory=list)
    history_faults: list[str | Refusal] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)
    pages: int = 0
    page_size: int = 100
    without_bot: set[str] = field(default_factory=set)
    """The rooms that the bot may not read."""
    on_send: Callable[[], Awaitable[None]] | None = None
    _remembered: dict[tuple[str, str], str] = field(default_factory=dict)

    def restart(self) -> None:
        """Forget the transaction ids, which Synapse keeps in memory only."""
        self._remembered.clear()

    def add(self, room: str, sender: str, content: Mapping[str, Any], at: int | None = None) -> str:
        """Put a message into the room's history and return its event id."""
        event_id = f"$event{len(self.history) + 1}"
        self.history.append(
            {
                "type": "m.room.message",
                "event_id": event_id,
                "room_id": room,
                "sender": sender,
                "origin_server_ts": self.clock() if at is None else at,
                "content": dict(content),
            }
        )
        return event_id

    @property
    def said(self) -> list[tuple[str, str]]:
        """Sender and body of everything in the history."""
        return [(event["sender"], event["content"]["body"]) for event in self.history]

    def app(self) -> web.Application:
        app = web.Application()
        base = "/_matrix/client/v3/rooms/{room}"
        app.router.add_put(f"{base}/send/m.room.message/{{txn}}", self._send)
        app.router.add_get(f"{base}/messages", self._messages)
        return app

    async def _send(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        if self.on_send is not None:
            await self.on_send()
        fault = self.faults.pop(0) if self.faults else "none"
        room, txn = request.match_info["room"], request.match_info["txn"]
        self.transactions.append(txn)
        if isinstance(fault, Refusal):
            return self._refuse(fault)
        if fault == "unheard":
            return self._proxy()
        event_id = self._remembered.get((room, txn))
        if event_id is None:
            event_id = self.add(room, request.query["user_id"], content)
            self._remembered[room, txn] = event_id
        if fault == "hang up":
            assert request.transport is not None
            request.transport.abort()
        if fault == "lost":
            return await self._cut_off(request)
        return web.json_response({"event_id": event_id})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        fault = self.history_faults.pop(0) if self.history_faults else "none"
        if isinstance(fault, Refusal):
            return self._refuse(fault)
        if fault != "none":
            return self._proxy()
        if request.match_info["room"] in self.without_bot:
            if "user_id" not in request.query:
                return self._refuse(Refusal(403, "M_FORBIDDEN"))
        else:
            assert "user_id" not in request.query, "the bot reads"
        self.pages += 1
        events = [e for e in reversed(self.history) if e["room_id"] == request.match_info["room"]]
        start = int(request.query.get("from", "0"))
        shown = events[start : start + self.page_size]
        answer: dict[str, Any] = {"chunk": shown, "start": str(start)}
        if start + self.page_size < len(events):
            answer["end"] = str(start + self.page_size)
        return web.json_response(answer)

    @staticmethod
    def _refuse(fault: Refusal) -> web.Response:
        body = {"errcode": fault.errcode, "error": "in Synapse's own words"}
        return web.json_response(body, status=fault.status, headers=fault.headers)

    @staticmethod
    def _proxy() -> web.Response:
        return web.Response(status=502, text="<h1>Bad gateway</h1>", content_type="text/html")

    @staticmethod
    async def _cut_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"event_id": "$ev')
        assert request.transport is not None
        request.transport.close()
        return response


@dataclass
class Doorkeeper:
    """Stands for the reconciler, which lets members in.

    Parameters
    ----------
    outside
        Those who are not inside.
    fault
        What it raises instead.
    """

    outside: set[str] = field(default_factory=set)
    fault: Exception | None = None
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def __call__(self, tenant: str, entity_ref: str, user_id: str) -> bool:
        self.asked.append((tenant, entity_ref, user_id))
        if self.fault is not None:
            raise self.fault
        was_outside = user_id in self.outside
        self.outside.discard(user_id)
        return was_outside


@dataclass
class World:
    """What a test acts on: tenant T1 with ada (host) and alan (nobody yet), the event Board-Games."""

    database: Database
    synapse: Synapse
    clock: Clock
    sending: Sending
    entity: Entity
    room_ref: str
    slept: list[float]
    doorkeeper: Doorkeeper

    async def sender(self, user: str = "ada") -> Sender:
        found = await self.database.read(messages.sender, "t1", "event", "board-games", user)
        assert isinstance(found, Sender)
        return found

    async def send(self, message_id: str, body: str = "Hello", txn: str | None = None) -> str:
        content = {"msgtype": "m.text", "body": body}
        return await self.sending.send(
            "t1", message_id, await self.sender(), txn or f"txn-{message_id}", content
        )

    async def row(self, message_id: str) -> Message | None:
        return await self.database.read(messages.get, "t1", message_id)

    async def rows(self) -> list[Any]:
        query = select(messages_table).order_by(messages_table.c.created_at)
        return await self.database.read(lambda connection: list(connection.execute(query)))

    async def join(self, user: str, role: str, status: str | None = None, **more: bool) -> None:
        """Make a user a member."""

        def write(connection: Connection) -> None:
            found = users.find(connection, "t1", user)
            assert found is not None
            members.merge(connection, self.entity, {found.ref: Standing(role, status, **more)}, [])

        await self.database.write(write)

    async def unregister(self, user: str) -> None:
        """Make a user one whose account was never made."""
        await self.database.write(
            lambda connection: connection.execute(
                update(users_table).where(users_table.c.slug_key == user).values(registered_at=None)
            )
        )

    async def touch(self) -> None:
        """Have something change that Synapse does not follow yet."""
        await self.database.write(sync.touch, "t1", "entity", self.entity.ref, now=self.clock())

    async def settle(self) -> None:
        """Record that Synapse agrees with everything."""

        def write(connection: Connection) -> None:
            for lease in sync.claim_due(connection, now=self.clock(), lease=1000, limit=100):
                sync.finish(connection, lease, observed=lease.generation)

        await self.database.write(write)

    async def echo(self, event: Mapping[str, Any]) -> None:
        """Have the event come in by a transaction from Synapse."""
        arrival = read_event(dict(event))
        assert isinstance(arrival, Arrival)
        await self.database.write(event_log.append, [arrival], now=self.clock(), bot=BOT)


def _set_up(connection: Connection) -> tuple[Entity, str]:
    tenants.create(connection, "T1", name="One", settings={}, now=START)
    for slug, user_id in (("Ada", ADA), ("alan", ALAN)):
        made = users.create(
            connection,
            "t1",
            slug,
            user_id=user_id,
            spec={"display_name": slug},
            external_id=None,
            as_of=None,
            now=START,
            new_id=new_id,
        )
        assert made is not None
        puppets.set_registered(connection, "t1", made.ref, now=START)
    entity = entities.create(
        connection,
        "t1",
        EntityKind.EVENT,
        "Board-Games",
        alias=f"#event-board-games-t1:{SERVER}",
        spec={"name": "Board games", "status": "published", "visibility": "public"},
        external_id=None,
        as_of=None,
        now=START,
        new_id=new_id,
    )
    assert entity is not None
    ada = users.find(connection, "t1", "ada")
    assert ada is not None
    members.merge(connection, entity, {ada.ref: Standing("host", None)}, [])
    sync.touch(connection, "t1", "entity", entity.ref, now=START)
    claimed = rooms.claim(
        connection, "t1", entity.ref, claim="c1", lock_alias="#lock1:x", now=START, new_id=new_id
    )
    event_log.record_room_id(connection, "t1", claimed.ref, ROOM, "12", now=START, bot=BOT)
    return entity, claimed.ref


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def synapse(clock: Clock) -> Synapse:
    return Synapse(clock)


@pytest.fixture
async def world(database: Database, synapse: Synapse, clock: Clock) -> AsyncIterator[World]:
    """The event with its room, everything settled."""
    entity, room_ref = await database.write(_set_up)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with TestServer(synapse.app()) as server, open_session("tests") as session:
        api = MatrixApi(
            str(server.make_url("/")).rstrip("/"),
            ["as-token"],
            session,
            retries=RetryPolicy(attempts=2),
            sleep=sleep,
        )
        doorkeeper = Doorkeeper()
        sending = Sending(database, Homeserver(api, "openmeet"), sleep, clock, doorkeeper)
        world = World(database, synapse, clock, sending, entity, room_ref, slept, doorkeeper)
        await world.settle()
        yield world


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    json: Any


@dataclass(frozen=True)
class Api:
    """OpenMeet's backend with the tenant's key."""

    client: Client
    key: str
    world: World

    async def post(
        self,
        body: Any,
        idempotency_key: str | None = None,
        path: str = "/v1/tenants/T1/events/board-games/messages",
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        async with self.client.post(path, data=json.dumps(body), headers=headers) as response:
            return Answer(response.status, response.headers, await response.json(content_type=None))


@pytest.fixture
async def api(world: World, aiohttp_client: Callable[[web.Application], Awaitable[Client]]) -> Api:
    """The routes of messages over HTTP."""
    made = new_key(Scope.TENANT)
    await world.database.write(keys.add, "t1", name="backend", digest=digest(made), now=START, new_id=new_id)
    routes = MessageRoutes(world.sending, DEFAULTS, new_txn_id, lambda: new_id("msg"))
    app = build_app(
        routes.routes(),
        key_lookup=key_lookup(world.database, []),
        idempotency=StoredIdempotency(world.database, world.clock),
    )
    return Api(await aiohttp_client(app), made, world)

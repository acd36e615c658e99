"""A real Synapse, and a service in front of it of which only the reconciler runs."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from ruamel.yaml import YAML
from sqlalchemy import Connection

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.person import Person
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.domain.direct import MEMBER, direct_slug
from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    Access,
    EntityKind,
)
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.homeserver import AdminCalls, Homeserver, MatrixApi, RetryPolicy, open_session
from openmeet_appservice.reconciler import Reconciler, ReconcilerSettings
from openmeet_appservice.store import (
    checks,
    entities,
    former_slugs,
    members,
    rooms,
    schema,
    sync,
    tenants,
    users,
)
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.entities import Entity, Removals
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.sync import SyncStatus
from openmeet_appservice.store.wakeups import Wakeups

from .proxy import Proxy

SERVER = "hs.test"
BOT = f"@openmeet-bot:{SERVER}"
TOKEN = secrets.token_hex(16)
TENANT = "t1"
LONG = 40.0
"""Seconds after which something has certainly not happened."""

P = ParamSpec("P")
T = TypeVar("T")
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class World:
    """A running Synapse, and an ordinary person on it."""

    synapse: Synapse
    session: ClientSession
    person: Person
    admin_token: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One Synapse for all tests here; nobody listens at the registration's URL, for it has none."""
    folder = tmp_path_factory.mktemp("reconciler")
    registration = folder / "registration.yaml"
    YAML(typ="safe").dump(
        {
            "id": "openmeet",
            "url": None,
            "as_token": TOKEN,
            "hs_token": secrets.token_hex(16),
            "sender_localpart": "openmeet-bot",
            "rate_limited": False,
            "namespaces": {
                "users": [{"regex": r"@openmeet_.*:hs\.test$", "exclusive": True}],
                "aliases": [
                    {"regex": r"#(event|group)-.*:hs\.test$", "exclusive": True},
                    {"regex": r"#_openmeet_.*:hs\.test$", "exclusive": True},
                ],
                "rooms": [],
            },
        },
        registration,
    )
    settings = SynapseSettings(
        folder / "synapse", SERVER, ports.any_free_port(), (registration,), bot_user_id=BOT
    )
    synapse = Synapse(settings)
    await synapse.start()
    try:
        async with open_session("tests") as session:
            person = await Person.register(session, synapse.url, "paul", "correct horse")
            admin = await synapse.register_user("root", "correct horse", admin=True)
            yield World(synapse, session, person, admin.access_token)
    finally:
        await synapse.stop()


async def until(condition: Callable[[], Awaitable[object]], what: str, limit: float = LONG) -> None:
    """Return once *condition* holds."""
    end = time.monotonic() + limit
    while not await condition():
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        await asyncio.sleep(0.03)


@dataclass(slots=True)
class Service:
    """The reconciler on one database, and the hand of OpenMeet."""

    database: Database
    proxy: Proxy
    settings: ReconcilerSettings
    wakeups: Wakeups = field(default_factory=Wakeups)
    reconciler: Reconciler | None = None
    admin_token: str | None = None
    prefix: str = field(default_factory=lambda: f"s{next(_counter)}")

    @property
    def homeserver(self) -> Homeserver:
        """A client for the test's own eyes, past the proxy."""
        return self.client(self.proxy.target)

    def admin(self, url: str, token: str) -> AdminCalls:
        """Return a client for the admin API."""
        retries = RetryPolicy(attempts=2, first_wait=0.05)
        return AdminCalls(MatrixApi(url, [token], self.proxy.session, retries=retries))

    def client(self, url: str) -> Homeserver:
        """Return a client for the homeserver at *url*."""
        retries = RetryPolicy(attempts=2, first_wait=0.05)
        return Homeserver(MatrixApi(url, [TOKEN], self.proxy.session, retries=retries), "openmeet")

    async def start(self) -> None:
        """Start a reconciler, as a new process would."""
        self.reconciler = Reconciler(
            self.database,
            self.client(self.proxy.url),
            self.wakeups,
            self.settings,
            admin=None if self.admin_token is None else self.admin(self.proxy.url, self.admin_token),
        )
        await self.reconciler.start()

    async def stop(self, timeout: float = 0.0) -> None:
        """Stop it."""
        if self.reconciler is not None:
            await self.reconciler.stop(timeout)
            self.reconciler = None

    def slug(self, name: str) -> str:
        """Return a slug that no other test uses."""
        return f"{name}-{self.prefix}"

    def user_id(self, name: str) -> str:
        """Return the user id of the puppet called *name*."""
        return f"@openmeet_{TENANT}_{self.slug(name)}:{SERVER}"

    def alias(self, name: str, kind: str = "event") -> str:
        """Return the alias kept for that entity."""
        return f"#{kind}-{self.slug(name)}-{TENANT}:{SERVER}"

    async def put_user(self, name: str, display_name: str) -> str:
        """Make a user or change its display name; return our id."""
        return await self._write(_put_user, self.slug(name), self.user_id(name), display_name)

    async def put(
        self,
        name: str,
        /,
        *,
        kind: EntityKind = EntityKind.EVENT,
        who: dict[str, str | Standing] | None = None,
        confirmed: bool = False,
        **spec: Any,
    ) -> Entity:
        """Make an event or group or change it; *who* maps names to roles, None leaves the members."""
        wanted = {"name": name.title(), "visibility": "public", "status": "published", **spec}
        standings = None
        if who is not None:
            standings = {
                self.slug(user): role if isinstance(role, Standing) else Standing(role, None)
                for user, role in who.items()
            }
        return await self._write(
            _put_entity,
            kind,
            self.slug(name),
            self.alias(name, kind.value),
            wanted,
            standings,
            lambda slug: f"@openmeet_{TENANT}_{slug}:{SERVER}",
            confirmed,
        )

    async def change(self, name: str, who: dict[str, str | Standing], gone: tuple[str, ...] = ()) -> None:
        """Add or change some members of an event, and remove others, as a delta does."""
        await self._write(
            _change_members,
            self.slug(name),
            {self.slug(user): r if isinstance(r, Standing) else Standing(r, None) for user, r in who.items()},
            [self.slug(user) for user in gone],
            lambda slug: f"@openmeet_{TENANT}_{slug}:{SERVER}",
        )

    async def rename(self, name: str, new: str) -> Entity:
        """Give an event another slug, which nothing has."""
        return await self._write(_rename, self.slug(name), self.slug(new), self.alias(new))

    async def recreate(self, name: str, **spec: Any) -> Entity:
        """Have a new room take the place of an event's, and change its spec."""
        return await self._write(_recreate, self.slug(name), spec)

    async def archive(self, name: str, *, purge: bool = False) -> Entity:
        """Delete an event, for good or not."""
        return await self._write(_archive, EntityKind.EVENT, self.slug(name), purge=purge)

    async def put_direct(self, one: str, other: str, **spec: Any) -> Entity:
        """Let two users have a room of their own."""
        return await self._write(
            _put_entity,
            EntityKind.DIRECT,
            direct_slug(self.slug(one), self.slug(other)),
            None,
            spec,
            {self.slug(user): Standing(MEMBER) for user in (one, other)},
            lambda slug: f"@openmeet_{TENANT}_{slug}:{SERVER}",
            False,
        )

    async def archive_direct(self, one: str, other: str) -> Entity:
        """Delete the room of two users."""
        return await self._write(
            _archive, EntityKind.DIRECT, direct_slug(self.slug(one), self.slug(other)), purge=False
        )

    async def poke(self, thing: Entity) -> None:
        """Have it compared again."""
        await self._write(sync.touch, TENANT, "entity", thing.ref, now=_now())

    async def _write(
        self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        result = await self.database.write(do, *args, **kwargs)
        self.wakeups.wake("reconcile")
        return result

    async def status(self, ref: str, subject: sync.Subject = "entity") -> SyncStatus:
        """Return how far Synapse has followed."""
        found = await self.database.read(sync.status, TENANT, subject, ref)
        assert found is not None
        return found

    async def settled(self, thing: Entity | str, subject: sync.Subject = "entity") -> None:
        """Return once Synapse agrees."""
        ref = thing if isinstance(thing, str) else thing.ref

        async def agrees() -> bool:
            status = await self.status(ref, subject)
            return (
                status.observed_generation == status.generation
                and status.error is None
                and status.due_at is None
            )

        try:
            await until(agrees, "Synapse agrees")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.status(ref, subject)}") from None

    async def failed(self, thing: Entity, code: str) -> SyncStatus:
        """Return once the last error has this code."""

        async def has_failed() -> bool:
            status = await self.status(thing.ref)
            return status.error is not None and status.error.code == code

        try:
            await until(has_failed, f"it fails with {code}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.status(thing.ref)}") from None
        return await self.status(thing.ref)

    async def rooms(self, entity: Entity) -> list[rooms.Room]:
        """Return all rooms of an entity."""
        return await self.database.read(rooms.of_entity, TENANT, entity.ref)

    async def room_id(self, entity: Entity) -> str:
        """Return the id of the room in use."""
        found = await self.database.read(rooms.in_use, TENANT, entity.ref)
        assert found is not None
        assert found.room_id is not None
        return found.room_id

    async def state(self, room_id: str) -> dict[str, dict[str, Any]]:
        """Return the room's state without its members, as the bot sees it."""
        return {
            e["type"]: e["content"] for e in await self.homeserver.room_state(room_id) if not e["state_key"]
        }

    async def memberships(self, room_id: str) -> dict[str, str]:
        """Return everybody's membership, the bot aside."""
        return {
            event["state_key"]: event["content"]["membership"]
            for event in await self.homeserver.room_state(room_id)
            if event["type"] == "m.room.member" and event["state_key"] != BOT
        }

    async def inside(self, room_id: str) -> set[str]:
        """Return who has joined, the bot aside."""
        return {
            user for user, membership in (await self.memberships(room_id)).items() if membership == "join"
        }


def room_settings(version: str | None = None, **chosen: Any) -> RoomSettings:
    """Return the configuration's defaults, with what is *chosen* otherwise."""
    defaults = RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=False,
        version=version,
        federate=False,
        access=Access.MEMBERS,
        power_levels=DEFAULT_POWER_LEVELS,
        chat_statuses=DEFAULT_CHAT_STATUSES,
    )
    return replace(defaults, **chosen)


async def make_service(
    world: World, database: Database, version: str | None, *, poll: float = 0.5, **chosen: Any
) -> Service:
    """Return a service that is not started, with its tenant."""
    await database.write(tenants.create, TENANT, name="Tenant", settings={}, now=_now())
    proxy = Proxy(world.synapse.url, world.session)
    await proxy.start()
    settings = ReconcilerSettings(SERVER, BOT, room_settings(version, **chosen), poll_seconds=poll)
    return Service(database, proxy, settings)


@pytest_asyncio.fixture(loop_scope="session")
async def service(world: World, tmp_path: Path) -> AsyncIterator[Service]:
    """A reconciler on SQLite that is not started yet."""
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.write(schema.migrate)
    made = await make_service(world, database, None)
    yield made
    await made.stop()
    await made.proxy.stop()
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def running(service: Service) -> Service:
    """A reconciler on SQLite at work."""
    await service.start()
    return service


def _now() -> int:
    return time.time_ns() // 1_000_000


def _put_user(connection: Connection, slug: str, user_id: str, display_name: str) -> str:
    spec = {"display_name": display_name}
    found = users.find(connection, TENANT, slug)
    if found is None:
        found = users.create(
            connection,
            TENANT,
            slug,
            user_id=user_id,
            spec=spec,
            external_id=None,
            as_of=None,
            now=_now(),
            new_id=new_id,
        )
        assert found is not None
    else:
        users.change(connection, found, spec=spec, external_id=None, as_of=None, now=_now())
    sync.touch(connection, TENANT, "user", found.ref, now=_now())
    return found.ref


def _put_entity(
    connection: Connection,
    kind: EntityKind,
    slug: str,
    alias: str | None,
    spec: dict[str, Any],
    who: dict[str, Standing] | None,
    user_id: Callable[[str], str],
    confirmed: bool,
) -> Entity:
    found = entities.find(connection, TENANT, kind, slug)
    if found is None or found.archived_at is not None:
        loser = former_slugs.release(connection, TENANT, kind, slug)
        if loser is not None:
            sync.poke(connection, TENANT, "entity", loser, now=_now())
        found = entities.create(
            connection,
            TENANT,
            kind,
            slug,
            alias=alias,
            spec=spec,
            external_id=None,
            as_of=None,
            now=_now(),
            new_id=new_id,
        )
        assert found is not None
    else:
        found = entities.change(connection, found, spec=spec, external_id=None, as_of=None, now=_now())
    if who is not None:
        refs = users.ensure(connection, TENANT, list(who), user_id=user_id, now=_now(), new_id=new_id)
        members.replace(connection, found, {refs[name]: standing for name, standing in who.items()})
    entities.touch(connection, found, Removals.CONFIRMED if confirmed else Removals.MANY, now=_now())
    return found


def _change_members(
    connection: Connection,
    slug: str,
    who: dict[str, Standing],
    gone: list[str],
    user_id: Callable[[str], str],
) -> None:
    found = entities.find(connection, TENANT, EntityKind.EVENT, slug)
    assert found is not None
    named = [*who, *gone]
    refs = users.ensure(connection, TENANT, named, user_id=user_id, now=_now(), new_id=new_id)
    wanted = {refs[name]: standing for name, standing in who.items()}
    change = members.merge(connection, found, wanted, [refs[name] for name in gone])
    assert change.were is not None
    touch = entities.touch(connection, found, Removals.FEW, now=_now(), whole=False)
    checks.note(connection, TENANT, found.ref, change.were, touch)


def _rename(connection: Connection, slug: str, new: str, alias: str) -> Entity:
    found = entities.find(connection, TENANT, EntityKind.EVENT, slug)
    assert found is not None
    former_slugs.release(connection, TENANT, EntityKind.EVENT, new)
    found = entities.rename(connection, found, slug=new, alias=alias, as_of=None, now=_now())
    entities.touch(connection, found, Removals.FEW, now=_now())
    return found


def _recreate(connection: Connection, slug: str, spec: dict[str, Any]) -> Entity:
    found = entities.find(connection, TENANT, EntityKind.EVENT, slug)
    assert found is not None
    room = rooms.in_use(connection, TENANT, found.ref)
    assert room is not None
    assert rooms.replace(connection, room)
    spec = {**found.spec, **spec}
    found = entities.change(connection, found, spec=spec, external_id=None, as_of=None, now=_now())
    entities.touch(connection, found, Removals.FEW, now=_now())
    return found


def _archive(connection: Connection, kind: EntityKind, slug: str, *, purge: bool) -> Entity:
    found = entities.find(connection, TENANT, kind, slug)
    assert found is not None
    if found.archived_at is None:
        found = entities.archive(connection, found, as_of=None, now=_now())
    if purge:
        found = entities.purge(connection, found, as_of=None, now=_now())
    entities.touch(connection, found, Removals.FEW, now=_now())
    return found


def names(state: dict[str, dict[str, Any]]) -> tuple[str | None, str | None]:
    """Return the room's name and topic."""
    name = state.get("m.room.name", {}).get("name")
    topic = state.get("m.room.topic", {}).get("topic")
    return cast("str | None", name), cast("str | None", topic)

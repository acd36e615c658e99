"""The service in front of a homeserver: its processes, its API, and Synapse pushing events at it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from cryptography.fernet import Fernet

from openmeet_appservice.domain.kinds import DEFAULT_CHAT_STATUSES, DEFAULT_POWER_LEVELS, Access
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.errors import ApiError, Conflict, NotFound
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.intake.app import IntakeSettings, build_app
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.provisioning.parts import NO_LOOKUPS, Parts
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.reconciler import Reconciler, ReconcilerSettings
from openmeet_appservice.store import tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.routes import Caller, Request, Route, Scope
from openmeet_appservice.web.validation import parse_body

from .life import Life, LivingDatabase

SERVER = "hs.test"
BOT = f"@openmeet-bot:{SERVER}"
HS_TOKEN = "hs-token"
ALIASES = Template("{kind}-{slug}-{tenant}", SERVER)
SECRETS = SecretBox([Fernet.generate_key().decode()])
CALLER = Caller(Scope.ADMIN, None, "key", "tests")


@dataclass(slots=True)
class Process:
    """One process of the service."""

    life: Life
    database: LivingDatabase
    reconciler: Reconciler
    intake: web.Application


@dataclass(slots=True)
class Outbox:
    """What Synapse has to push and has not pushed yet; *held*: it does not, for now.

    *never_told* are the rooms of whose beginning it will never tell.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    held: bool = False
    something: asyncio.Event = field(default_factory=asyncio.Event)
    never_told: set[str] = field(default_factory=set)
    has_lost: bool = False

    def append(self, event: dict[str, Any]) -> None:
        """Take one more."""
        self.take([event])

    def take(self, events: list[dict[str, Any]]) -> None:
        """Take some more."""
        self.events += events
        self.something.set()

    def lose(self) -> None:
        """Forget what was to be pushed."""
        self.never_told |= {event["room_id"] for event in self.events if event["type"] == "m.room.create"}
        self.has_lost |= bool(self.events)
        self.events.clear()


class Stack:
    """Everything on our side of the homeserver, and the hand of OpenMeet.

    Parameters
    ----------
    database
        Migrated and empty.
    speak
        Makes the client of a process.
    version
        Of new rooms.
    now
        Milliseconds since the epoch.
    processes
        How many of the service there are.
    is_shared
        Whether there may be more on the database, which each has to reckon with.
    tenant
        Whose rooms they are. No two runs on one homeserver may have the same.
    """

    def __init__(
        self,
        database: Database,
        speak: Callable[[Life], Homeserver],
        *,
        version: str,
        now: Callable[[], int],
        seed: int,
        processes: int = 1,
        is_shared: bool = False,
        tenant: str = "t1",
    ) -> None:
        self.database = database
        self.now = now
        self.tenant = tenant
        self.wakeups = Wakeups()
        self.processes: list[Process] = []
        self.outbox = Outbox()
        self.wanted_processes = processes
        self.is_shared = is_shared or processes > 1
        self.rooms = RoomSettings(
            alias="{kind}-{slug}-{tenant}",
            private_alias=False,
            version=version,
            federate=False,
            access=Access.MEMBERS,
            power_levels=DEFAULT_POWER_LEVELS,
            chat_statuses=DEFAULT_CHAT_STATUSES,
        )
        self._speak = speak
        self._random = random.Random(seed)
        self._ids = itertools.count(1)
        self._routes = self._served()
        self._txn_ids = itertools.count(1)
        self._pusher: asyncio.Task[None] | None = None

    # -- OpenMeet's hand

    def _served(self) -> list[Route]:
        async def post(url: str, body: bytes, headers: Mapping[str, str]) -> Any:
            raise AssertionError("nobody asks for this")

        parts = Parts(
            database=self.database,
            wakeups=self.wakeups,
            now=self.now,
            clock=lambda: self.now() / 1000,
            new_id=self.new_id,
            puppets=Template("openmeet_{tenant}_{user}", SERVER),
            aliases=ALIASES,
            bot=BOT,
            secrets=SECRETS,
            check_url=lambda url: url,
            post=post,
        )
        return routes(parts)

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Call the API below the tenant's path; return the JSON of the answer, None for a refusal."""
        full = f"/v1/tenants/{self.tenant}/{path}"
        route, found = next(
            (route, match)
            for route in self._routes
            if route.method == method and (match := _matches(route.path, full)) is not None
        )
        asked = Request(
            request_id="request",
            caller=CALLER,
            path=found,
            query=None if route.query is None else route.query.model_validate_strings(query),
            body=None if route.body is None else parse_body(route.body, orjson.dumps(body)),
        )
        try:
            response = await route.handler(asked)
        except (NotFound, Conflict):
            return None
        assert response.body is not None
        return response.body if isinstance(response.body, Mapping) else response.body.model_dump(mode="json")

    # -- processes

    async def begin(self) -> None:
        """Make the tenant, let Synapse push, and start the service."""
        await self.database.write(tenants.create, self.tenant, name="Tenant", settings={}, now=self.now())
        self._pusher = asyncio.create_task(self._push())
        await self.renew()

    async def renew(self) -> None:
        """Do away with the processes that have died, and start others in their place."""
        await self.bury()
        while len(self.processes) < self.wanted_processes:
            await self.start()

    async def start(self) -> None:
        """Start one more process."""
        life = Life()
        database = LivingDatabase(self.database, life, claims_to_be_shared=self.is_shared)
        reconciler = Reconciler(
            database,
            self._speak(life),
            self.wakeups,
            ReconcilerSettings(SERVER, BOT, self.rooms),
            now=self.now,
            monotonic=asyncio.get_running_loop().time,
            random_number=self._random.random,
            new_id=self.new_id,
            new_claim=lambda: self.new_id("claim").replace("_", "").ljust(16, "0"),
        )
        intake = build_app(
            IntakeSettings((HS_TOKEN,), SERVER, BOT, self.rooms, ALIASES, NO_LOOKUPS),
            database=database,
            wakeups=self.wakeups,
            storage_failed=lambda: None,
            ephemeral=lambda elements: None,
            suspicion=Suspicion(),
            now=self.now,
            clock=asyncio.get_running_loop().time,
        )
        self.processes.append(Process(life, database, reconciler, intake))
        await reconciler.start()

    async def stop(self, process: Process, timeout: float) -> None:
        """Stop a process in order; a dead one ends at once."""
        self.processes.remove(process)
        await process.reconciler.stop(timeout)

    async def bury(self) -> None:
        """Do away with the processes that have died."""
        for process in [one for one in self.processes if not one.life.alive]:
            await self.stop(process, 0)

    async def end(self) -> None:
        """Kill everything that is left."""
        if self._pusher is not None:
            self._pusher.cancel()
            await asyncio.gather(self._pusher, return_exceptions=True)
        for process in self.processes:
            process.life.end()
        await self.bury()

    def new_id(self, prefix: str) -> str:
        """Return an id of ours."""
        return f"{prefix}_{self.tenant}x{next(self._ids)}"

    # -- Synapse's hand

    async def _push(self) -> None:
        outbox = self.outbox
        while True:
            await outbox.something.wait()
            # What happens together comes together.
            await asyncio.sleep(0.003)
            process = next((one for one in self.processes if one.life.alive), None)
            if outbox.held or process is None:
                await asyncio.sleep(2)
                continue
            some, txn_id = outbox.events[:100], next(self._txn_ids)
            if not some:
                outbox.something.clear()
            elif await self._put_transaction(process, txn_id, some):
                del outbox.events[: len(some)]
            else:
                await asyncio.sleep(2)

    async def _put_transaction(self, process: Process, txn_id: int, events: list[Any]) -> bool:
        body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
        body.feed_data(orjson.dumps({"events": events}))
        body.feed_eof()
        path = f"/_matrix/app/v1/transactions/{txn_id}"
        headers = {"Authorization": f"Bearer {HS_TOKEN}"}
        request = make_mocked_request("PUT", path, headers, app=process.intake, payload=body)
        match = await process.intake.router.resolve(request)
        request._match_info = match
        try:
            answer: Any = await match.handler(request)
        except ApiError:
            return False
        except asyncio.CancelledError:
            if process.life.alive:
                raise
            return False
        return bool(answer.status == 200)


def _matches(pattern: str, path: str) -> dict[str, str] | None:
    expected, given = pattern.split("/"), path.split("/")
    if len(expected) != len(given):
        return None
    pairs = list(zip(expected, given, strict=True))
    if not all(want.startswith("{") or want == part for want, part in pairs):
        return None
    return {want[1:-1]: part for want, part in pairs if want.startswith("{")}

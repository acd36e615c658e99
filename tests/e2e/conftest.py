"""The stage of the end-to-end tests: a real Synapse, the real program, a receiver of webhooks."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientTimeout

from openmeet_appservice.dev.person import Person
from openmeet_appservice.dev.ports import LOOPBACK
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.installation import Answers, initialise

from .gate import Gate
from .homeserver import Homeserver
from .openmeet import OpenMeet
from .receiver import Receiver
from .service import Installation, Ports, Process, choose_ports, new_installation

SERVER_NAME = "hs.test"
BOT = f"@openmeet-bot:{SERVER_NAME}"

_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class World:
    """What all tests of one test process share."""

    ports: Ports
    template: Path
    synapse: Synapse


@dataclass(slots=True)
class Stage:
    """What one test has for itself: databases, processes, a tenant, a receiver.

    The application service is the same in every test, for Synapse reads its registration at start only; a
    new database does not know the rooms of tests before. So names are new in each test.
    """

    world: World
    session: ClientSession
    folder: Path
    receiver: Receiver
    tenant: str
    installations: list[Installation] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)

    @property
    def synapse(self) -> Synapse:
        """The homeserver's process."""
        return self.world.synapse

    def install(self, database_url: str | None = None, **overrides: str) -> Installation:
        """Lay out an installation, by default on SQLite; *overrides* as ``WEBHOOKS__TIMEOUT="5s"``."""
        if database_url is not None:
            overrides["DATABASE__URL"] = database_url
        folder = self.folder / f"installation-{len(self.installations) + 1}"
        made = new_installation(self.world.template, folder, self.world.ports, SERVER_NAME, overrides)
        self.installations.append(made)
        return made

    async def start(self, installation: Installation) -> Process:
        """Start the service."""
        process = installation.process()
        await process.start(self.session)
        return process

    def admin(self, installation: Installation) -> OpenMeet:
        """Return who holds the admin key."""
        key = installation.config().provisioning.admin_key.get_secret_value()
        return OpenMeet(self.session, installation.provisioning_url, key, self.tenant)

    async def openmeet(self, installation: Installation, tenant: str | None = None) -> OpenMeet:
        """Make a tenant with a webhook endpoint, and return who holds its key."""
        admin = self.admin(installation)
        tenant = tenant or self.tenant
        await admin.put(f"/v1/tenants/{tenant}", {"name": tenant})
        made = await admin.call("POST", f"/v1/tenants/{tenant}/keys", {"name": "tests"})
        assert made.status == 201, made
        openmeet = OpenMeet(self.session, admin.url, made.body["api_key"], tenant)
        await openmeet.put("/webhooks/main", {"url": self.receiver.url, "secret": self.receiver.secret})
        return openmeet

    async def gate_to_synapse(self) -> Gate:
        """Put a gate before Synapse, for installations made ``HOMESERVER__URL=gate.url``."""
        return await self._gate(self.world.ports.towards_synapse, self.synapse.url)

    async def gate_to_service(self) -> Gate:
        """Put a gate where Synapse looks for the service, which then has to listen `behind` it."""
        return await self._gate(self.world.ports.appservice, f"http://{self.behind}")

    @property
    def behind(self) -> str:
        """Where the service listens for Synapse when a gate has its place."""
        return f"{LOOPBACK}:{self.world.ports.behind}"

    async def _gate(self, port: int, target: str) -> Gate:
        gate = Gate(port, target)
        await gate.start()
        self.gates.append(gate)
        return gate

    async def person(self) -> Person:
        """Register somebody with an ordinary account."""
        name = f"person{next(_counter)}-{secrets.token_hex(3)}"
        return await Person.register(self.session, self.synapse.url, name, secrets.token_hex(8))

    def homeserver(self, installation: Installation) -> Homeserver:
        """Return the bot's own view of Synapse, past every gate."""
        token = installation.config().appservice.as_token.get_secret_value()
        return Homeserver(self.session, self.synapse.url, token, SERVER_NAME)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One Synapse for all end-to-end tests of this process."""
    folder = tmp_path_factory.mktemp("e2e")
    ports = choose_ports()
    template = folder / "template"
    template.mkdir()
    initialise(
        Answers(
            homeserver_url=f"http://{LOOPBACK}:{ports.synapse}",
            server_name=SERVER_NAME,
            appservice_url=f"http://{LOOPBACK}:{ports.appservice}",
        ),
        template,
    )
    settings = SynapseSettings(
        folder / "synapse", SERVER_NAME, ports.synapse, (template / "registration.yaml",), bot_user_id=BOT
    )
    synapse = Synapse(settings)
    await synapse.start()
    yield World(ports, template, synapse)
    await synapse.stop()


@pytest.fixture
async def stage(world: World, tmp_path: Path) -> AsyncIterator[Stage]:
    """Everything a test needs, and its end: no process and no gate is left."""
    await world.synapse.start()
    tenant = f"t{os.getpid()}x{next(_counter)}"
    receiver = Receiver(world.ports.receiver)
    async with ClientSession(timeout=ClientTimeout(total=90)) as session:
        stage = Stage(world, session, tmp_path, receiver, tenant)
        await receiver.up()
        try:
            yield stage
        finally:
            for installation in stage.installations:
                for process in installation.processes:
                    process.kill()
                # Shown with a test that failed.
                print(installation.logs())
            for gate in stage.gates:
                await gate.stop()
            await receiver.down()

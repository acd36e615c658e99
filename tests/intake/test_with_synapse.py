"""The listener and the watch with a real Synapse: what it kept arrives, and what fails is named rightly."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from ruamel.yaml import YAML
from sqlalchemy import func, select

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, new_txn_id, open_session
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.intake.control_room import ControlRoom
from openmeet_appservice.intake.watch import Watch
from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.tables import held_events, room_events
from openmeet_appservice.web.server import Listener

SERVER = "hs.test"
TOKEN = "the-hs-token"


@dataclass(slots=True)
class Stage:
    """A Synapse that pushes to a port of ours, where something may listen."""

    synapse: Synapse
    homeserver: Homeserver
    database: Database
    port: int
    listener: Listener | None = None
    reports: list[str | None] = field(default_factory=list)

    async def listen(self, app: web.Application) -> None:
        """Serve *app* where Synapse expects us."""
        self.listener = Listener("tests", app, Address("127.0.0.1", self.port), drain_seconds=1)
        await self.listener.start()

    async def stop_listening(self) -> None:
        """Be gone."""
        if self.listener is not None:
            await self.listener.stop()
            self.listener = None

    async def until_synapse_has(self, query: str) -> None:
        """Wait until *query* finds something in Synapse's own database."""
        file = next(self.synapse.settings.folder.rglob("homeserver.db"))
        async with asyncio.timeout(60):
            while True:
                with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                    if connection.execute(query).fetchone():
                        return
                await asyncio.sleep(0.05)

    def watch(self) -> Watch:
        """A watch with real time."""
        control_room = ControlRoom(
            homeserver=self.homeserver,
            database=self.database,
            server_name=SERVER,
            new_nonce=lambda: secrets.token_hex(8),
            now=lambda: time.time_ns() // 1_000_000,
        )
        return Watch(
            homeserver=self.homeserver,
            control_room=control_room,
            database=self.database,
            report=self.reports.append,
            new_txn_id=new_txn_id,
            sleep=asyncio.sleep,
            random_number=lambda: 0.0,
        )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    port = ports.any_free_port()
    registration = {
        "id": "openmeet",
        "url": f"http://127.0.0.1:{port}",
        "as_token": "the-as-token",
        "hs_token": TOKEN,
        "sender_localpart": "openmeet-bot",
        "rate_limited": False,
        "receive_ephemeral": True,
        "de.sorunome.msc2409.push_ephemeral": True,
        "namespaces": {
            "users": [{"regex": rf"@openmeet_.*:{SERVER}$", "exclusive": True}],
            "aliases": [{"regex": rf"#(event|group|_openmeet).*:{SERVER}$", "exclusive": True}],
            "rooms": [],
        },
    }
    file = tmp_path / "registration.yaml"
    YAML(typ="safe").dump(registration, file)
    synapse = Synapse(
        SynapseSettings(
            tmp_path / "synapse",
            SERVER,
            ports.any_free_port(),
            (file,),
            bot_user_id=f"@openmeet-bot:{SERVER}",
        )
    )
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    await database.write(schema.migrate)
    await synapse.start()
    async with open_session("tests") as session:
        api = MatrixApi(synapse.url, ["the-as-token"], session, retries=RetryPolicy(attempts=1))
        stage = Stage(synapse, Homeserver(api, "openmeet"), database, port)
        yield stage
        await stage.stop_listening()
    await synapse.stop()
    await database.close()


async def bodies(database: Database) -> str:
    query = select(room_events.c.body).order_by(room_events.c.position)
    return " ".join(await database.read(lambda c: list(c.execute(query).scalars())))


async def test_what_synapse_kept_arrives(stage: Stage, start_intake: Any, rows: Any) -> None:
    """We are down, somebody talks, Synapse restarts: nothing but our event makes it send again."""
    intake = await start_intake(stage.database)
    room_id = await stage.homeserver.create_room({"preset": "public_chat"})
    await stage.database.write(rows.tenant)
    await stage.database.write(rows.room, "room", room_id)
    # Before Synapse has found us to be down it keeps events in memory, where a restart loses them.
    await stage.until_synapse_has("SELECT 1 FROM application_services_state WHERE state = 'down'")
    content = {"msgtype": "m.text", "body": "kept"}
    event_id = await stage.homeserver.send(room_id, "m.room.message", new_txn_id(), content)
    await stage.until_synapse_has(
        f"SELECT 1 FROM application_services_txns WHERE event_ids LIKE '%{event_id}%'"
    )
    await stage.synapse.stop()
    await stage.synapse.start()
    await stage.listen(intake.app)
    task = asyncio.create_task(stage.watch().run())
    async with asyncio.timeout(60):
        while "kept" not in await bodies(stage.database):
            await asyncio.sleep(0.05)
        while not stage.reports or stage.reports[-1] is not None:
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # The control room's events are passed over once it is known; none is left held, and none logged.
    held = select(func.count()).select_from(held_events)
    assert "net.openmeet.wake" not in await bodies(stage.database)
    assert await stage.database.read(lambda c: c.execute(held).scalar_one()) == 0


async def ping_advice(stage: Stage) -> str | None:
    """Return what a ping that fails advises, None for one that succeeds."""
    try:
        await stage.homeserver.ping(new_txn_id())
    except HomeserverRefused as error:
        return advice(error)
    return None


async def until_advised(stage: Stage, words: str | None) -> None:
    """Ping until the advice holds *words* (None: until it succeeds).

    Synapse first uses up the connections that it keeps to a listener of before.
    """
    async with asyncio.timeout(30):
        while True:
            advised = await ping_advice(stage)
            if advised is None if words is None else words in (advised or ""):
                return
            await asyncio.sleep(0.05)


async def test_each_way_a_ping_can_fail(stage: Stage, start_intake: Any) -> None:
    await until_advised(stage, "cannot connect")
    wrong = await start_intake(stage.database, hs_tokens=["another-token"])
    await stage.listen(wrong.app)
    await until_advised(stage, "refuse Synapse's hs_token")
    await stage.stop_listening()
    await stage.listen(web.Application())
    await until_advised(stage, "but not we")
    await stage.stop_listening()
    right = await start_intake(stage.database)
    await stage.listen(right.app)
    await until_advised(stage, None)


async def test_an_alias_of_ours_that_is_nobodys(stage: Stage, start_intake: Any) -> None:
    intake = await start_intake(stage.database)
    await stage.listen(intake.app)
    assert await stage.homeserver.resolve_alias(f"#event-x-t1:{SERVER}") is None

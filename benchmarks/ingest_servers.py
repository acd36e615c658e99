"""The servers that `benchmarks.ingest` compares, each run in a process of its own.

``python -m benchmarks.ingest_servers KIND FOLDER_OR_URL`` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from aiohttp import web
from mautrix.appservice import AppService, ASStateStore
from mautrix.client.state_store import MemoryStateStore
from mautrix.types import Event

from benchmarks.provisioned import Provisioned
from benchmarks.pushing import BOT, HS_TOKEN, ROOMS, SERVER
from openmeet_appservice.domain.kinds import DEFAULT_CHAT_STATUSES, Access
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.intake.app import IntakeSettings, build_app
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.store import schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.wakeups import PostgreSQLWakeups, Wakeups

LARGE = 64 * 1024 * 1024


async def serve_ours(url: str) -> int:
    """The homeserver's listener as `run` has it, over a database with one tenant and its rooms."""
    database = open_database(url)
    await database.write(schema.migrate)
    await database.write(Provisioned(ROOMS).into)
    wakeups = PostgreSQLWakeups(url) if url.startswith("postgresql") else Wakeups()
    await wakeups.start()
    room_settings = RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=False,
        version=None,
        federate=False,
        access=Access.MEMBERS,
        power_levels=MappingProxyType({}),
        chat_statuses=DEFAULT_CHAT_STATUSES,
    )
    app = build_app(
        IntakeSettings(
            hs_tokens=[HS_TOKEN],
            server_name=SERVER,
            bot=BOT,
            rooms=room_settings,
            aliases=Template("{kind}-{slug}-{tenant}", SERVER),
            lookups=LookupSettings(url=None, alias_timeout=3.0, timeout=15.0, resync_interval=21600.0),
        ),
        database=database,
        wakeups=wakeups,
        storage_failed=lambda: None,
        ephemeral=lambda _: None,
        suspicion=Suspicion(),
        now=lambda: time.time_ns() // 1_000_000,
    )
    return await _listen(app)


async def serve_mautrix(folder: str) -> int:
    """mautrix's own `AppService`, with a handler that does nothing, and with room for large bodies."""

    class Store(ASStateStore, MemoryStateStore):
        def __init__(self) -> None:
            ASStateStore.__init__(self)
            MemoryStateStore.__init__(self)

    service = AppService(
        server="http://127.0.0.1:1",
        domain=SERVER,
        as_token="as",
        hs_token=HS_TOKEN,
        bot_localpart="openmeet-bot",
        id="bench",
        state_store=Store(),
        aiohttp_params={"client_max_size": LARGE},
    )

    async def nothing(event: Event) -> None:
        pass

    service.matrix_event_handler(nothing)
    await service.start("127.0.0.1", 0)
    assert service.runner is not None
    return int(service.runner.addresses[0][1])


async def serve_one_commit(folder: str) -> int:
    """One SQLite commit for each transaction, made as durable as ours, in a thread as ours; no more."""
    connection = sqlite3.connect(
        Path(folder) / "one-commit.db", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB)")
    threads = ThreadPoolExecutor(1)

    def commit(body: bytes) -> None:
        connection.execute("INSERT INTO bodies (body) VALUES (?)", (body,))

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.get_running_loop().run_in_executor(threads, commit, body)
        return web.Response(body=b"{}", content_type="application/json")

    return await _listen(_app(take))


async def serve_one_commit_inline(folder: str) -> int:
    """The same without the thread: the event loop waits for the disk, which no service can afford."""
    connection = sqlite3.connect(Path(folder) / "inline.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB)")

    async def take(request: web.Request) -> web.Response:
        connection.execute("INSERT INTO bodies (body) VALUES (?)", (await request.read(),))
        return web.Response(body=b"{}", content_type="application/json")

    return await _listen(_app(take))


async def serve_bare(folder: str) -> int:
    """A handler that reads the body and forgets it."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"{}", content_type="application/json")

    return await _listen(_app(take))


def _app(take: Callable[[web.Request], Awaitable[web.Response]]) -> web.Application:
    app = web.Application(client_max_size=LARGE)
    app.router.add_put("/_matrix/app/v1/transactions/{txn_id}", take)
    return app


async def _listen(app: web.Application) -> int:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    # As `run` does.
    gc.collect()
    gc.freeze()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


KINDS: dict[str, Callable[[str], Awaitable[int]]] = {
    "ours": serve_ours,
    "mautrix": serve_mautrix,
    "one-commit": serve_one_commit,
    "one-commit-inline": serve_one_commit_inline,
    "bare": serve_bare,
}


async def main(kind: str, where: str) -> None:
    """Serve, and print the port."""
    print(await KINDS[kind](where), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""The composition root: the one place that builds the parts, joins them, starts and stops them.

What each part is told, `wiring` derives from the configuration.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from aiohttp import ClientSession, web

from openmeet_appservice import __version__, errors, metrics
from openmeet_appservice.chat.sending import Sending
from openmeet_appservice.config import Config
from openmeet_appservice.delivery import housekeeping, truncation
from openmeet_appservice.delivery.ephemeral import Ephemeral
from openmeet_appservice.delivery.notices import NoticeWorker
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.worker import DeliveryWorker
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.homeserver import Homeserver, MatrixApi, new_txn_id, open_session
from openmeet_appservice.intake.app import IntakeSettings
from openmeet_appservice.intake.app import build_app as build_intake
from openmeet_appservice.intake.control_room import ControlRoom
from openmeet_appservice.intake.housekeeping import keep_tidy
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.intake.watch import Watch
from openmeet_appservice.ops.gauges import read_gauges
from openmeet_appservice.ops.health import Health
from openmeet_appservice.ops.listener import build_ops_app
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.provisioning.idempotency import StoredIdempotency
from openmeet_appservice.provisioning.keys import key_lookup
from openmeet_appservice.provisioning.lookup import LONGEST, MAX_ANSWER
from openmeet_appservice.provisioning.lookups import Lookups
from openmeet_appservice.reconciler.service import Reconciler
from openmeet_appservice.store import (
    lanes,
    messages,
    notices,
    pictures,
    repair,
    resealing,
)
from openmeet_appservice.store.database import SQLiteDatabase
from openmeet_appservice.store.filelock import FileLock
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.web import auth
from openmeet_appservice.web.app import build_app as build_api
from openmeet_appservice.web.server import Listener
from openmeet_appservice.wiring import (
    USER_AGENT,
    alias_template,
    api_routes,
    bot_user_id,
    build_admin,
    build_lookup,
    build_picture_worker,
    build_reconciler,
    build_repair,
    database_answers,
    lookup_settings,
    now,
    open_database,
    open_wakeups,
    outbound_guard,
    picture_client,
    prepare_database,
    provisioning_parts,
    room_settings,
)

DRAIN = 10.0
"""Seconds that requests and webhooks under way are given when the service stops."""

LEASE_MARGIN = 15_000
"""Milliseconds for which a lane is held beyond the time that a webhook may take."""

FORGET_EVERY = 3600.0
"""Seconds between rounds that drop what is no longer needed."""

MESSAGES_KEPT = 7 * 24 * 3600 * 1000
"""Milliseconds for which it is remembered what was sent through the API, so that its echo is known."""

NOTICES_KEPT = 30 * 24 * 3600 * 1000
"""Milliseconds for which an operational webhook waits for an endpoint that is paused, disabled or dead."""

DATABASE_WAIT = 2.0
"""Seconds between attempts to reach the database at start."""

PICTURES_KEPT = 30 * 24 * 3600 * 1000
"""Milliseconds for which it is remembered what a picture was uploaded as that nobody uses any more."""

GAUGES_EVERY = 15.0
"""Seconds between readings of what the gauges show."""

log = logging.getLogger(__name__)


class Service:
    """The whole service in one process, from `start` to `stop`.

    `start` returns once everything runs. What is away then, the homeserver or OpenMeet, is waited for
    in the background and told by ``/ready``; so is PostgreSQL before anything else begins.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._database = open_database(config)
        self._wakeups = open_wakeups(config)
        self._health = Health(partial(database_answers, self._database))
        self._parts = AsyncExitStack()
        self._failed = asyncio.Event()
        self._suspicion = Suspicion()
        self._provisioning: Listener | None = None

    @property
    def provisioning_url(self) -> str:
        """Where the provisioning API listens."""
        assert self._provisioning is not None, "the service was started"
        return self._provisioning.url

    async def failed(self) -> None:
        """Wait until a part has died that should not have; the service is then to be stopped."""
        await self._failed.wait()

    async def start(self) -> None:
        """Start every part.

        Raises
        ------
        UsageError
            An address to listen on cannot be used.
        StoreError
            The database is not one this release and configuration may use.
        """
        parts, config = self._parts, self._config
        parts.push_async_callback(self._database.close)
        if isinstance(self._database, SQLiteDatabase):
            lock = FileLock(self._database.path)
            lock.take()
            parts.callback(lock.release)
        metrics.record_build(__version__)
        ops = build_ops_app(self._health, __version__, metrics.REGISTRY)
        await self._listen("operations", ops, config.ops.listen, drain=1.0)
        await self._wait_for_database()
        await self._reseal()
        await self._wakeups.start()
        parts.push_async_callback(self._wakeups.stop)
        session = open_session(USER_AGENT)
        parts.push_async_callback(session.close)
        api = MatrixApi(
            config.homeserver.url,
            config.appservice.as_tokens,
            session,
            in_trouble=lambda: self._suspicion.suspect("homeserver"),
        )
        homeserver = Homeserver(api, config.appservice.id)
        reconciler = await self._start_reconciler(homeserver, session)
        await self._start_pictures(homeserver)
        client = await self._start_delivery()
        await self._start_provisioning(homeserver, client, reconciler)
        await self._start_lookups(client)
        watch = await self._start_intake(homeserver, client)
        await self._start_repair(session, watch)
        # What was loaded until now stays for good: the garbage collector need not walk through it again.
        gc.collect()
        gc.freeze()
        self._health.ready()

    async def stop(self) -> None:
        """Take nothing new, let what is under way end, stop every part; fine after a failed start."""
        self._health.draining()
        await self._parts.aclose()

    async def _start_reconciler(self, homeserver: Homeserver, session: ClientSession) -> Reconciler:
        admin = build_admin(self._config, session)
        reconciler = build_reconciler(self._config, self._database, homeserver, self._wakeups, admin)
        await reconciler.start()
        self._parts.push_async_callback(reconciler.stop, DRAIN)
        self._run("gauges", self._keep_gauges(reconciler))
        return reconciler

    async def _start_pictures(self, homeserver: Homeserver) -> None:
        client = await self._parts.enter_async_context(picture_client(self._config))
        worker = build_picture_worker(self._database, homeserver, client, self._wakeups)
        self._run("pictures", worker.run())

    async def _start_delivery(self) -> GuardedClient:
        webhooks = self._config.webhooks
        client = GuardedClient(
            outbound_guard(self._config),
            total_seconds=webhooks.timeout.total_seconds(),
            user_agent=USER_AGENT,
        )
        await self._parts.enter_async_context(client)
        settings = DeliverySettings(
            bot=bot_user_id(self._config),
            retry=tuple(wait.total_seconds() for wait in webhooks.retry),
            skip_exhausted=webhooks.on_exhausted == "skip",
            max_batch=webhooks.max_batch,
            max_batch_bytes=webhooks.max_batch_bytes,
            lease=int(webhooks.timeout.total_seconds() * 1000) + LEASE_MARGIN,
        )
        if self._database.dialect == "sqlite":
            # Nobody else can be at work, so what a killed process held is free.
            await self._database.write(lanes.release_all, now=now())
            await self._database.write(notices.release_all, now=now())
        workers = [
            kind(
                self._database,
                client,
                SecretBox(self._config.security.keys),
                self._wakeups,
                settings,
                now=now,
                random=random.random,
                new_id=new_id,
            )
            for kind in (DeliveryWorker, NoticeWorker)
        ]
        for worker in workers:
            worker.start()

        async def stop() -> None:
            await asyncio.gather(*(worker.stop(DRAIN) for worker in workers))

        self._parts.push_async_callback(stop)
        keep_events = int(webhooks.retention.total_seconds() * 1000)
        self._run(
            "delivery housekeeping",
            housekeeping.keep_tidy(self._database, keep_events=keep_events, now=now, sleep=asyncio.sleep),
        )
        if webhooks.max_backlog is not None:
            bounded = truncation.keep_bounded(
                self._database, webhooks.max_backlog, now=now, new_id=new_id, sleep=asyncio.sleep
            )
            self._run("the bound of what waits", bounded)
        return client

    async def _start_provisioning(
        self, homeserver: Homeserver, client: GuardedClient, reconciler: Reconciler
    ) -> None:
        config = self._config
        idempotency = StoredIdempotency(self._database, now)
        sending = Sending(self._database, homeserver, asyncio.sleep, now, reconciler.admit)
        app = build_api(
            api_routes(
                provisioning_parts(config, self._database, self._wakeups, client.post, reconciler.explain),
                sending,
                room_settings(config),
            ),
            key_lookup=key_lookup(
                self._database, [auth.digest(config.provisioning.admin_key.get_secret_value())]
            ),
            idempotency=idempotency,
        )
        self._provisioning = await self._listen("the provisioning API", app, config.provisioning.listen)
        self._run("forgetting", self._forget(idempotency))

    async def _start_lookups(self, webhooks: GuardedClient) -> None:
        client = GuardedClient(outbound_guard(self._config), total_seconds=LONGEST, user_agent=USER_AGENT)
        await self._parts.enter_async_context(client)
        parts = provisioning_parts(self._config, self._database, self._wakeups, webhooks.post)
        lookup = build_lookup(self._config, partial(client.post, most=MAX_ANSWER + 1))
        self._run("look-ups", Lookups(parts, lookup, room_settings(self._config)).run())

    async def _start_intake(self, homeserver: Homeserver, client: GuardedClient) -> Watch:
        config = self._config
        ephemeral = Ephemeral(
            self._database,
            client,
            SecretBox(config.security.keys),
            bot=bot_user_id(config),
            now=now,
            new_id=new_id,
        )
        ephemeral.start()
        self._parts.push_async_callback(ephemeral.stop)
        control_room = ControlRoom(
            homeserver, self._database, config.homeserver.server_name, lambda: new_id("nonce"), now
        )
        watch = Watch(
            homeserver,
            control_room,
            self._database,
            self._report_synapse,
            new_txn_id,
            asyncio.sleep,
            random.random,
        )
        settings = IntakeSettings(
            hs_tokens=config.appservice.hs_tokens,
            server_name=config.homeserver.server_name,
            bot=bot_user_id(config),
            rooms=room_settings(config),
            aliases=alias_template(config),
            lookups=lookup_settings(config),
        )
        app = build_intake(
            settings,
            database=self._database,
            wakeups=self._wakeups,
            storage_failed=watch.rouse,
            ephemeral=ephemeral.take,
            suspicion=self._suspicion,
            now=now,
        )
        await self._listen("Synapse", app, config.appservice.listen)
        self._run("watch", watch.run())
        self._run("housekeeping", keep_tidy(self._database, now=now, sleep=asyncio.sleep))
        return watch

    async def _start_repair(self, session: ClientSession, watch: Watch) -> None:
        if self._database.dialect == "sqlite":
            # Nobody else can be at work, so what a killed process held is free.
            await self._database.write(repair.release_all, now=now())
        repairs = build_repair(self._config, self._database, session, self._wakeups, self._suspicion, watch)
        self._run("gap repair", repairs.run())

    async def _listen(
        self, name: str, app: web.Application, address: Address, *, drain: float = DRAIN
    ) -> Listener:
        listener = Listener(name, app, address, drain_seconds=drain)
        await listener.start()
        self._parts.push_async_callback(listener.stop)
        return listener

    def _run(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        """Run *part* in the background until the service stops. It never ends by itself."""
        task = asyncio.create_task(part, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                log.critical("%s has died, so the service stops", name, exc_info=task.exception())
                self._failed.set()

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        task.add_done_callback(ended)
        self._parts.push_async_callback(stop)

    async def _wait_for_database(self) -> None:
        migrate = self._config.database.auto_migrate
        while True:
            try:
                await prepare_database(self._database, self._config, migrate=migrate)
                return
            except errors.DatabaseUnavailable as error:
                # A file that cannot be opened does not mend itself; a server comes back.
                if self._database.dialect == "sqlite":
                    raise
                log.warning("waiting for the database: %s", error)
                await asyncio.sleep(DATABASE_WAIT)

    async def _reseal(self) -> None:
        try:
            await resealing.reseal(self._database, SecretBox(self._config.security.keys))
        except errors.DatabaseUnavailable as error:
            # Nothing needs it before an old key is taken away, and `doctor` tells until then.
            log.warning("secrets under an older key stay so until the next start: %s", error)

    async def _forget(self, idempotency: StoredIdempotency) -> None:
        while True:
            try:
                await idempotency.forget_old()
                await self._database.write(messages.forget, before=now() - MESSAGES_KEPT)
                await self._database.write(pictures.forget, before=now() - PICTURES_KEPT)
                await self._expire_notices()
            except errors.DatabaseUnavailable as error:
                log.warning("what is no longer needed could not be dropped: %s", error)
            await asyncio.sleep(FORGET_EVERY)

    async def _expire_notices(self) -> None:
        while expired := await self._database.write(notices.expire, before=now() - NOTICES_KEPT):
            metrics.NOTICES_DROPPED.labels("expired").inc(expired)
            log.error("dropped %d operational webhooks that no endpoint took in time", expired)

    def _report_synapse(self, problem: str | None) -> None:
        if problem is None:
            self._health.recover("synapse")
        else:
            self._health.degrade("synapse", problem)

    async def _keep_gauges(self, reconciler: Reconciler) -> None:
        while True:
            try:
                await read_gauges(self._database, now)
            except errors.DatabaseUnavailable as error:
                log.debug("the gauges wait for the database: %s", error)
            if reconciler.trouble is None:
                self._health.recover("homeserver")
            else:
                self._health.degrade("homeserver", reconciler.trouble)
            await asyncio.sleep(GAUGES_EVERY)


async def run(config: Config) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    served = Service(config)
    starting = asyncio.create_task(served.start())
    waits = {asyncio.create_task(stop.wait()), asyncio.create_task(served.failed())}
    try:
        await asyncio.wait({starting, *waits}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return 0 if stop.is_set() else 1
    finally:
        for task in (starting, *waits):
            task.cancel()
        await asyncio.gather(starting, *waits, return_exceptions=True)
        log.info("stopping")
        await served.stop()

"""From the configuration to what each part is told: the half of the composition root that starts nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from aiohttp import ClientSession
from sqlalchemy import select
from sqlalchemy.engine import make_url

from openmeet_appservice import __version__
from openmeet_appservice.chat.routes import MAX_CONTENT_BYTES, MessageRoutes
from openmeet_appservice.chat.sending import Sending
from openmeet_appservice.config import Config
from openmeet_appservice.delivery.catalogue import WEBHOOKS
from openmeet_appservice.domain.drift import drift_policy
from openmeet_appservice.domain.names import Template, full_user_id
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.homeserver import AdminCalls, Homeserver, MatrixApi, RetryPolicy, new_txn_id
from openmeet_appservice.intake.gap_repair import GapRepair, RepairSettings
from openmeet_appservice.intake.room_check import RoomCheck
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.intake.watch import Watch
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.provisioning.batch import MAX_ITEMS
from openmeet_appservice.provisioning.explaining import Explaining
from openmeet_appservice.provisioning.lookup import Asking, Lookup
from openmeet_appservice.provisioning.parts import Explain, Parts, Post, explains_nothing
from openmeet_appservice.provisioning.routes import routes as provisioning_routes
from openmeet_appservice.provisioning.writes import MAX_WAIT
from openmeet_appservice.reconciler.full_check import FullCheckSettings
from openmeet_appservice.reconciler.picture_worker import PictureWorker
from openmeet_appservice.reconciler.service import Reconciler
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.database import open_database as open_database_url
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import PostgreSQLWakeups, Wakeups
from openmeet_appservice.web.app import MAX_BODY
from openmeet_appservice.web.models import MAX_LIMIT
from openmeet_appservice.web.openapi import About, build_document
from openmeet_appservice.web.routes import Route
from openmeet_appservice.web.standard import with_standard_routes

USER_AGENT = f"openmeet-appservice/{__version__}"

PICTURE_SECONDS = 20.0
"""Seconds within which a picture has to come."""

REPAIR_PART = 0.75
"""What part of `reconciler.max_rate` gap repair's round has; the rest is the full check's."""

FEATURES = (
    "batch",
    "changes",
    "direct",
    "events",
    "groups",
    "members",
    "messages",
    "recreate",
    "rename",
    "resync",
    "tenant_settings",
    "users",
    "webhooks",
)
"""What ``GET /v1/capabilities`` names."""

ABOUT = About(
    title="openmeet-appservice provisioning API",
    description=(
        "OpenMeet says here how its tenants, users, groups and events should be on Matrix; the service makes "
        "the homeserver agree and keeps it so."
    ),
    version=__version__,
)


def now() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def open_database(config: Config) -> Database:
    """Return the configured database, not looked at yet."""
    return open_database_url(config.database.url.get_secret_value())


def open_wakeups(config: Config) -> Wakeups:
    """Return the wake-ups that fit the configured database."""
    url = make_url(config.database.url.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return Wakeups()
    return PostgreSQLWakeups(url.set(drivername="postgresql").render_as_string(hide_password=False))


def bot_user_id(config: Config) -> str:
    """Return the bot's full user id."""
    return full_user_id(config.appservice.bot_localpart, config.homeserver.server_name)


def room_settings(config: Config) -> RoomSettings:
    """Return what the configuration says of the rooms of tenants that chose nothing themselves."""
    rooms = config.rooms
    return RoomSettings(
        alias=rooms.alias,
        private_alias=rooms.private_alias,
        version=rooms.version,
        federate=rooms.federate,
        access=rooms.access,
        power_levels=MappingProxyType(rooms.power_levels.model_dump()),
        chat_statuses=frozenset(rooms.chat_statuses),
        topic=rooms.topic,
        encrypted=rooms.encrypted,
        join=rooms.join,
        join_auto_limit=rooms.join_auto_limit,
        drift=drift_policy(rooms.drift.model_dump()),
    )


def puppet_template(config: Config) -> Template:
    """Return the template of puppets' user ids."""
    return Template(config.users.puppet_localpart, config.homeserver.server_name)


def alias_template(config: Config) -> Template:
    """Return the template of public aliases."""
    return Template(config.rooms.alias, config.homeserver.server_name)


def outbound_guard(config: Config) -> Guard:
    """Return what judges the URLs and addresses that tenants choose."""
    return Guard(config.webhooks.allowed_networks, config.webhooks.allowed_hosts)


def lookup_settings(config: Config) -> LookupSettings:
    """Return how OpenMeet is asked about tenants that chose nothing themselves."""
    lookup = config.lookup
    return LookupSettings(
        url=lookup.url,
        alias_timeout=lookup.alias_timeout.total_seconds(),
        timeout=lookup.timeout.total_seconds(),
        resync_interval=lookup.resync_interval.total_seconds(),
    )


def lookup_secrets(config: Config) -> tuple[str, ...]:
    """Return what signs the questions to OpenMeet, the newest first."""
    return tuple(secret.get_secret_value() for secret in config.lookup.secrets)


def build_lookup(config: Config, post: Asking) -> Lookup:
    """Return what asks OpenMeet by way of *post*. How long a question may take, it sees to by itself."""
    return Lookup(
        post,
        lookup_settings(config),
        lookup_secrets(config),
        new_id,
        now,
        time.monotonic,
    )


def build_reconciler(
    config: Config,
    database: Database,
    homeserver: Homeserver,
    wakeups: Wakeups,
    admin: AdminCalls | None = None,
) -> Reconciler:
    """Return the reconciler, not started."""
    settings = ReconcilerSettings(
        server_name=config.homeserver.server_name,
        bot_user_id=bot_user_id(config),
        rooms=room_settings(config),
        direct_invitations=config.users.direct_invitations,
        full_check=full_check_settings(config),
    )
    return Reconciler(database, homeserver, wakeups, settings, admin=admin)


def build_admin(config: Config, session: ClientSession) -> AdminCalls | None:
    """Return the homeserver as its admin has it, None where no admin's token is configured."""
    token = config.homeserver.admin_token
    if token is None:
        return None
    return AdminCalls(MatrixApi(config.homeserver.url, [token.get_secret_value()], session))


def picture_client(config: Config) -> GuardedClient:
    """Return what asks for pictures, not opened."""
    return GuardedClient(
        outbound_guard(config), total_seconds=PICTURE_SECONDS, user_agent=USER_AGENT, connections=8
    )


def build_picture_worker(
    database: Database, homeserver: Homeserver, client: GuardedClient, wakeups: Wakeups
) -> PictureWorker:
    """Return what fetches pictures, not started."""
    return PictureWorker(
        database,
        homeserver,
        client,
        wakeups,
        now=now,
        sleep=asyncio.sleep,
        random_number=random.random,
    )


def repair_settings(config: Config) -> RepairSettings:
    """Return how gap repair goes about it; its slow round has its part of what Synapse may be asked."""
    return RepairSettings(
        max_age=int(config.repair.max_age.total_seconds() * 1000),
        slow=config.reconciler.max_rate * REPAIR_PART,
    )


def full_check_settings(config: Config) -> FullCheckSettings | None:
    """Return how every room is compared once in a while; None where that is off."""
    chosen = config.reconciler
    if chosen.full_check is None:
        return None
    return FullCheckSettings(
        period=int(chosen.full_check.total_seconds() * 1000), rate=chosen.max_rate * (1 - REPAIR_PART)
    )


def build_repair(
    config: Config,
    database: Database,
    session: ClientSession,
    wakeups: Wakeups,
    suspicion: Suspicion,
    watch: Watch,
) -> GapRepair:
    """Return gap repair, not started.

    It has a client of its own: how its requests fail it judges by itself, and it does not insist.
    """
    api = MatrixApi(
        config.homeserver.url,
        config.appservice.as_tokens,
        session,
        retries=RetryPolicy(attempts=2, budget=10.0),
    )
    homeserver = Homeserver(api, config.appservice.id)

    def added() -> None:
        wakeups.wake("deliver")
        wakeups.wake("reconcile")

    check = RoomCheck(homeserver, database, bot_user_id(config), added=added, now=now)
    return GapRepair(
        homeserver,
        database,
        check,
        suspicion,
        repair_settings(config),
        has_announced=lambda: watch.has_announced,
        now=now,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
    )


def provisioning_parts(
    config: Config,
    database: Database,
    wakeups: Wakeups,
    post: Post,
    explain: Explain = explains_nothing,
) -> Parts:
    """Return what the provisioning API works with."""
    return Parts(
        database=database,
        wakeups=wakeups,
        now=now,
        clock=time.monotonic,
        new_id=new_id,
        puppets=puppet_template(config),
        aliases=alias_template(config),
        bot=bot_user_id(config),
        secrets=SecretBox(config.security.keys),
        check_url=outbound_guard(config).check_url,
        post=post,
        can_purge=config.homeserver.admin_token is not None,
        lookups=lookup_settings(config),
        lookup_secrets=lookup_secrets(config),
        explain=explain,
    )


def api_routes(parts: Parts, sending: Sending, rooms: RoomSettings) -> Sequence[Route]:
    """Return every route of the provisioning API.

    Parameters
    ----------
    parts, sending
        What the handlers work with.
    rooms
        The settings of the rooms of tenants that chose nothing themselves.
    """
    explained = Explaining(parts.database, sending.homeserver, rooms, parts.bot)
    spoken = MessageRoutes(
        sending,
        rooms,
        new_transaction_id=new_txn_id,
        new_message_id=lambda: new_id("msg"),
    )
    return with_standard_routes(
        [*provisioning_routes(parts), *explained.routes(), *spoken.routes()],
        ABOUT,
        features=FEATURES,
        limits={
            "batch_items": MAX_ITEMS,
            "body_bytes": MAX_BODY,
            "page_items": MAX_LIMIT,
            "wait_seconds": MAX_WAIT,
            "message_bytes": MAX_CONTENT_BYTES,
        },
        webhooks=WEBHOOKS,
    )


def api_document() -> dict[str, Any]:
    """Return the OpenAPI document of the provisioning API, which depends on no configuration."""
    # Only what the routes say of themselves is read; their handlers, which need all this, are never called.
    unused: Any = None
    parts = Parts(
        database=unused,
        wakeups=unused,
        now=now,
        clock=time.monotonic,
        new_id=new_id,
        puppets=unused,
        aliases=unused,
        bot="",
        secrets=unused,
        check_url=str,
        post=unused,
        explain=unused,
    )
    sending = Sending(database=unused, homeserver=unused, sleep=asyncio.sleep, now=now, admit=unused)
    return build_document(api_routes(parts, sending, unused), ABOUT, webhooks=WEBHOOKS)


async def prepare_database(database: Database, config: Config, *, migrate: bool) -> None:
    """Bring the schema up to date, or check that it is, and that the database is this installation's.

    Raises
    ------
    StoreError
        It is away, another's, or has a schema that does not fit.
    """
    if migrate:
        await database.write(schema.migrate)
    else:
        await database.read(schema.check)
    await database.write(schema.claim_for, config.homeserver.server_name, config.appservice.id)


async def database_answers(database: Database) -> bool:
    """Ask the database something; True, or a `StoreError` is raised where it is away.

    It is asked while the service starts as well, when our tables may still have to be made.
    """
    return bool(await database.read(lambda connection: connection.execute(select(1)).scalar_one()))

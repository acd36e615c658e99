"""The order of the checks, and what is left out when something they need is missing."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientSession
from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice import wiring
from openmeet_appservice.config import Config
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import HomeserverError, StoreError
from openmeet_appservice.homeserver import (
    AdminCalls,
    Homeserver,
    MatrixApi,
    RetryPolicy,
    TimeLimits,
    open_session,
)
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.ops.doctor import identity, reach, rooms, standing, stored, synapse
from openmeet_appservice.ops.doctor.encryption import check_encryption
from openmeet_appservice.ops.doctor.files import check_files
from openmeet_appservice.ops.doctor.finding import Finding, problem, skipped, warning
from openmeet_appservice.ops.doctor.lookups import LookupTest
from openmeet_appservice.ops.doctor.storage import check_database
from openmeet_appservice.ops.doctor.webhooks import Poster, WebhookTest
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.store import full_check, repair, resealing, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.secretbox import SecretBox

# An admin waits for the answer, so one failure more tells as much as four.
_LIMITS = TimeLimits(total=20.0)
_RETRIES = RetryPolicy(attempts=2, budget=20.0)

SOME_TENANTS = 500
"""Of how many tenants the look-up endpoints are asked."""

_AS_US = ("server name", "ping", "room version")
_NAMES = ("user namespace", "alias namespace")
_IN_ROOMS = ("room directory", "encryption")
_CONTROL_ROOM = "the bot's control room, which `openmeet-appservice run` makes once Synapse reaches it"
_STORED = (
    "encryption keys",
    "webhooks",
    "look-ups",
    "delivery",
    "reconciler",
    "full check",
    "gap repair",
    "held events",
    "quarantine",
)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the checks work with.

    Parameters
    ----------
    database
        Not looked at yet.
    session
        For the homeserver and for our own service.
    client
        For webhooks.
    now
        The clock.
    new_name
        Makes fresh random lower-case letters and digits, so that nothing can have that name.
    """

    database: Database
    session: ClientSession
    client: Poster
    now: Now
    new_name: Callable[[], str]


async def run_doctor(config: Config, config_path: Path) -> list[Finding]:
    """Open what the checks need, make them all, and return what was found."""
    database = wiring.open_database(config)
    guarded = GuardedClient(
        wiring.outbound_guard(config),
        total_seconds=config.webhooks.timeout.total_seconds(),
        user_agent=wiring.USER_AGENT,
    )
    try:
        async with open_session(wiring.USER_AGENT) as session, guarded as client:
            tools = Tools(database, session, client, wiring.now, lambda: secrets.token_hex(16))
            return await examine(config, config_path, tools)
    finally:
        await database.close()


async def examine(config: Config, config_path: Path, tools: Tools) -> list[Finding]:
    """Make all checks that can be made, and return what was found.

    Parameters
    ----------
    config
        What is checked.
    config_path
        Where it was read from; its mode is looked at, and the registration beside it.
    """
    findings = check_files(config, config_path)
    about_database, has_database = await check_database(config, tools.database)
    findings += about_database
    findings += await _check_synapse(config, tools, has_database=has_database)
    if has_database:
        findings += await _check_work(config, tools)
    else:
        findings.append(skipped(_STORED, "the database"))
    return findings


async def _check_synapse(config: Config, tools: Tools, *, has_database: bool) -> list[Finding]:
    findings, is_there = await synapse.check_reachable(config, tools.session, tools.now)
    service, runs = await reach.check_service(config, tools.session)
    findings += service
    if not is_there:
        return [*findings, skipped(("Synapse", "as_token", *_AS_US, *_NAMES, *_IN_ROOMS), "the homeserver")]
    clients = _clients(config, tools)
    anyone = next(iter(clients.values()))
    findings.append(await synapse.check_release(anyone))
    findings += await _tried("authentication", synapse.check_login(anyone))
    token = config.homeserver.admin_token
    if token is not None:
        api = _client(config, tools, token.get_secret_value())
        findings += await _tried("admin_token", identity.check_admin(AdminCalls(api), tools.new_name))
    homeservers = {key: Homeserver(api, config.appservice.id) for key, api in clients.items()}
    about_tokens, homeserver, bot = await identity.check_tokens(config, homeservers)
    findings += about_tokens
    if homeserver is None:
        names = (*_AS_US, *_NAMES, *_IN_ROOMS)
        return [*findings, skipped(names, "an as_token that Synapse accepts")]
    ping = reach.check_ping(homeserver, tools.new_name, runs=runs)
    findings += await _tried("ping", ping)
    findings += await _tried("room version", synapse.check_room_version(config, homeserver))
    findings += await _check_names(config, tools, homeserver, anyone, bot)
    if not has_database:
        return [*findings, skipped(_IN_ROOMS, "the database")]
    return [*findings, *await _check_rooms(config, tools.database, homeserver, bot)]


async def _check_names(
    config: Config, tools: Tools, homeserver: Homeserver, anyone: MatrixApi, bot: str
) -> list[Finding]:
    if not bot.endswith(f":{config.homeserver.server_name}"):
        return [skipped(_NAMES, "the right homeserver.server_name")]
    new_name = tools.new_name
    users = identity.check_user_namespace(wiring.puppet_template(config), homeserver, anyone, new_name)
    findings = await _tried("user namespace", users)
    aliases = identity.check_alias_namespace(wiring.alias_template(config), homeserver, new_name)
    return findings + await _tried("alias namespace", aliases)


async def _check_rooms(config: Config, database: Database, homeserver: Homeserver, bot: str) -> list[Finding]:
    defaults = wiring.room_settings(config)
    try:
        control_room = await database.read(stored.control_room)
        newest = await database.read(stored.newest_plain_rooms, rooms.NEWEST, defaults=defaults)
    except (StoreError, SQLAlchemyError) as error:
        return [_lost(error)]
    if control_room is None:
        return [skipped(_IN_ROOMS, _CONTROL_ROOM)]
    return [
        *await _tried("room directory", rooms.check_directory(homeserver, control_room, bot)),
        *await _tried("encryption", rooms.check_encryption(homeserver, newest, control_room)),
    ]


async def _check_work(config: Config, tools: Tools) -> list[Finding]:
    database, box = tools.database, SecretBox(config.security.keys)
    try:
        targets = await database.read(stored.targets)
        backlog = await database.read(stored.backlog)
        failing = await database.read(stored.failing)
        compared = await database.read(full_check.standing)
        repaired = await database.read(repair.standing)
        aside = await database.read(stored.aside)
        sealed = await resealing.standing(database, box)
        some_tenants = await database.read(tenants.list_page, after=None, limit=SOME_TENANTS)
    except (StoreError, SQLAlchemyError) as error:
        return [_lost(error)]
    return [
        *check_encryption(sealed, len(config.security.keys)),
        *await WebhookTest(tools.client, box, tools.now, tools.new_name).check(targets),
        *await LookupTest(wiring.build_lookup(config, tools.client.post), tools.new_name).check(some_tenants),
        *standing.check_endpoints(targets),
        standing.check_delivery(backlog, targets, tools.now()),
        standing.check_reconciler(failing),
        standing.check_full_check(compared, wiring.full_check_settings(config), tools.now()),
        standing.check_repair(repaired, wiring.repair_settings(config), tools.now()),
        *standing.check_aside(aside),
    ]


def _clients(config: Config, tools: Tools) -> dict[str, MatrixApi]:
    """Return a client for each as_token by its key, so that they can be told apart."""
    keys = ("as_token", "as_token_next")
    return {
        key: _client(config, tools, token)
        for key, token in zip(keys, config.appservice.as_tokens, strict=False)
    }


def _client(config: Config, tools: Tools, token: str) -> MatrixApi:
    return MatrixApi(config.homeserver.url, [token], tools.session, limits=_LIMITS, retries=_RETRIES)


async def _tried(name: str, check: Awaitable[Finding | Sequence[Finding]]) -> list[Finding]:
    """Return what *check* finds; where Synapse gives an answer that it does not know, that."""
    try:
        found = await check
    except HomeserverError as error:
        return [warning(name, f"could not be checked: {error}", advice(error))]
    return [found] if isinstance(found, Finding) else list(found)


def _lost(error: Exception) -> Finding:
    words = str(error) if isinstance(error, StoreError) else type(error).__name__
    return problem("database", f"it failed while it was read: {words}", "See whether it still runs.")

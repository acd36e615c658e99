"""The listener for the homeserver: the application service API of Matrix 1.19, ours part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.errors import BadRequest
from openmeet_appservice.intake.alias_lookups import AliasLookups, Allowance
from openmeet_appservice.intake.answers import json_answer, matrix_errors
from openmeet_appservice.intake.queries import RoomQueries, UserQueries
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.intake.tokens import HomeserverTokens
from openmeet_appservice.intake.transactions import MAX_BODY, Transactions
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.middleware import continue_later, read_body

_BASE = "/_matrix/app/v1"


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What the listener is told.

    Parameters
    ----------
    hs_tokens
        The valid ones: one, or two while they are being changed.
    server_name, bot
        Of our homeserver; the bot's user id.
    rooms
        The room settings of tenants that chose nothing themselves.
    aliases
        The template of public aliases.
    lookups
        How OpenMeet is asked about tenants that chose nothing themselves.
    read_seconds
        How long a body may take to arrive; Synapse gives up after 60 s.
    alias_wait_seconds
        How long a query for an alias waits for its room.
    """

    hs_tokens: Sequence[str]
    server_name: str
    bot: str
    rooms: RoomSettings
    aliases: Template
    lookups: LookupSettings
    read_seconds: float = 60.0
    alias_wait_seconds: float = 5.0


def build_app(
    settings: IntakeSettings,
    *,
    database: Database,
    wakeups: Wakeups,
    storage_failed: Callable[[], None],
    ephemeral: Callable[[list[Any]], None],
    suspicion: Suspicion,
    now: Now,
    clock: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Return the application that Synapse talks to.

    Parameters
    ----------
    storage_failed
        Called when a transaction could not be stored; see `intake.watch`.
    ephemeral
        Called with the ephemeral elements of each transaction that was.
    suspicion
        Told whatever suggests that Synapse has lost events.
    now, clock
        Milliseconds since the epoch; seconds that never go back.
    """
    tokens = HomeserverTokens(settings.hs_tokens)
    transactions = Transactions(
        tokens=tokens,
        database=database,
        wakeups=wakeups,
        bot=settings.bot,
        rooms=settings.rooms,
        read_seconds=settings.read_seconds,
        storage_failed=storage_failed,
        ephemeral=ephemeral,
        suspicion=suspicion,
        now=now,
        clock=clock,
    )
    users = UserQueries(tokens=tokens, database=database, bot=settings.bot)
    rooms = RoomQueries(
        tokens=tokens,
        database=database,
        wakeups=wakeups,
        server_name=settings.server_name,
        bot=settings.bot,
        settings=settings.rooms,
        lookups=AliasLookups(
            database, wakeups, settings.aliases, settings.lookups, Allowance(clock), now, clock
        ),
        wait_seconds=settings.alias_wait_seconds,
        now=now,
        clock=clock,
    )
    # No request ids here: a transaction has one already, and it is in every log line about it.
    app = web.Application(client_max_size=MAX_BODY, middlewares=[matrix_errors])

    def route(method: str, path: str, handler: Handler) -> None:
        # Expect: 100-continue is answered by who reads the body, after the token was checked.
        app.router.add_route(method, _BASE + path, handler, expect_handler=continue_later)

    route("PUT", "/transactions/{txn_id}", transactions.put)
    route("GET", "/users/{user_id}", users.get)
    route("GET", "/rooms/{alias}", rooms.get)
    route("POST", "/ping", _ping(tokens, settings.read_seconds))
    route("GET", "/thirdparty/protocol/{protocol}", _empty(tokens, {}))
    for kind in ("user", "location"):
        route("GET", f"/thirdparty/{kind}", _empty(tokens, []))
        route("GET", f"/thirdparty/{kind}/{{protocol}}", _empty(tokens, []))
    return app


def _ping(tokens: HomeserverTokens, read_seconds: float) -> Handler:
    async def ping(request: web.Request) -> web.Response:
        """Say that we are here."""
        tokens.check(request)
        body = await read_body(request, read_seconds)
        try:
            orjson.loads(body or b"{}")
        except orjson.JSONDecodeError:
            raise BadRequest("The body is not JSON.", code="M_NOT_JSON") from None
        return json_answer({})

    return ping


def _empty(tokens: HomeserverTokens, nothing: dict[str, str] | list[str]) -> Handler:
    async def thirdparty(request: web.Request) -> web.Response:
        """Say that we bridge to no other network."""
        tokens.check(request)
        return json_answer(nothing)

    return thirdparty

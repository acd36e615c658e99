"""``GET /users/{userId}`` and ``GET /rooms/{roomAlias}``: whether there is such a user or room of ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind, EntityStatus, Visibility
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import MAX_BYTES
from openmeet_appservice.domain.rooms import EntityFacts, RoomSettings, desired_room
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.errors import NotFound
from openmeet_appservice.intake.alias_lookups import AliasLookups
from openmeet_appservice.intake.answers import json_answer
from openmeet_appservice.intake.tokens import HomeserverTokens
from openmeet_appservice.store import queries, sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.queries import AliasOwner
from openmeet_appservice.store.wakeups import Wakeups

log = logging.getLogger(__name__)

_LOOK_AGAIN = 1.0
"""Seconds after which a waiting query looks by itself, for a wake-up may be lost."""


@dataclass(frozen=True, slots=True)
class UserQueries:
    """Answers about users, from the database and at once.

    Synapse sends nobody anything while it waits for this answer. Nothing is made here: the reconciler
    registers every user it knows of.
    """

    tokens: HomeserverTokens
    database: Database
    bot: str

    async def get(self, request: web.Request) -> web.Response:
        """Answer ``{}`` for a user of ours and the bot."""
        self.tokens.check(request)
        user_id = request.match_info["user_id"]
        if user_id != self.bot and not await self._exists(user_id):
            raise NotFound("There is no such user.")
        return json_answer({})

    async def _exists(self, user_id: str) -> bool:
        # A database refuses NUL characters and broken Unicode, and no id holds any.
        return user_id.isprintable() and await self.database.read(queries.user_exists, user_id)


@dataclass(frozen=True, slots=True)
class RoomQueries:
    """Answers about aliases; a room that is wanted and not there yet is made first.

    Anybody can cause these queries, with no account at all, so one for an alias that leads nowhere costs
    a look into the database, and only what nobody has provisioned may be worth a question to OpenMeet.

    Parameters
    ----------
    server_name
        Of our homeserver: the aliases of no other are ours.
    bot
        The bot's user id.
    settings
        Those of tenants that chose nothing themselves.
    lookups
        Asks OpenMeet about aliases that nobody has provisioned.
    wait_seconds
        How long to wait for a room to be made. Synapse itself waits for a minute.
    now, clock
        Milliseconds since the epoch; seconds that never go back.
    """

    tokens: HomeserverTokens
    database: Database
    wakeups: Wakeups
    server_name: str
    bot: str
    settings: RoomSettings
    lookups: AliasLookups
    wait_seconds: float
    now: Now
    clock: Callable[[], float]

    async def get(self, request: web.Request) -> web.Response:
        """Answer ``{}`` once there is a room behind the alias."""
        self.tokens.check(request)
        alias = request.match_info["alias"]
        if not self._may_be_ours(alias) or not await self._exists(alias):
            raise NotFound("There is no such room.")
        return json_answer({})

    def _may_be_ours(self, alias: str) -> bool:
        # Ours are lower-case, and Matrix tells aliases apart by case: no other form can lead to a room.
        localpart, colon, server = alias.removeprefix("#").partition(":")
        return (
            alias.startswith("#")
            and bool(localpart and colon)
            and server == self.server_name
            and len(alias) <= MAX_BYTES
            and alias.isprintable()
        )

    async def _exists(self, alias: str) -> bool:
        owner = await self.database.read(queries.alias_owner, alias) or await self.lookups.owner(alias)
        if owner is None or owner.is_set or not self._is_wanted(owner, alias):
            return owner is not None and owner.is_set
        log.info("somebody looks for %s, which is not there yet", alias, extra={"tenant": owner.tenant})
        await self.database.write(_want, owner.tenant, owner.ref, now=self.now())
        until = self.clock() + self.wait_seconds
        self.wakeups.wake("reconcile")
        while True:
            # The ticket before the look: what is done in between must not be waited for.
            ticket = self.wakeups.ticket("reconciled")
            owner = await self.database.read(queries.alias_owner, alias)
            left = until - self.clock()
            if owner is None or owner.is_set or left <= 0:
                return owner is not None and owner.is_set
            await self.wakeups.wait("reconciled", ticket, timeout=min(left, _LOOK_AGAIN))

    def _is_wanted(self, owner: AliasOwner, alias: str) -> bool:
        """Whether the room, as the reconciler will make it, has this alias."""
        facts = EntityFacts(
            kind=EntityKind(owner.kind),
            name="",
            status=EntityStatus(owner.spec["status"]),
            visibility=Visibility(owner.spec["visibility"]),
            alias=alias,
        )
        settings = room_settings(self.settings, owner.tenant_settings)
        return desired_room(facts, (), settings, bot=self.bot, default_version="").alias == alias


def _want(connection: Connection, tenant: str, ref: str, *, now: int) -> None:
    """Have the entity's room made, unless that is coming anyway.

    What failed before keeps waiting for its next attempt: strangers must not be able to hurry it.
    """
    status = sync.status(connection, tenant, "entity", ref)
    if status is not None and status.due_at is None:
        sync.poke(connection, tenant, "entity", ref, now=now)

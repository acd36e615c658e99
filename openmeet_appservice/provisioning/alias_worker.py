"""The worker that looks up what somebody seeks by its alias and nobody has provisioned.

Whoever asked waits, so these go at once and beside the hints, with little time. Strangers cause them, with no
account at all: what they may not find is treated like what is not there, and nothing of it is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from openmeet_appservice.domain.rooms import EntityFacts, RoomSettings, desired_room
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.errors import ApiError, DatabaseUnavailable, InvalidName
from openmeet_appservice.provisioning import lookup_writes
from openmeet_appservice.provisioning.lookup import Absent, Found, Lookup
from openmeet_appservice.provisioning.lookup_writes import Before, Followed, Topic
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.specs import UserSpec
from openmeet_appservice.store import alias_lookups, hints
from openmeet_appservice.store.alias_lookups import AliasLookup

log = logging.getLogger(__name__)

SLOTS = 8
POLL = 60.0
"""Seconds after which the worker looks by itself. Who asks is in the same process, so no wake-up is lost."""

PAUSE = 1.0
LEASE = 35_000
"""Milliseconds for which a question is held: as long as an answer may take, and some more."""


@dataclass(slots=True)
class AliasWorker:
    """Answers what intake asks, until it is stopped.

    Parameters
    ----------
    rooms
        The room settings of tenants that chose nothing themselves.
    sleep
        Waits some seconds.
    """

    parts: Parts
    lookup: Lookup
    rooms: RoomSettings
    sleep: Callable[[float], Awaitable[None]]
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                ticket = self.parts.wakeups.ticket("look_up")
                try:
                    await self._begin_all()
                except DatabaseUnavailable as error:
                    log.warning("look-ups of aliases wait for the database: %s", error)
                    await self.sleep(PAUSE)
                    continue
                except Exception:
                    # A fault of ours, but whoever relies on this loop is better off when it goes on.
                    log.exception("look-ups of aliases stumbled and go on in %.0f s", PAUSE)
                    await self.sleep(PAUSE)
                    continue
                await self.parts.wakeups.wait("look_up", ticket, POLL)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def once(self) -> None:
        """Answer everything that is asked now."""
        await self._begin_all()
        await asyncio.gather(*self._running)

    async def _begin_all(self) -> None:
        now = self.parts.now()
        if len(self._running) >= SLOTS or not await self.parts.database.read(
            alias_lookups.are_waiting, now=now
        ):
            return
        free = SLOTS - len(self._running)
        for one in await self.parts.database.write(
            alias_lookups.claim, now=now, until=now + LEASE, limit=free
        ):
            task = asyncio.create_task(self._work(one), name="look up an alias")
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.parts.wakeups.wake("looked_up")
        # There may be more than there were slots for.
        self.parts.wakeups.wake("look_up")

    async def _work(self, one: AliasLookup) -> None:
        try:
            if await self._is_absent(one):
                await self.parts.database.write(alias_lookups.absent, one, now=self.parts.now())
            else:
                await self.parts.database.write(alias_lookups.over, one)
        except DatabaseUnavailable as error:
            log.warning("an alias could not be looked up: %s", error)
        except Exception:
            log.exception("an alias could not be looked up")

    async def _is_absent(self, one: AliasLookup) -> bool:
        """Look it up and make what is found, if it may be found; return whether it is not there."""
        topic = Topic(one.tenant, _kind(one), one.slug)
        known = await self.parts.database.read(lookup_writes.before, topic)
        if known is None or known.ref is not None:
            return False
        began = self.parts.now()
        within = self.lookup.settings(known.tenant).alias_timeout
        outcome = await self.lookup.ask(
            known.tenant, topic.kind, topic.slug, reason="alias", first_page_within=within
        )
        if isinstance(outcome, Absent):
            return True
        if not isinstance(outcome, Found) or isinstance(outcome.spec, UserSpec):
            return False
        if not self._may_be_found(topic, outcome, known):
            return True
        try:
            followed = await self.parts.database.write(self._follow, topic, outcome, known, began=began)
        except (ApiError, InvalidName) as refusal:
            log.warning("%s %s cannot be as OpenMeet says: %s", one.kind, one.slug, refusal)
            return False
        if followed.touched:
            self.parts.wakeups.wake("reconcile")
        return False

    def _follow(
        self, connection: Connection, topic: Topic, found: Found, known: Before, *, began: int
    ) -> Followed:
        now = self.parts.now()
        complete = found if not found.more else Found(found.spec)
        followed = lookup_writes.follow(connection, self.parts, topic, complete, known, began=began, now=now)
        if found.more:
            # Who waits does not wait for thousands of members: the room first, then they.
            hints.add(connection, topic.tenant, topic.kind, topic.slug, now=now)
        return followed

    def _may_be_found(self, topic: Topic, found: Found, known: Before) -> bool:
        """Whether the room, as the reconciler will make it, has the alias."""
        assert not isinstance(found.spec, UserSpec)
        place = topic.place
        alias = self.parts.aliases.alias(kind=place.kind.value, slug=place.slug, tenant=topic.tenant)
        facts = EntityFacts(
            kind=place.kind,
            name="",
            status=found.spec.status,
            visibility=found.spec.visibility,
            alias=alias,
        )
        settings = room_settings(self.rooms, known.tenant.settings)
        return desired_room(facts, (), settings, bot=self.parts.bot, default_version="").alias == alias


def _kind(one: AliasLookup) -> hints.Kind:
    return "event" if one.kind.value == "event" else "group"

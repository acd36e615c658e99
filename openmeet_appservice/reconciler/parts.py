"""Comparing only those members of an event or group who changed.

What `domain.part` says is known is not asked for. Whenever that proves wrong, or anything else is odd,
nothing is decided here: the whole room is compared instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.part import POWER, Expected, expect, plan_part
from openmeet_appservice.domain.reading import read_state
from openmeet_appservice.domain.rooms import ActualRoom, JsonObject
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.apply import Applier
from openmeet_appservice.reconciler.observe import kept_out, our_bans
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.store import kicks, parts
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.parts import Part
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)

MAX_ROUNDS = 4
"""How often one run compares while more and more changes."""

KICKS = 3
"""How often within an hour somebody is removed who comes back; the next time is a ban."""


class PartReconciler:
    """Makes Synapse agree with what is wanted of the members noted in `store.checks`."""

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        settings: ReconcilerSettings,
        applier: Applier,
        *,
        now: Now,
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._settings = settings
        self._applier = applier
        self._now = now

    async def reconcile(self, tenant: str, ref: str, *, is_outdated: Callable[[int], bool]) -> Result | None:
        """Close the gap for those members; return the generation that Synapse agrees with now.

        None where the whole entity has to be compared.

        Parameters
        ----------
        is_outdated
            Whether something newer than that generation is wanted.

        Raises
        ------
        HomeserverError
            Synapse gave no usable answer, or asks for patience.
        """
        for _ in range(MAX_ROUNDS):
            part = await self._database.read(parts.due, tenant, ref, defaults=self._settings.rooms)
            if part is None:
                return None
            with bind(room=part.room_id):
                done = await self._round(part, partial(is_outdated, part.generation))
            if done is None:
                logger.debug("comparing the whole of %s", part.room_id)
                return None
            if done:
                return Result(part.generation, is_part=True)
        return None

    async def _round(self, part: Part, is_outdated: Callable[[], bool]) -> bool | None:
        """Compare once and do what comes out: True when all is done, None to compare the whole."""
        desired = part.desired(bot=self._settings.bot_user_id)
        expected = expect(part.facts.kind, part.checks, part.settings, part.entitled)
        if desired.wanted is not Wanted.OPEN or expected is None:
            return None
        try:
            actual = await observe_part(self._homeserver, part, expected, bot=desired.bot)
            if actual.came:
                known = await self._database.read(kicks.recent, part.tenant, part.ref, now=self._now())
                actual = replace(actual, returners=returners(known))
            steps = plan_part(desired, actual)
            if steps is None or steps.notes:
                return None
            applied = await self._applier.apply(
                part.room, part.room_id, steps.actions, is_outdated=is_outdated, known=part.puppets
            )
        except HomeserverLimited:
            raise
        except HomeserverRefused as error:
            if error.status == 401:
                raise
            return None
        except NotReconciled:
            return None
        return None if applied.refused else not applied.interrupted


async def observe_part(homeserver: Homeserver, part: Part, expected: Expected, *, bot: str) -> ActualRoom:
    """Return the room with what is known of it and what has to be asked for, and nothing else."""
    events: list[JsonObject] = []
    for user_id in expected.ask:
        event = await homeserver.membership(part.room_id, user_id)
        if event is not None:
            events.append(event)
    asked = read_state(events)
    state: dict[str, JsonObject] = {}
    if expected.ask_levels:
        state[POWER] = await homeserver.state_event(part.room_id, POWER) or {}
    return ActualRoom(
        room_id=part.room_id,
        version=part.room.room_version or "1",
        members={**expected.memberships, **dict.fromkeys(expected.ask, "leave"), **asked.members},
        state=state,
        ours=frozenset(part.puppets),
        our_bans=our_bans(asked, bot),
        kept_out=kept_out(asked, bot),
        came=frozenset(check.user_id for check in part.checks if not check.is_known),
    )


def returners(removed: Mapping[str, int]) -> frozenset[str]:
    """Return whom to ban when they come back once more, by how often each was removed within an hour."""
    return frozenset(user_id for user_id, times in removed.items() if times >= KICKS)

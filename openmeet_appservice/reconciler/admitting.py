"""Letting in at once a member who has not joined so far, because there is something to say."""

from __future__ import annotations

import logging
from collections.abc import Callable

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.part import Expected, plan_admission
from openmeet_appservice.errors import NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.apply import Applier
from openmeet_appservice.reconciler.parts import observe_part
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.store import checks, parts
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.parts import Part
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)


class Admission:
    """Lets members in.

    Parameters
    ----------
    changed
        Called when an entity has to be compared again.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        settings: ReconcilerSettings,
        applier: Applier,
        *,
        now: Now,
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._settings = settings
        self._applier = applier
        self._now = now
        self._changed = changed

    async def admit(self, tenant: str, entity_ref: str, user_id: str) -> bool:
        """See to it that a puppet who belongs into the room is inside; False when it was already.

        Its account is made first, where it has none. To a direct room nobody is let in late (False).

        Raises
        ------
        NotReconciled
            ``room_not_ready``: there is no room yet. ``no_member``: it does not belong into the room (any
            more). ``member_banned``: a moderator has banned it.
        HomeserverError
            Synapse refused, or gave no usable answer.
        """
        part = await self._read(tenant, entity_ref, user_id)
        if part is None:
            raise NotReconciled("room_not_ready", "there is no room yet")
        if part.facts.kind is EntityKind.DIRECT:
            return False
        desired = part.desired(bot=self._settings.bot_user_id)
        if not desired.members:
            raise NotReconciled("no_member", f"{user_id} does not belong into the room", patient=True)
        with bind(room=part.room_id):
            is_registered = part.puppets[user_id].registered
            # Who has no account is nowhere inside.
            ask = (user_id,) if is_registered else ()
            expected = Expected({user_id: "leave"}, ask, ask_levels=False)
            actual = await observe_part(self._homeserver, part, expected, bot=desired.bot)
            if actual.members[user_id] == "join":
                return False
            steps = plan_admission(desired, actual)
            if steps.notes:
                raise NotReconciled(steps.notes[0].code, steps.notes[0].describe(), patient=True)
            applied = await self._applier.apply(
                part.room,
                part.room_id,
                steps.actions,
                is_outdated=lambda: False,
                known=part.puppets,
            )
            if applied.refused:
                raise applied.refused[user_id]
        await self._look_again(part, user_id)
        return True

    async def _look_again(self, part: Part, user_id: str) -> None:
        """Have somebody removed who lost the right to be inside while being let in."""
        fresh = await self._read(part.tenant, part.ref, user_id)
        if fresh is None or not fresh.desired(bot=self._settings.bot_user_id).members:
            await self._database.write(checks.look_at, part.tenant, part.ref, [user_id], now=self._now())
            self._changed()

    async def _read(self, tenant: str, entity_ref: str, user_id: str) -> Part | None:
        return await self._database.read(
            parts.of_user, tenant, entity_ref, user_id, defaults=self._settings.rooms
        )

"""Deleting the rooms of what was deleted for good, by Synapse's admin API, and forgetting it here.

::

    closed ──▶ each room: deleted? ──no──▶ asked for ──▶ under way ──▶ gone ──▶ log erased ──▶ all erased
                             └──yes, or never made────────────────────▶ ⋮

Nothing of that is remembered: Synapse tells how a room stands, so whoever comes after a crash or a failure
begins with the question. What Synapse still pushes of a room that is erased here belongs to nobody, and is
dropped like everything of unknown rooms.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import AdminCalls
from openmeet_appservice.metrics import ROOMS_PURGED
from openmeet_appservice.reconciler.announcing import Announcer
from openmeet_appservice.store import erasing
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.wanted import WantedEntity

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two looks at a deletion under way: each pause twice the one before."""

PATIENCE = 300.0
"""Seconds for which one run looks at a deletion; a later one goes on with it."""

PAUSE = 0.02
"""Seconds between two parts of the log, for others who want to write."""

_UNDER_WAY = frozenset({"scheduled", "active", "shutting_down", "purging"})

T = TypeVar("T")


class Purger:
    """Deletes rooms for good.

    Parameters
    ----------
    admin
        The homeserver as its admin has it; None where no admin's token is configured.
    sleep
        Waits for a number of seconds.
    """

    def __init__(
        self,
        database: Database,
        admin: AdminCalls | None,
        announcer: Announcer,
        *,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._database = database
        self._admin = admin
        self._announcer = announcer
        self._sleep = sleep

    async def purge(self, entity: WantedEntity) -> bool:
        """Delete every room of the entity, and the entity; False where another room has come to light.

        Raises
        ------
        NotReconciled
            ``purge_unavailable``, ``admin_token_refused``, ``admin_api_unavailable``, ``purge_failed`` or
            ``purge_under_way``, which takes longer than one run can wait.
        HomeserverError
            There was no answer; or 429.
        """
        if self._admin is None:
            raise NotReconciled("purge_unavailable", "homeserver.admin_token is no longer configured")
        for room in entity.rooms:
            if room.room_id is not None:
                await self._delete(self._admin, room.room_id)
        refs = [room.ref for room in entity.rooms]
        await self._database.write(erasing.drop_deliveries, entity.tenant, refs)
        for ref in refs:
            while await self._database.write(erasing.erase_events, entity.tenant, ref):
                await self._sleep(PAUSE)
        return await self._announcer.erase(entity.tenant, entity.ref, refs)

    async def _delete(self, admin: AdminCalls, room_id: str) -> None:
        asked, waited, pause = False, 0.0, FIRST_PAUSE
        while waited < PATIENCE:
            under_way = _UNDER_WAY.intersection(await _answer(admin.deletions(room_id)))
            if not under_way:
                if not await _answer(admin.room_exists(room_id)):
                    if asked:
                        ROOMS_PURGED.inc()
                        logger.info("%s is deleted for good", room_id)
                    return
                if asked:
                    raise NotReconciled("purge_failed", f"Synapse could not delete {room_id}; see its log")
                await _answer(admin.delete_room(room_id))
            asked = True
            await self._sleep(pause)
            waited, pause = waited + pause, min(LONGEST_PAUSE, pause * 2)
        raise NotReconciled("purge_under_way", f"Synapse is still deleting {room_id}")


async def _answer(request: Awaitable[T]) -> T:
    """Return the answer of the admin API, whose refusals mean something else than those of other calls."""
    try:
        return await request
    except HomeserverLimited:
        raise
    except HomeserverRefused as error:
        if error.status in (401, 403):
            raise NotReconciled(
                "admin_token_refused",
                f"Synapse does not take homeserver.admin_token for an admin's ({error})",
            ) from error
        if error.status == 404:
            raise NotReconciled(
                "admin_api_unavailable",
                f"Synapse's admin API is not at homeserver.url ({error}); let /_synapse/admin through to it",
            ) from error
        raise NotReconciled("purge_failed", f"Synapse did not delete the room: {error}") from error

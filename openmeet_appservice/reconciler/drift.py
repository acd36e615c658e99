"""Changes that others make in a room: judged, told of, and remembered from one comparison to the next."""

from __future__ import annotations

import logging

from openmeet_appservice.domain.drift import Field
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.plan import Plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom
from openmeet_appservice.domain.verdict import Memory, Verdict, judge, read_memory
from openmeet_appservice.metrics import DRIFT
from openmeet_appservice.store import sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.wanted import WantedEntity

logger = logging.getLogger(__name__)


class DriftKeeper:
    """Judges plans, and stores what has to be known the next time.

    Parameters
    ----------
    now
        The clock.
    """

    def __init__(self, database: Database, *, now: Now) -> None:
        self._database = database
        self._now = now

    def judge(
        self, entity: WantedEntity, steps: Plan, desired: DesiredRoom, actual: ActualRoom | None
    ) -> Verdict:
        """Return what is to be done of *steps*, the plan for the room that *entity* uses; see `judge`."""
        room = "" if entity.in_use is None else entity.in_use.ref
        memory = read_memory(entity.memory, room)
        return judge(steps, desired, actual, memory, entity.settings.drift, now=self._now())

    async def begin(self, entity: WantedEntity, verdict: Verdict) -> None:
        """Count what is set right, before it is.

        That the bot comes back is counted once it is in: where it is not let in, it is nobody's doing that
        it tries again.
        """
        if verdict.corrected - {Field.BOT}:
            await self._remember(entity, verdict.memory, verdict.counted)

    async def returned(self, entity: WantedEntity, verdict: Verdict) -> None:
        """Record that the bot is in the room again."""
        await self._remember(entity, verdict.memory, verdict.counted)
        _tell(verdict)

    async def settled(self, entity: WantedEntity, verdict: Verdict, *, refused: bool) -> None:
        """Record that the room's state is as the verdict wants it, and tell what was found.

        *refused*: not everything about single people could be done.
        """
        await self._remember(entity, verdict.counted, verdict.settled(refused=refused))
        _tell(verdict)

    async def _remember(self, entity: WantedEntity, before: Memory, after: Memory) -> None:
        if after != before:
            await self._database.write(sync.set_memory, entity.tenant, entity.ref, after.to_text())


def _tell(verdict: Verdict) -> None:
    contested = frozenset(step.field for step in verdict.contested)
    for outcome, fields in (
        ("corrected", verdict.corrected),
        ("accepted", verdict.newly_accepted),
        ("contested", contested),
    ):
        for changed in sorted(fields):
            DRIFT.labels(changed.value, outcome).inc()
    for changed in sorted(verdict.corrected):
        logger.info("set right what somebody changed: %s", changed.value)
    for changed in sorted(verdict.newly_accepted):
        logger.info("left as somebody changed it: %s", changed.value)
    for changed in sorted(contested):
        logger.warning("somebody changes it again and again, so it rests: %s", changed.value)

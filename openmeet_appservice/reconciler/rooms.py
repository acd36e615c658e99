"""One entity: comparing what OpenMeet wants with what Synapse has, and closing the gap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from openmeet_appservice.domain.actions import CreateRoom, JoinBot
from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.plan import Plan, plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.apply import Applied, Applier, people_refused
from openmeet_appservice.reconciler.direct import DirectRooms
from openmeet_appservice.reconciler.drift import DriftKeeper
from openmeet_appservice.reconciler.ending import Endings
from openmeet_appservice.reconciler.former import refuse_second_room
from openmeet_appservice.reconciler.making import DEAD_AFTER, RoomMaker
from openmeet_appservice.reconciler.observe import aliases_of_ours, observe
from openmeet_appservice.reconciler.parts import PartReconciler, returners
from openmeet_appservice.reconciler.pictures import Pictures
from openmeet_appservice.reconciler.purging import Purger
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.reconciler.versions import DefaultVersion
from openmeet_appservice.store import former_slugs, kicks, member_errors, puppets, rooms, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.wanted import WantedEntity
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)

MAX_ROUNDS = 4
"""How often one run compares. A new room takes two: one makes it, one finishes it."""


class RoomReconciler:
    """Makes Synapse agree with what is wanted of one entity at a time.

    Parameters
    ----------
    settled
        Called when others may want to look: the room exists now.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        settings: ReconcilerSettings,
        maker: RoomMaker,
        applier: Applier,
        endings: Endings,
        pictures: Pictures,
        purger: Purger,
        version: DefaultVersion,
        direct: DirectRooms,
        drift: DriftKeeper,
        parts: PartReconciler,
        *,
        now: Now,
        settled: Callable[[], None],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._settings = settings
        self._maker = maker
        self._applier = applier
        self._endings = endings
        self._pictures = pictures
        self._purger = purger
        self._version = version
        self._direct = direct
        self._drift = drift
        self._parts = parts
        self._now = now
        self._settled = settled

    async def reconcile(
        self, tenant: str, ref: str, *, attempts: int, is_outdated: Callable[[int], bool]
    ) -> Result:
        """Close the gap for one entity; return the generation that Synapse agrees with now.

        Where only a few members changed only they are compared, as long as all goes as expected. Else starts
        again from the comparison after everything that can change what is to be done.

        Parameters
        ----------
        attempts
            How many runs have failed before this one.
        is_outdated
            Whether something newer than that generation is wanted.

        Raises
        ------
        HomeserverError, NotReconciled
            Synapse does not agree, and why.
        """
        done = await self._parts.reconcile(tenant, ref, is_outdated=is_outdated)
        if done is not None:
            return done
        rounds = 0
        last = Applied()
        taken: dict[str, str] = {}
        while rounds < MAX_ROUNDS:
            entity = await self._read(tenant, ref)
            if entity is None:
                return Result(0)
            generation = entity.generation
            applied = await self._round_or_purge(entity, attempts, taken, partial(is_outdated, generation))
            if applied is None:
                if entity.removal_held:
                    raise _removal_held()
                return self._pictures.result(generation, entity.picture)
            if applied.refused:
                details = {user_id: str(error) for user_id, error in applied.refused.items()}
                await self._database.write(member_errors.replace, tenant, ref, details, now=self._now())
            if applied.refused and last.refused:
                raise people_refused(applied)
            alias, other = applied.conflict or ("", "")
            found_out = bool(other) and alias not in taken
            if other:
                taken[alias] = other
            # What is newly wanted or known begins a new count: it is no sign that this does not end.
            rounds = 0 if applied.interrupted or found_out else rounds + 1
            last = applied
        raise NotReconciled("not_converging", f"the room still differs after {MAX_ROUNDS} comparisons")

    async def _round_or_purge(
        self,
        entity: WantedEntity,
        attempts: int,
        taken: Mapping[str, str],
        is_outdated: Callable[[], bool],
    ) -> Applied | None:
        """Do a round; of what is to be deleted for good, once it is closed, see to that.

        That needs nobody inside, so it goes on where the bot can do nothing.
        """
        try:
            applied = await self._round(entity, attempts, taken, is_outdated)
        except (NotReconciled, HomeserverRefused) as error:
            limited = isinstance(error, HomeserverLimited)
            if not entity.purge or limited or getattr(error, "status", None) == 401:
                raise
            logger.info("%s is deleted though it could not be closed: %s", entity.ref, error)
            applied = None
        if not entity.purge or applied is not None:
            return applied
        return None if await self._purger.purge(entity) else Applied()

    async def _round(
        self,
        entity: WantedEntity,
        attempts: int,
        taken: Mapping[str, str],
        is_outdated: Callable[[], bool],
    ) -> Applied | None:
        """Compare once and do what comes out; None when nothing is left to do.

        *taken* are aliases that were found to lead to rooms that keep them, with the ids of those.
        """
        desired = await self.desired(entity)
        if desired.owners is not None:
            return Applied() if await self._direct.round(entity, desired, attempts) else None
        for orphan in entity.orphans:
            await self._endings.close_orphan(orphan)
        room = entity.in_use
        if desired.wanted is not Wanted.OPEN:
            await self._endings.close_predecessors(entity)
        if room is None or room.room_id is None:
            return await self._without_room(entity, desired, attempts)
        with bind(room=room.room_id):
            if desired.wanted is Wanted.OPEN:
                await self._endings.succeed(entity, room.room_id)
            actual = await self.actual(entity, room, desired)
            await self._keep_alias(entity, room, desired, actual)
            if taken:
                actual = replace(actual, alias_target=taken.get(desired.alias or ""), taken=taken)
            verdict = self._drift.judge(entity, plan(desired, actual), desired, actual)
            steps = verdict.plan
            if not steps.actions:
                await self._drift.settled(entity, verdict, refused=False)
                _raise_findings(steps)
                return None
            await self._drift.begin(entity, verdict)
            applied = await self._apply(room, steps, attempts, is_outdated, was_inside=bool(actual.members))
            if applied is None:
                await self._drift.returned(entity, verdict)
            elif not (applied.conflict or applied.interrupted):
                await self._drift.settled(entity, verdict, refused=bool(applied.refused))
            if applied is None or applied.refused or applied.conflict or applied.interrupted:
                return applied or Applied()
            _raise_findings(steps)
        return None

    async def explain(self, entity: WantedEntity) -> Explanation:
        """Compare, and say what would be done, without doing it."""
        desired = await self.desired(entity)
        room, actual = entity.in_use, None
        if room is not None and room.room_id is not None:
            actual = await self.actual(entity, room, desired)
        verdict = self._drift.judge(entity, plan(desired, actual), desired, actual)
        return Explanation(desired, actual, verdict)

    async def desired(self, entity: WantedEntity) -> DesiredRoom:
        """Derive what the entity's room should be."""
        made = entity.in_use is not None and entity.in_use.room_id is not None
        # Only a room that is still to be made needs to know, so an existing one costs no request.
        default = "1" if made or entity.settings.version else await self._version.get()
        return entity.desired(bot=self._settings.bot_user_id, default_version=default)

    async def actual(self, entity: WantedEntity, room: Room, desired: DesiredRoom) -> ActualRoom:
        """Read how the room, whose id is recorded, is on Synapse."""
        assert room.room_id is not None
        if desired.owners is not None:
            return await self._direct.actual(room, desired)
        actual = await observe(
            self._homeserver,
            room.room_id,
            bot=self._settings.bot_user_id,
            our_aliases=aliases_of_ours(room, entity.aliases, self._settings.server_name),
        )
        if desired.wanted is Wanted.OPEN and desired.join_rule == "public":
            inside = [user for user, membership in actual.members.items() if membership in ("join", "invite")]
            ours = await self._database.read(puppets.by_user_id, entity.tenant, inside)
            actual = replace(actual, ours=frozenset(ours))
        if desired.wanted is not Wanted.OPEN:
            return actual
        removed = await self._database.read(kicks.recent, entity.tenant, entity.ref, now=self._now())
        return replace(actual, came=frozenset(removed), returners=returners(removed))

    async def _read(self, tenant: str, ref: str) -> WantedEntity | None:
        entity = await self._database.read(wanted.entity, tenant, ref, defaults=self._settings.rooms)
        if entity is None or entity.picture.is_used:
            return entity
        picture = await self._pictures.want(tenant, "entity", ref, entity.picture)
        return entity.with_picture(picture)

    async def _without_room(
        self, entity: WantedEntity, desired: DesiredRoom, attempts: int
    ) -> Applied | None:
        room = entity.in_use
        if desired.wanted is Wanted.OPEN:
            await refuse_second_room(self._homeserver, entity, desired)
            steps = plan(desired, None)
            for action in steps.actions:
                if isinstance(action, CreateRoom):
                    await self._maker.make(entity, action, attempts=attempts)
            self._settled()
            return Applied()
        # It may have been made although nobody told: then it has to be closed.
        if room is not None and await self._maker.was_made(room, attempts):
            return Applied()
        return None

    async def _apply(
        self,
        room: Room,
        steps: Plan,
        attempts: int,
        is_outdated: Callable[[], bool],
        *,
        was_inside: bool,
    ) -> Applied | None:
        """Apply the plan; None when there is more to compare afterwards.

        *was_inside*: the bot has been in the room.
        """
        assert room.room_id is not None
        try:
            applied = await self._applier.apply(room, room.room_id, steps.actions, is_outdated=is_outdated)
        except HomeserverRefused as error:
            if not isinstance(steps.actions[0], JoinBot) or error.status not in (403, 404):
                raise
            await self._lost(room, error, attempts, was_inside=was_inside)
            return None
        return None if isinstance(steps.actions[0], JoinBot) else applied

    async def _lost(self, room: Room, error: HomeserverRefused, attempts: int, *, was_inside: bool) -> None:
        """Give up a room that nobody can enter any more, so that a new one is made."""
        if error.status == 403:
            raise NotReconciled(
                "bot_locked_out",
                f"the bot is not in {room.room_id} and is not let in ({error}); "
                "somebody with the power must invite it",
            ) from error
        if attempts < DEAD_AFTER or (not was_inside and self._maker.may_be_under_way(room)):
            raise NotReconciled("room_lost", f"nobody is in {room.room_id} any more ({error})") from error
        logger.warning("nobody can enter %s any more: a new room is made", room.room_id)
        await self._database.write(rooms.set_state, room.tenant, room.ref, "former")

    async def _keep_alias(
        self, entity: WantedEntity, room: Room, desired: DesiredRoom, actual: ActualRoom
    ) -> None:
        """Record which public alias was seen to point to the room, and which former ones are gone."""
        gone = entity.lost_aliases - actual.aliases
        # A room that is still to be ended may have them.
        if gone and not entity.replaced:
            await self._database.write(former_slugs.forget, entity.tenant, entity.ref, gone)
        if desired.alias in actual.aliases and room.alias != desired.alias:
            await self._database.write(rooms.set_alias, room.tenant, room.ref, desired.alias)
        elif room.alias is not None and room.alias not in actual.aliases:
            await self._database.write(rooms.set_alias, room.tenant, room.ref, None)


def _removal_held() -> NotReconciled:
    return NotReconciled(
        "mass_removal_held",
        "OpenMeet does not know it any more, nor too many others to archive them all at once; see that "
        "lookup.url answers rightly, or DELETE it if it is gone",
        patient=True,
    )


def _raise_findings(steps: Plan) -> None:
    """Raise what the plan could not or must not put right, the gravest first."""
    if steps.held is not None:
        raise NotReconciled(
            steps.held.code,
            f"{len(steps.held.users)} of {steps.held.members} members would be removed at once; repeat the "
            "write with ?confirm_removals=true if that is meant",
            patient=True,
        )
    notes = sorted(steps.notes, key=lambda note: note.code != "alias_taken")
    if notes:
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        raise NotReconciled(notes[0].code, notes[0].describe() + more, patient=notes[0].code != "alias_taken")

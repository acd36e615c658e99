"""Taking over the rooms of OpenMeet's former service, one entity after the other.

Nothing but a join is done to a room here, and that only where the bot is not inside: what else there is to
do, the reconciler does, which from then on knows the room. So whoever is killed in between may begin anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from openmeet_appservice.domain import adoption
from openmeet_appservice.domain.adoption import Obstacle
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.reading import RoomState
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.observe import read_room
from openmeet_appservice.store import adoption as store
from openmeet_appservice.store import rooms
from openmeet_appservice.store.adoption import Candidate, Guarded
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId

PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of one entity.

    Parameters
    ----------
    alias, room_id
        The former alias and the room it leads to; both None where there is no such room.
    version, people, encrypted
        Of a room that could be read: its version, how many are in it or invited, whether it is encrypted.
    obstacle
        Why it is not taken over; None where it is, or, in a dry run, would be.
    joins
        The bot is not inside: whether it would be let in, only a real run finds out.
    """

    candidate: Candidate
    alias: str | None = None
    room_id: str | None = None
    version: str | None = None
    people: int = 0
    encrypted: bool = False
    obstacle: Obstacle | None = None
    joins: bool = False


class Adopter:
    """Takes rooms over.

    Parameters
    ----------
    bot, server_name
        The bot's user id, which the former service had too, and the homeserver's name.
    new_id, new_claim
        Make an id of ours with a prefix, and a claim.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        *,
        bot: str,
        server_name: str,
        now: Now,
        new_id: NewId,
        new_claim: Callable[[], str],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._bot = bot
        self._server_name = server_name
        self._now = now
        self._new_id = new_id
        self._new_claim = new_claim

    async def adopt_all(self, tenant: str | None, *, dry_run: bool) -> AsyncIterator[Looked]:
        """Look for the former room of every entity without one, and take over what can be.

        Parameters
        ----------
        tenant
            Only this one (its key); None for all.
        dry_run
            Only look: nothing is changed, on the homeserver or here.

        Raises
        ------
        HomeserverError
            It is away, or does not accept us. What was done before holds.
        """
        after = None
        while page := await self._database.read(store.candidates, tenant, after=after, limit=PAGE):
            for candidate in page:
                yield await self._look(candidate, dry_run=dry_run)
            after = (page[-1].tenant, page[-1].ref)

    async def enforce_all(self, tenant: str | None, *, dry_run: bool) -> AsyncIterator[tuple[Guarded, bool]]:
        """Enforce the lists of all adopted rooms; of each, whether a whole list has come and it is done."""
        after = None
        while page := await self._database.read(store.guarded, tenant, after=after, limit=PAGE):
            for room in page:
                done = room.members_listed
                if done and not dry_run:
                    done = await self._database.write(store.enforce, room.tenant, room.ref, now=self._now())
                yield room, done
            after = (page[-1].tenant, page[-1].ref)

    async def _look(self, candidate: Candidate, *, dry_run: bool) -> Looked:
        names = self._names(candidate)
        for alias in names:
            room_id = await self._homeserver.resolve_alias(alias)
            if room_id is not None:
                break
        else:
            if candidate.expected and not dry_run:
                await self._database.write(store.give_up, candidate, now=self._now())
            return Looked(candidate)
        found = Looked(candidate, alias, room_id)
        known = await self._database.read(rooms.by_room_id, room_id)
        if known is not None:
            # Its own: a running service was faster.
            its_own = known.entity_ref == candidate.ref
            return Looked(candidate) if its_own else _refused(found, adoption.in_use(alias))
        state = await read_room(self._homeserver, room_id)
        if state is not None and state.members.get(self._bot) == "join":
            return await self._judge(found, names, state, dry_run=dry_run)
        if dry_run:
            return Looked(candidate, alias, room_id, joins=True)
        return await self._from_outside(found, names)

    def _names(self, candidate: Candidate) -> list[str]:
        """The aliases that its room may have: as the former service spelt it, and as this one does."""
        former = adoption.former_alias(candidate.kind, candidate.slug, candidate.tenant_id, self._server_name)
        return list(dict.fromkeys([former, candidate.alias] if former else [candidate.alias]))

    async def _from_outside(self, found: Looked, names: list[str]) -> Looked:
        """Try to join, and judge the room by what is in it; leave it again where it is not taken over."""
        assert found.alias is not None
        assert found.room_id is not None
        try:
            await self._homeserver.join(found.room_id)
        except HomeserverLimited:
            raise
        except HomeserverRefused as error:
            if error.status == 404:
                # Nobody is inside who could let anybody in, now or later.
                await self._homeserver.delete_alias(found.alias)
                await self._database.write(store.give_up, found.candidate, now=self._now())
                return _refused(found, adoption.gone(found.alias))
            if error.status != 403:
                raise
            return _refused(found, adoption.not_inside(found.room_id, self._bot, error.error))
        state = await read_room(self._homeserver, found.room_id)
        assert state is not None, "the bot is inside"
        judged = await self._judge(found, names, state, dry_run=False)
        if judged.obstacle is not None:
            await self._homeserver.leave(found.room_id)
        return judged

    async def _judge(self, found: Looked, names: list[str], state: RoomState, *, dry_run: bool) -> Looked:
        assert found.alias is not None
        assert found.room_id is not None
        looked = _read(found, state)
        hindrance = adoption.obstacle(found.room_id, found.alias, names, state, self._bot)
        if hindrance is not None:
            return _refused(looked, hindrance)
        if dry_run:
            return looked
        newest = (await self._homeserver.messages(found.room_id, limit=1)).events
        done = await self._database.write(
            store.adopt,
            found.candidate,
            found.room_id,
            version=state.version,
            alias=found.alias,
            newest=newest[0]["event_id"] if newest else None,
            claim=self._new_claim(),
            now=self._now(),
            bot=self._bot,
            new_id=self._new_id,
        )
        return looked if done else _refused(looked, adoption.in_use(found.alias))


def _read(found: Looked, state: RoomState) -> Looked:
    return replace(
        found,
        version=state.version,
        people=sum(membership in ("join", "invite") for membership in state.members.values()),
        encrypted=bool(state.state.get("m.room.encryption", {}).get("algorithm")),
    )


def _refused(found: Looked, obstacle: Obstacle) -> Looked:
    return replace(found, obstacle=obstacle)

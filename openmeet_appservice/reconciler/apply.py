"""Doing what a plan says, action by action.

State is written in order, and the first refusal ends it: what follows may rely on it. People are
independent of one another: whoever cannot be invited, let in or removed stops nobody else and is reported
at the end. Without an answer from the homeserver everything stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    DeleteAlias,
    Invite,
    Join,
    JoinBot,
    Kick,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.people import NOT_A_MEMBER
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.aliases import Aliases
from openmeet_appservice.reconciler.announcing import Announcer
from openmeet_appservice.reconciler.puppets import Puppets
from openmeet_appservice.store import puppets as puppet_store
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.puppets import Puppet
from openmeet_appservice.store.rooms import Room

_Personal = Invite | Join | Kick | Ban | Unban


@dataclass(slots=True)
class Applied:
    """What came of a plan.

    Parameters
    ----------
    refused
        The people about whom something was refused, with the first refusal of each.
    conflict
        An alias that leads to another room, and that room's id.
    interrupted
        The work stopped early because something newer is wanted.
    """

    refused: dict[str, HomeserverRefused] = field(default_factory=dict)
    conflict: tuple[str, str] | None = None
    interrupted: bool = False


class Applier:
    """Applies plans to rooms.

    Parameters
    ----------
    member_concurrency
        How many people of one room are worked on at the same time.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        aliases: Aliases,
        puppets: Puppets,
        announcer: Announcer,
        *,
        member_concurrency: int,
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._aliases = aliases
        self._puppets = puppets
        self._announcer = announcer
        self._member_concurrency = member_concurrency

    async def apply(
        self,
        room: Room,
        room_id: str,
        actions: Sequence[Action],
        *,
        is_outdated: Callable[[], bool],
        known: Mapping[str, Puppet] | None = None,
    ) -> Applied:
        """Apply *actions*, none of them `CreateRoom`, to the room.

        Parameters
        ----------
        room, room_id
            Our row of it, and its id on Matrix.
        is_outdated
            Asked between people: whether something newer is wanted, so that going on makes no sense.
        known
            The puppets among those whom *actions* are about; None: they are looked up.

        Raises
        ------
        NotReconciled
            An action that is not about single people was refused.
        HomeserverError
            The bot was not let in; there was no answer; the token is not known; or 429.
        """
        applied = Applied()
        for personal, group in groupby(actions, key=lambda action: isinstance(action, _Personal)):
            if personal:
                await self._people(
                    room, room_id, [a for a in group if isinstance(a, _Personal)], applied, is_outdated, known
                )
            else:
                for action in group:
                    await self._one_or_say_why(room, room_id, action, applied)
                    if applied.conflict is not None:
                        # What follows names the alias; the plan has to be made anew.
                        return applied
            if applied.interrupted:
                break
        return applied

    async def _one_or_say_why(self, room: Room, room_id: str, action: Action, applied: Applied) -> None:
        try:
            await self._one(room, room_id, action, applied)
        except HomeserverRefused as error:
            if isinstance(error, HomeserverLimited) or error.status == 401 or isinstance(action, JoinBot):
                raise
            what = action.event_type if isinstance(action, SetState) else action.describe()
            raise NotReconciled("homeserver_refused", f"{what}: {error}") from error

    async def _one(self, room: Room, room_id: str, action: Action, applied: Applied) -> None:
        match action:
            case JoinBot():
                await self._homeserver.join(room_id)
            case SetState(event_type=event_type, content=content, state_key=state_key):
                await self._homeserver.set_state(room_id, event_type, content, state_key)
            case PutAlias(alias=alias):
                other = await self._aliases.put(alias, room, room_id)
                applied.conflict = None if other is None else (alias, other)
            case DeleteAlias(alias=alias):
                await self._aliases.take_off(alias, room, room_id)
            case SetDirectoryVisibility(listed=listed):
                await self._set_listed(room_id, listed)
            case _:
                raise TypeError(f"{action.name} is not applied to a room")

    async def _set_listed(self, room_id: str, listed: bool) -> None:
        try:
            await self._homeserver.set_room_visibility(room_id, "public" if listed else "private")
        except HomeserverLimited:
            raise
        except HomeserverRefused as error:
            if error.status != 403:
                raise
            raise NotReconciled(
                "directory_refused",
                f"the homeserver does not let the bot publish rooms in its directory ({error}); "
                "allow it in Synapse's room_list_publication_rules",
            ) from error

    async def _people(
        self,
        room: Room,
        room_id: str,
        actions: Sequence[_Personal],
        applied: Applied,
        is_outdated: Callable[[], bool],
        known: Mapping[str, Puppet] | None,
    ) -> None:
        everybody = {action.user_id for action in actions}
        puppets = known
        if puppets is None:
            puppets = await self._database.read(puppet_store.by_user_id, room.tenant, everybody)
        people: Iterator[tuple[str, list[_Personal]]] = iter(_by_person(actions).items())

        async def work() -> None:
            for user_id, theirs in people:
                if is_outdated():
                    applied.interrupted = True
                    return
                try:
                    await self._person(room, room_id, puppets.get(user_id), theirs)
                except HomeserverLimited:
                    raise
                except HomeserverRefused as error:
                    if error.status == 401:
                        raise
                    applied.refused[user_id] = error

        await _together(work() for _ in range(min(self._member_concurrency, len(actions))))

    async def _person(
        self, room: Room, room_id: str, puppet: Puppet | None, actions: Sequence[_Personal]
    ) -> None:
        comes = any(isinstance(action, Invite | Join) for action in actions)
        if puppet is not None and comes and (not puppet.registered or puppet.profile_name is None):
            await self._puppets.ensure(puppet)
        for action in actions:
            match action:
                case Kick(user_id=user_id, reason=reason, came=came, counted=counted):
                    await self._homeserver.kick(room_id, user_id, reason)
                    # OpenMeet never listed somebody who is none of its users.
                    denied = reason == NOT_A_MEMBER and (came or puppet is None)
                    if denied or counted:
                        await self._announcer.removed(room, user_id, reason, denied=denied, counted=counted)
                case Ban(user_id=user_id, reason=reason, came=came):
                    await self._homeserver.ban(room_id, user_id, reason)
                    if came:
                        await self._announcer.removed(room, user_id, reason, denied=True, counted=False)
                case Unban(user_id=user_id):
                    await self._homeserver.unban(room_id, user_id)
                case Invite(user_id=user_id):
                    await self._homeserver.invite(room_id, user_id)
                case Join(user_id=user_id):
                    await self._homeserver.join(room_id, as_user=user_id)


def people_refused(applied: Applied) -> NotReconciled:
    """Say that something was refused about people, with the first of them."""
    user_id, first = next(iter(applied.refused.items()))
    others = f", and so it is with {len(applied.refused) - 1} more" if len(applied.refused) > 1 else ""
    return NotReconciled("member_refused", f"{user_id}: {first}{others}")


def _by_person(actions: Iterable[_Personal]) -> dict[str, list[_Personal]]:
    people: dict[str, list[_Personal]] = {}
    for action in actions:
        people.setdefault(action.user_id, []).append(action)
    return people


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of *work*; when one part fails, end the others and raise its error."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

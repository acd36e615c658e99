"""One run of the reconciler: OpenMeet writes, people meddle, everything fails, and in the end it is right.

`program` draws what happens. All of it runs on the real store, the real API, intake and client; what the
homeserver is and how time passes, the classes below `Run` say. At the end nothing fails any more and
everything is compared once again, as the service does by itself in time: then each room must be as OpenMeet
wants it (`wishes`), nothing may be left to do, and comparing again must write nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.errors import HomeserverError
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.store import sync
from openmeet_appservice.store import tables as t
from openmeet_appservice.store.rooms import IN_USE

from .program import ROLES, STATES, Step
from .stack import BOT, Stack
from .transport import Network
from .wishes import (
    State,
    Wish,
    banned_by_others,
    check_closed,
    check_open,
    puppet,
)

EXCUSES = frozenset({"member_banned", "bot_locked_out", "alias_taken"})
"""The failures that may last: people want it so, or have to undo what they did."""

_TRIED = {
    "bot_locked_out": ("/join",),
    "alias_taken": ("POST /_matrix/client/v3/createRoom", "PUT /_matrix/client/v3/directory/room"),
}
"""What is tried in vain as long as such a failure lasts, as parts of requests."""


class Run:
    """See the module.

    Parameters
    ----------
    stack
        The service. Its database is this run's own.
    version
        Of the rooms.
    stranger
        Somebody with an ordinary account.
    """

    def __init__(self, stack: Stack, version: str, stranger: str) -> None:
        self.stack = stack
        self.version = version
        self.stranger_id = stranger
        self.wishes: dict[tuple[str, str], Wish] = {}
        self.archived: list[Wish] = []
        self.names: dict[str, str] = {}
        self.unnoticed = False

    # -- what the classes below say

    patience: float
    """Seconds after which everything must have come to rest."""

    network: Network
    """What lies between the service and the homeserver."""

    def eyes(self) -> Homeserver:
        """Return a client that nothing fails for, and that nobody counts."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        raise NotImplementedError

    async def stranger_does(self, what: str, room_id: str) -> None:
        """Have the stranger join or leave."""
        raise NotImplementedError

    async def rooms_made(self) -> set[str]:
        """Return the ids of all rooms that the bot has been in since the run began."""
        raise NotImplementedError

    async def making_takes(self, pause: float) -> None:
        """Let the homeserver take so many seconds for each step of making a room."""
        raise NotImplementedError

    # -- the whole

    async def play(self, steps: Sequence[Step]) -> None:
        """Do all steps, and see that everything comes right; raises AssertionError where it does not."""
        try:
            await self.stack.begin()
            for name, given in steps:
                await getattr(self, name)(**given)
            await self._conclude()
        finally:
            await self.stack.end()
            await self.stack.database.close()

    # -- OpenMeet writes

    async def put(
        self,
        place: tuple[str, str],
        spec: dict[str, Any],
        members: dict[str, Any] | None,
        seconds: float,
    ) -> None:
        kind, slug = place
        wanted = _allowed(kind, spec)
        wish = self.wishes.get(place)
        if wish is None or wish.archived:
            wish = Wish(self.stack.tenant, kind, slug, wanted)
        body = dict(wanted)
        if members is not None:
            body["members"] = _listed(kind, members)
        assert await self.stack.call("PUT", wish.path, body) is not None
        self.wishes[place] = wish
        wish.spec = wanted
        wish.encrypted_once |= bool(wanted.get("encrypted"))
        if members is not None:
            wish.members = _standings(kind, members)
        await self.pass_time(seconds)

    async def patch(self, place: tuple[str, str], changes: dict[str, Any], seconds: float) -> None:
        if (wish := self.wishes.get(place)) is not None:
            changed = _allowed(wish.kind, {**wish.spec, **changes})
            merge = {key: changed.get(key) for key in {*changes, "access"}}
            if await self.stack.call("PATCH", wish.path, merge) is not None:
                wish.spec = changed
                wish.encrypted_once |= bool(changed.get("encrypted"))
        await self.pass_time(seconds)

    async def delete(self, place: tuple[str, str], seconds: float) -> None:
        wish = self.wishes.get(place)
        if wish and await self.stack.call("DELETE", wish.path) is not None and not wish.archived:
            wish.archived = True
            self.archived.append(wish)
        await self.pass_time(seconds)

    async def put_members(self, place: tuple[str, str], members: dict[str, Any], seconds: float) -> None:
        if (wish := self.wishes.get(place)) is not None:
            body = {"members": _listed(wish.kind, members)}
            if await self.stack.call("PUT", f"{wish.path}/members", body) is not None:
                wish.members = _standings(wish.kind, members)
        await self.pass_time(seconds)

    async def patch_members(
        self, place: tuple[str, str], members: dict[str, Any], gone: list[str], seconds: float
    ) -> None:
        if (wish := self.wishes.get(place)) is not None:
            some = {user: member for user, member in members.items() if user not in gone}
            body = {"upsert": _listed(wish.kind, some), "remove": gone}
            if await self.stack.call("PATCH", f"{wish.path}/members", body) is not None:
                wish.members.update(_standings(wish.kind, some))
                for user in gone:
                    wish.members.pop(user, None)
        await self.pass_time(seconds)

    async def change_one_member(
        self, place: tuple[str, str], user: str, member: dict[str, Any] | None, seconds: float
    ) -> None:
        if (wish := self.wishes.get(place)) is not None:
            path = f"{wish.path}/members/{user}"
            if member is None:
                if await self.stack.call("DELETE", path) is not None:
                    wish.members.pop(user, None)
            else:
                standing = _standings(wish.kind, {user: member})[user]
                if await self.stack.call("PUT", path, standing) is not None:
                    wish.members[user] = standing
        await self.pass_time(seconds)

    async def put_user(self, user: str, name: str) -> None:
        assert await self.stack.call("PUT", f"users/{user}", {"display_name": name}) is not None
        self.names[user] = name

    # -- people meddle

    async def change_state(
        self, place: tuple[str, str], who: str | None, kind: str, number: int, seconds: float
    ) -> None:
        """Somebody with the power, or with the bot's token, changes the room."""
        # What the bot does is taken for the service's own work.
        self.unnoticed |= who is None

        async def change(homeserver: Homeserver, room_id: str) -> None:
            content = STATES[kind][number]
            if kind == "power_levels":
                before = await homeserver.state_event(room_id, "m.room.power_levels") or {}
                added = {self._puppet(user): level for user, level in content["users"].items()}
                content = {**before, **content, "users": {**before.get("users", {}), **added}}
            as_user = None if who is None else self._puppet(who)
            await homeserver.set_state(room_id, f"m.room.{kind}", content, as_user=as_user)

        await self._meddle(place, change, seconds)

    async def change_member(
        self, place: tuple[str, str], who: str | None, what: str, whom: str | None, seconds: float
    ) -> None:
        """Somebody invites, removes or bans somebody, or comes or goes; the bot only goes."""
        actor = None if who is None else self._puppet(who)

        async def change(homeserver: Homeserver, room_id: str) -> None:
            if what in ("leave", "join"):
                await getattr(homeserver, what)(room_id, as_user=actor)
            elif actor is not None:
                target = self.stranger_id if whom is None else self._puppet(whom)
                await getattr(homeserver, what)(room_id, target, as_user=actor)

        await self._meddle(place, change, seconds)

    async def stranger(self, place: tuple[str, str], what: str, seconds: float) -> None:
        """Somebody whom OpenMeet does not know comes or goes."""

        async def change(homeserver: Homeserver, room_id: str) -> None:
            await self.stranger_does(what, room_id)

        await self._meddle(place, change, seconds)

    async def change_directory(self, place: tuple[str, str], what: str, seconds: float) -> None:
        """Somebody with the bot's token changes where the room is found."""
        self.unnoticed = True

        async def change(homeserver: Homeserver, room_id: str) -> None:
            alias = self.wishes[place].alias
            match what:
                case "delete":
                    await homeserver.delete_alias(alias)
                case "take":
                    await homeserver.put_alias(alias, room_id)
                case "misplace":
                    await homeserver.put_alias(alias, await self._room_of_another(place))
                case "list":
                    await homeserver.set_room_visibility(room_id, "public")
                case _:
                    await homeserver.set_room_visibility(room_id, "private")

        await self._meddle(place, change, seconds)

    async def _room_of_another(self, place: tuple[str, str]) -> str:
        """Return a room that is not of this place, if there is one."""
        for other, wish in sorted(self.wishes.items()):
            if other != place and (room := (await self._entity(wish))[1]) is not None:
                return str(room.room_id)
        return "!nowhere"

    async def _meddle(
        self,
        place: tuple[str, str],
        do: Callable[[Homeserver, str], Awaitable[None]],
        seconds: float,
    ) -> None:
        if (wish := self.wishes.get(place)) is not None:
            _, room = await self._entity(wish)
            # The room has its rules for people too, and perhaps it is not there.
            with contextlib.suppress(HomeserverError):
                await do(self.eyes(), "!nowhere" if room is None else room.room_id)
        await self.pass_time(seconds)

    def _puppet(self, user: str) -> str:
        return puppet(self.stack.tenant, user)

    # -- the homeserver and what leads to it

    async def requests_fail(self, faults: list[str | None], seconds: float, aim: str = "") -> None:
        """Faults befall the next requests, or the next of one kind."""
        self.network.faults, self.network.aim = deque(faults), aim
        await self.pass_time(seconds)

    async def goes_down(self, seconds: float) -> None:
        """The homeserver answers nothing for a while."""
        self.network.is_down = True
        await self.pass_time(seconds)
        self.network.is_down = False

    async def synapse_restarts(self) -> None:
        """The homeserver stops in the middle of all it does, and begins again."""
        self.network.restart()
        self.stack.outbox.lose()

    async def pushing(self, held: bool, loses: bool) -> None:
        """Synapse pushes what happens, or thinks that we are down, and perhaps loses what waits."""
        self.stack.outbox.held = held
        if loses:
            self.stack.outbox.lose()

    # -- time and processes

    async def time_passes(self, seconds: float) -> None:
        await self.pass_time(seconds)

    async def crash(self, steps: int, seconds: float) -> None:
        """A process dies somewhere on its way, and another begins."""
        life = self.stack.processes[0].life
        life.steps_left = steps
        await self.pass_time(seconds)
        life.end()
        await self.stack.renew()

    async def restart(self, timeout: float) -> None:
        """A process is stopped in order, and another begins."""
        await self.stack.stop(self.stack.processes[0], timeout)
        await self.stack.renew()

    async def database_fails(self, transactions: int, late: bool, seconds: float) -> None:
        database = self.stack.processes[0].database
        database.fails_in, database.fails_late = transactions, late
        await self.pass_time(seconds)

    # -- the end

    async def _conclude(self) -> None:
        self.network.faults.clear()
        await self.making_takes(0)
        self.stack.outbox.held = False
        for process in self.stack.processes:
            process.database.fails_in = -1
            process.life.steps_left = None
        await self.stack.renew()
        if self.unnoticed or self.stack.outbox.has_lost:
            await self._compare_all()
        standing = await self._come_to_rest()
        for wish in [*self.wishes.values(), *self.archived]:
            await self._check(wish, standing)
        await self._check_users()
        await self._check_rooms()
        self.network.writes.clear()
        await self._compare_all()
        again = await self._come_to_rest()
        assert again == standing
        # Where people have to do something first, it is tried again and again.
        tried = [one for code in standing.values() for one in _TRIED.get(code or "", ())]
        written = [one for one in self.network.writes if not any(part in one for part in tried)]
        assert written == []

    async def _compare_all(self) -> None:
        """Have everything compared, as the service does by itself in time."""

        def poke(connection: Connection) -> None:
            for row in connection.execute(select(t.sync.c.tenant, t.sync.c.subject, t.sync.c.ref)).all():
                sync.poke(connection, row.tenant, row.subject, row.ref, now=self.stack.now())

        await self.stack.database.write(poke)
        self.stack.wakeups.wake("reconcile")

    async def _come_to_rest(self) -> dict[str, str | None]:
        """Wait until nothing is under way; return the last error's code of each row, by its id."""
        since, pause, clock = self.stack.now(), 0.5, asyncio.get_running_loop().time
        until = clock() + self.patience
        while True:
            await self.pass_time(pause)
            rows = await self.stack.database.read(lambda c: c.execute(select(t.sync)).all())
            busy = [row for row in rows if row.due_at is not None and not _is_excused(row.error, since)]
            if not busy and not self.network.is_busy and not self.stack.outbox.events:
                return {row.ref: None if row.error is None else _code(row.error) for row in rows}
            pause = min(60, pause * 1.5)
            assert clock() < until, [(row.subject, row.ref, row.attempts, row.error) for row in busy]

    async def _check(self, wish: Wish, standing: dict[str, str | None]) -> None:
        ref, room = await self._entity(wish)
        assert ref is not None
        target = await self.eyes().resolve_alias(wish.alias)
        if standing[ref] == "alias_taken":
            assert target not in (None, None if room is None else room.room_id)
            return
        assert (room is not None) or not wish.is_open
        if room is None:
            return
        if standing[ref] == "bot_locked_out":
            return
        state = await self._state(room.room_id)
        assert state["m.room.member", BOT]["content"]["membership"] == "join"
        listed = await self.eyes().room_visibility(room.room_id) == "public"
        if wish.is_open:
            check_open(wish, self.version, state, listed=listed, leads_here=target == room.room_id)
            excused = bool(banned_by_others(wish, state))
            assert standing[ref] == ("member_banned" if excused else None)
        else:
            check_closed(state, self.version, listed=listed)
            assert target != room.room_id
        if not wish.archived:
            reconciler = self.stack.processes[0].reconciler
            found = await reconciler.explain(self.stack.tenant, EntityKind(wish.kind), wish.slug)
            assert found is not None
            assert found.plan.actions == ()

    async def _check_users(self) -> None:
        for user, name in self.names.items():
            assert await self.eyes().display_name(self._puppet(user)) == name

    async def _check_rooms(self) -> None:
        """Check that each entity has at most one room, and that all others are shut."""
        rows = await self.stack.database.read(lambda c: c.execute(select(t.rooms)).all())
        used = [row.entity_ref for row in rows if row.state in IN_USE]
        assert len(used) == len(set(used))
        assert [row for row in rows if row.state == "orphan"] == []
        in_use = {row.room_id for row in rows if row.state in IN_USE}
        # Of a second room nobody knows when Synapse has lost the event that would have told.
        unknown = self.stack.outbox.never_told - {row.room_id for row in rows}
        for room_id in await self.rooms_made() - in_use - unknown:
            state = await self._state(room_id)
            if not state or state["m.room.member", BOT]["content"]["membership"] != "join":
                continue
            assert ("m.room.power_levels", "") in state, f"{room_id} was left half made"
            check_closed(state, self.version, listed=await self.eyes().room_visibility(room_id) == "public")

    async def _state(self, room_id: str) -> State:
        events = await self.eyes().room_state(room_id)
        return {(event["type"], event["state_key"]): event for event in events}

    async def _entity(self, wish: Wish) -> tuple[str | None, Any]:
        """Return our id of what was wished, and its room in use."""

        def read(connection: Connection) -> tuple[str | None, Any]:
            entity = connection.execute(
                select(t.entities.c.id, t.entities.c.archived_at)
                .where(t.entities.c.kind == wish.kind, t.entities.c.slug == wish.slug)
                .order_by(t.entities.c.created_at, t.entities.c.id)
            ).all()
            mine = [row for row in entity if (row.archived_at is not None) == wish.archived]
            if wish.archived:
                mine = mine[self._times_archived(wish) :]
            ref = mine[0].id
            room = connection.execute(
                select(t.rooms).where(t.rooms.c.entity_ref == ref, t.rooms.c.state.in_(IN_USE))
            ).first()
            return ref, room if room is not None and room.room_id is not None else None

        return await self.stack.database.read(read)

    def _times_archived(self, wish: Wish) -> int:
        same = [one for one in self.archived if (one.kind, one.slug) == (wish.kind, wish.slug)]
        return next(number for number, one in enumerate(same) if one is wish)


def _is_excused(error: str | None, since: int) -> bool:
    """Tell whether a row has failed since then, and may."""
    found = sync.read_error(error)
    return found is not None and found.code in EXCUSES and found.at >= since


def _code(error: str) -> str:
    found = sync.read_error(error)
    assert found is not None
    return found.code


def _standings(kind: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """Return what was drawn as that kind knows it."""
    found = {user: {**member, "role": ROLES[kind][member["role"]]} for user, member in drawn.items()}
    if kind == "group":
        for standing in found.values():
            standing.pop("status", None)
    return found


def _listed(kind: str, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"user": user, **standing} for user, standing in _standings(kind, drawn).items()]


def _allowed(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return *spec* as that kind may have it."""
    allowed = dict(spec)
    if kind == "group" and allowed["status"] == "cancelled":
        allowed["status"] = "published"
    if allowed["visibility"] == "private" and allowed.get("access") == "anyone":
        del allowed["access"]
    return allowed

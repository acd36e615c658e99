"""Telling OpenMeet what became of what it wanted: each change once, in the transaction that records it.

What an event's or group's row of ``sync`` says was told last::

             room agrees            it does not, and waiting will hardly help
    nothing ────────────▶ ready ──────────────────────────────────────────────▶ degraded
       ▲                    │ ▲                    room agrees                     │ ▲
       │ unpublished        │ ├────────────────────────────────────────────────────┘ │
       └────────────────────┤ └─────────▶ lacking ───────────────────────────────────┘
                            │    it agrees but for something that holds nothing back
                            └──deleted, and the room closed──▶ archived

*lacking* is told as *degraded*, but only of a room that is ready: a broken picture keeps nobody out. Whatever
failed for an outage is not told: that befalls everything at once, and ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Concatenate, ParamSpec, TypeGuard

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import Now, to_rfc3339
from openmeet_appservice.domain.rooms import is_open
from openmeet_appservice.domain.webhook_types import (
    MEMBER_DENIED,
    ROOM_ARCHIVED,
    ROOM_DEGRADED,
    ROOM_READY,
    ROOM_REPLACED,
    USER_READY,
)
from openmeet_appservice.reconciler.failures import LIMITED, OUTAGES, Failure
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.store import (
    checks,
    entities,
    erasing,
    kicks,
    member_errors,
    notices,
    puppets,
    rooms,
    routes,
    sync,
    users,
)
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.puppets import Puppet
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.sync import Announced, Lease, SyncError
from openmeet_appservice.store.wakeups import Wakeups

PATIENCE = 3
"""After so many failed attempts in a row it is told, where waiting may help."""

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Success:
    """What to tell after Synapse was seen to agree (None: nothing), and what was then told last."""

    tell: str | None
    announced: Announced | None


def after_success(
    announced: Announced | None, *, is_open: bool, archived: bool, has_room: bool, is_whole: bool = True
) -> Success:
    """Decide what to tell once Synapse agrees with what is wanted of an event or group.

    Parameters
    ----------
    announced
        What was told last.
    is_open
        Whether its room is to be open; see `domain.rooms.is_open`.
    archived
        OpenMeet deleted it.
    has_room
        It has a room, whose id is known.
    is_whole
        Nothing at all is lacking.
    """
    if not has_room:
        return Success(None, announced)
    if archived:
        return Success(None if announced == "archived" else ROOM_ARCHIVED, "archived")
    if is_open and announced == "lacking" and not is_whole:
        return Success(None, announced)
    if is_open:
        return Success(None if announced == "ready" else ROOM_READY, "ready")
    # Opened again, it is told again.
    return Success(None, None)


def tells_failure(announced: Announced | None, failure: Failure, *, attempts: int) -> bool:
    """Decide whether to tell of a failure.

    Parameters
    ----------
    attempts
        How many in a row have failed now; 0 when something newer is wanted.
    """
    if announced == "degraded" or failure.code in OUTAGES:
        return False
    return attempts >= (1 if failure.lasting else PATIENCE)


def tells_lacking(lacking: SyncError | None) -> TypeGuard[SyncError]:
    """Decide whether to tell of what is lacking in a room that is as it should be otherwise."""
    if lacking is None or lacking.code in OUTAGES:
        return False
    return lacking.attempts is None or lacking.attempts >= PATIENCE


class Announcer:
    """Records results, and stores the notices of what they change.

    Parameters
    ----------
    wakeups
        Woken for ``notify``.
    new_id
        Makes the ids of webhooks.
    """

    def __init__(self, database: Database, wakeups: Wakeups, *, now: Now, new_id: NewId) -> None:
        self._database = database
        self._wakeups = wakeups
        self._now = now
        self._new_id = new_id

    async def finish(self, lease: Lease, result: Result) -> None:
        """Record how far Synapse agrees, unless the lease was lost."""
        await self._write(_finish, lease, result, now=self._now(), new_id=self._new_id)

    async def fail(self, lease: Lease, failure: Failure, *, now: int, retry_at: int) -> None:
        """Record why it does not, and when to try again, unless the lease was lost.

        *now* and *retry_at* are milliseconds since the epoch.
        """
        await self._write(_fail, lease, failure, retry_at, now=now, new_id=self._new_id)

    async def erase(self, tenant: str, ref: str, purged: Collection[str]) -> bool:
        """Erase what was deleted for good, and tell that its room is closed unless that was told.

        False where it has another room than those that are *purged*; see `store.erasing.finish`.
        """
        told, is_done = await self._database.write(
            _erase, tenant, ref, purged, now=self._now(), new_id=self._new_id
        )
        self._told(told)
        return is_done

    async def named(self, puppet: Puppet) -> bool:
        """Record that Synapse has accepted the puppet's name; see `store.puppets.set_profile_name`.

        Returns False when another process has set one since *puppet* was read.
        """
        told, before = await self._database.write(_named, puppet, now=self._now(), new_id=self._new_id)
        self._told(told)
        return before == puppet.profile_name

    async def removed(self, room: Room, user_id: str, reason: str, *, denied: bool, counted: bool) -> None:
        """Record that somebody was removed.

        Parameters
        ----------
        denied
            Nobody took the right to be inside away, there was none: OpenMeet is told.
        counted
            The person may come back, so it is remembered for a while.
        """
        await self._write(
            _removed,
            room,
            user_id,
            reason,
            denied=denied,
            counted=counted,
            now=self._now(),
            new_id=self._new_id,
        )

    async def _write(
        self, do: Callable[Concatenate[Connection, P], int], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self._told(await self._database.write(do, *args, **kwargs))

    def _told(self, number: int) -> None:
        if number:
            self._wakeups.wake("notify")


def _finish(connection: Connection, lease: Lease, result: Result, *, now: int, new_id: NewId) -> int:
    standing = sync.finish(connection, lease, observed=result.generation, lacking=result.lacking)
    if standing is None or lease.subject != "entity":
        return 0
    checks.forget(connection, lease)
    if not result.is_part:
        member_errors.forget(connection, lease.tenant, lease.ref)
    if standing.announced == "ready" and result.is_part:
        # Only members have changed; whatever else has is still due.
        return 0
    entity = entities.get(connection, lease.tenant, lease.ref)
    if entity is None or standing.generation > result.generation:
        # Of what is wanted now it is not known whether Synapse agrees.
        return 0
    room, archived = _room(connection, entity), entity.archived_at is not None
    after = after_success(
        standing.announced,
        is_open=is_open(entity.status, archived=archived),
        archived=archived,
        has_room=room is not None,
        is_whole=result.lacking is None,
    )
    told = 0
    if room is not None:
        told = _tell_replaced(connection, room, now, new_id)
        if after.tell is not None:
            more = {"room_version": room.room_version} if after.tell == ROOM_READY else {}
            told += _tell(connection, room, after.tell, more, now, new_id)
    if after.announced != standing.announced:
        sync.set_announced(connection, lease, after.announced)
    if room is not None and after.announced == "ready" and tells_lacking(result.lacking):
        told += _tell(connection, room, ROOM_DEGRADED, {"error": _shown(result.lacking)}, now, new_id)
        sync.set_announced(connection, lease, "lacking")
    return told


def _fail(
    connection: Connection, lease: Lease, failure: Failure, retry_at: int, *, now: int, new_id: NewId
) -> int:
    error = SyncError(failure.code, failure.detail, now)
    # Of an outage and of a homeserver that asks for patience the next attempt may begin as this one did.
    whole = failure.code not in (*OUTAGES, LIMITED)
    if not sync.fail(connection, lease, error, retry_at=retry_at, whole=whole) or lease.subject != "entity":
        return 0
    standing = sync.standing(connection, lease)
    route = routes.of_entity(connection, lease.tenant, lease.ref)
    entity = entities.get(connection, lease.tenant, lease.ref)
    if route is None or entity is None:
        return 0
    room = _room(connection, entity)
    told = 0 if room is None else _tell_replaced(connection, room, now, new_id)
    if tells_failure(standing.announced, failure, attempts=standing.attempts):
        error = replace(error, attempts=standing.attempts, next_at=retry_at)
        data = {"room": route.shown(), "error": _shown(error)}
        told += notices.add(connection, lease.tenant, ROOM_DEGRADED, data, now=now, new_id=new_id)
        sync.set_announced(connection, lease, "degraded")
    return told


def _shown(error: SyncError) -> dict[str, object]:
    return {
        "code": error.code,
        "detail": error.detail,
        "at": to_rfc3339(error.at),
        "attempts": error.attempts,
        "next_attempt_at": None if error.next_at is None else to_rfc3339(error.next_at),
    }


def _erase(
    connection: Connection, tenant: str, ref: str, purged: Collection[str], *, now: int, new_id: NewId
) -> tuple[int, bool]:
    """Return how many notices there are of it, and whether it is done."""
    entity = entities.get(connection, tenant, ref)
    if entity is None:
        return 0, True
    room = rooms.latest(connection, tenant, ref)
    tell = room is not None and sync.announced(connection, tenant, "entity", ref) != "archived"
    data = _archived_data(connection, tenant, room) if tell else None
    if not erasing.finish(connection, entity, purged):
        return 0, False
    if data is None:
        return 0, True
    return notices.add(connection, tenant, ROOM_ARCHIVED, data, now=now, new_id=new_id), True


def _archived_data(connection: Connection, tenant: str, room: Room | None) -> Mapping[str, object] | None:
    route = None if room is None else routes.of_room(connection, tenant, room.ref)
    return None if route is None else {"room": route.shown()}


def _named(connection: Connection, puppet: Puppet, *, now: int, new_id: NewId) -> tuple[int, str | None]:
    """Return how many notices there are of it, and the name that Synapse had accepted before."""
    before = puppets.set_profile_name(connection, puppet, puppet.display_name)
    user = users.get(connection, puppet.tenant, puppet.ref) if before is None else None
    if user is None:
        return 0, before
    data = {"user": {"user": user.slug, "external_id": user.external_id, "user_id": user.user_id}}
    return notices.add(connection, puppet.tenant, USER_READY, data, now=now, new_id=new_id), before


def _removed(
    connection: Connection,
    room: Room,
    user_id: str,
    reason: str,
    *,
    denied: bool,
    counted: bool,
    now: int,
    new_id: NewId,
) -> int:
    if counted:
        kicks.note(connection, room.tenant, room.entity_ref, user_id, now=now)
    if not denied:
        return 0
    user = users.by_user_id(connection, user_id, room.tenant)
    member = {
        "user_id": user_id,
        "user": user and user.slug,
        "external_id": user and user.external_id,
    }
    return _tell(connection, room, MEMBER_DENIED, {"member": member, "reason": reason}, now, new_id)


def _tell_replaced(connection: Connection, room: Room, now: int, new_id: NewId) -> int:
    """Tell which room this one took the place of, unless that was told."""
    if room.replaces is None:
        return 0
    rooms.forget_replaced(connection, room)
    former = rooms.get(connection, room.tenant, room.replaces)
    if former is None:
        return 0
    replaced = {"room_id": former.room_id, "log_id": former.log_id}
    return _tell(connection, room, ROOM_REPLACED, {"replaced": replaced}, now, new_id)


def _tell(
    connection: Connection, room: Room, type: str, more: Mapping[str, object], now: int, new_id: NewId
) -> int:
    route = routes.of_room(connection, room.tenant, room.ref)
    if route is None:
        return 0
    data = {"room": route.shown(), **more}
    return notices.add(connection, room.tenant, type, data, now=now, new_id=new_id)


def _room(connection: Connection, entity: Entity) -> Room | None:
    """Return the room that the entity uses, once its id is known."""
    found = rooms.in_use(connection, entity.tenant, entity.ref)
    return None if found is None or found.room_id is None else found

"""What the writes of desired state have in common: their query, waiting, and the status they answer with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from openmeet_appservice.domain.moments import from_rfc3339
from openmeet_appservice.provisioning.parts import Parts, check_as_of
from openmeet_appservice.provisioning.states import SETTLED, SyncState
from openmeet_appservice.provisioning.texts import Moment
from openmeet_appservice.web.models import ApiModel
from openmeet_appservice.web.routes import Request

MAX_WAIT: Final = 30
LOOK_EVERY: Final = 1.0
"""Seconds between two looks while waiting: a wake-up may be lost."""

HELD: Final = "mass_removal_held"
"""The fault that only a person can end, so that nobody waits for it."""


class WriteQuery(ApiModel):
    """The query of a write of desired state."""

    as_of: Moment | None = Field(
        default=None,
        description="When OpenMeet read this. Older than the last accepted: nothing changes, and the "
        "answer says `superseded`.",
    )
    wait: int = Field(default=0, ge=0, le=MAX_WAIT, description="Seconds to wait for Synapse to agree.")


class RoomWriteQuery(WriteQuery):
    """The query of a write that can remove people from a room."""

    confirm_removals: bool = Field(
        default=False,
        description="Remove people even if they are more than 20 and more than 20 % of the room.",
    )


class DeleteQuery(WriteQuery):
    """The query of a deletion."""

    purge: bool = Field(
        default=False,
        description="Leave nothing of it: its rooms are deleted from the homeserver, and what is stored and "
        "not delivered yet is dropped.",
    )


@dataclass(frozen=True, slots=True)
class Write:
    """Under which conditions, and when, something is written.

    *as_of* and *now* are milliseconds since the epoch, *if_match* is the raw header.
    """

    now: int
    as_of: int | None
    if_match: str | None
    confirmed: bool = False


def write_of(parts: Parts, request: Request) -> Write:
    """Return the conditions of a request; raises `Invalid` where ``as_of`` lies in the future."""
    query = request.query_as(WriteQuery)
    now = parts.now()
    return Write(
        now=now,
        as_of=check_as_of(query.as_of, now),
        if_match=request.if_match,
        confirmed=isinstance(query, RoomWriteQuery) and query.confirm_removals,
    )


async def settle(
    parts: Parts, request: Request, since: int, look: Callable[[], Awaitable[SyncState | None]]
) -> None:
    """Wait as long as the request asks to, until Synapse agrees or waiting has become pointless.

    Parameters
    ----------
    since
        When the write was done (milliseconds since the epoch): earlier faults say nothing about it.
    look
        Reads the state; None when there is nothing any more that could have one.
    """
    end = parts.clock() + request.query_as(WriteQuery).wait
    while True:
        ticket = parts.wakeups.ticket("reconciled")
        left = end - parts.clock()
        if left <= 0 or _is_over(await look(), since):
            return
        await parts.wakeups.wait("reconciled", ticket, min(left, LOOK_EVERY))


def _is_over(state: SyncState | None, since: int) -> bool:
    if state is None or state.phase in SETTLED:
        return True
    error = state.last_error
    if error is None:
        return False
    if state.observed_generation >= state.generation:
        # All of this is done but for what comes from elsewhere, such as a picture.
        return True
    return error.code == HELD and from_rfc3339(error.at) >= since


def http_status(state: SyncState, *, created: bool, superseded: bool) -> int:
    """Return 200 or 201 when there is nothing to wait for, else 202."""
    if superseded:
        return 200
    if state.phase in SETTLED:
        return 201 if created else 200
    return 202

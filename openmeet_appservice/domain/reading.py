"""Reading a room's state as the homeserver sends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from openmeet_appservice.domain.arrival import CLAIM
from openmeet_appservice.domain.people import BANNED_BEFORE
from openmeet_appservice.domain.rooms import JsonObject

_FIRST_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class RoomState:
    """What a room's whole state says that matters here.

    *claim* is ours (`arrival.CLAIM`) in ``m.room.create``, *creator* who sent that event, *banned_by* who
    banned each of those who are (empty: nobody knows), *ban_reasons* why; the other fields are those of
    `rooms.ActualRoom`.
    """

    version: str
    claim: str | None
    creator: str | None
    members: Mapping[str, str]
    state: Mapping[str, JsonObject]
    banned_by: Mapping[str, str]
    ban_reasons: Mapping[str, str]


def read_state(events: Iterable[JsonObject]) -> RoomState:
    """Read the answer of ``GET /rooms/{roomId}/state``.

    Events of odd shapes (anybody with the power can write them) count as absent.
    """
    members: dict[str, str] = {}
    state: dict[str, JsonObject] = {}
    banned_by: dict[str, str] = {}
    reasons: dict[str, str] = {}
    creator: str | None = None
    for event in events:
        kind, state_key, content = event.get("type"), event.get("state_key"), event.get("content")
        if not (isinstance(kind, str) and isinstance(content, Mapping)):
            continue
        if kind == "m.room.member" and isinstance(state_key, str):
            members[state_key] = _text(content.get("membership")) or "leave"
            if members[state_key] == "ban":
                reasons[state_key] = _text(content.get("reason")) or ""
                # What the bot carried over from the room before is somebody else's ban.
                carried = reasons[state_key] == BANNED_BEFORE
                banned_by[state_key] = "" if carried else _text(event.get("sender")) or ""
        elif state_key == "":
            state[kind] = content
            if kind == "m.room.create":
                creator = _text(event.get("sender"))
    create = state.get("m.room.create", {})
    return RoomState(
        version=_text(create.get("room_version")) or _FIRST_VERSION,
        claim=_text(create.get(CLAIM)),
        creator=creator,
        members=members,
        state=state,
        banned_by=banned_by,
        ban_reasons=reasons,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

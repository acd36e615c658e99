"""Why an action is in the plan, in words for people: what Matrix has and what OpenMeet wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    JoinBot,
    Kick,
    Leave,
    MarkDirect,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.people import CAME_BACK
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom

_MAX_SHOWN: Final = 80
_MAX_DIFFERENCES: Final = 5
_VALUES: Final[Mapping[str, tuple[str, str]]] = {
    "m.room.name": ("name", "name"),
    "m.room.topic": ("topic", "topic"),
    "m.room.avatar": ("avatar", "url"),
    "m.room.canonical_alias": ("canonical alias", "alias"),
    "m.room.join_rules": ("join rule", "join_rule"),
    "m.room.history_visibility": ("history visibility", "history_visibility"),
    "m.room.guest_access": ("guest access", "guest_access"),
    "m.room.encryption": ("encryption", "algorithm"),
}
"""By type of state event: what people call it, and the key that says it."""


def reason(action: Action, desired: DesiredRoom, actual: ActualRoom | None) -> str:
    """Return why *action* is to be done to the room that is *actual* (None: there is none)."""
    if actual is None or isinstance(action, CreateRoom):
        return "there is no room yet"
    match action:
        case JoinBot():
            return "the bot is not in the room"
        case SetState(event_type="m.room.power_levels", content=content):
            return _levels(actual.content("m.room.power_levels"), content)
        case SetState(event_type=event_type, content=content):
            return _state(event_type, actual.content(event_type), content)
        case PutAlias():
            return "wanted by OpenMeet, and leads nowhere on Matrix"
        case DeleteAlias(alias=alias):
            if alias == desired.alias:
                return "it leads to a room that is history"
            return "leads to the room on Matrix, not wanted by OpenMeet"
        case SetDirectoryVisibility(listed=listed):
            return _differ("directory", _listed(not listed), _listed(listed))
        case _:
            return _person(action, desired, actual)


def _person(
    action: Invite | Join | Kick | Ban | Unban | Leave | MarkDirect, desired: DesiredRoom, actual: ActualRoom
) -> str:
    now = actual.members.get(action.user_id, "not in the room")
    match action:
        case Invite() | Join():
            return f"belongs into the room, and is on Matrix: {now}"
        case Kick() if desired.wanted is not Wanted.OPEN:
            return "the room is to be closed"
        case Kick():
            return f"does not belong into the room, and is on Matrix: {now}"
        case Ban(reason=because) if because == CAME_BACK:
            return "does not belong into the room, and came back again and again"
        case Ban():
            return f"banned on OpenMeet, and is on Matrix: {now}"
        case Unban():
            return "banned by the bot, and no longer on OpenMeet"
        case Leave():
            return "the room is to be closed"
        case MarkDirect(marked=marked):
            return "not among the user's direct chats yet" if marked else "the room is to be closed"


def _state(event_type: str, now: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    what, key = _VALUES.get(event_type, (event_type, ""))
    if not key:
        return _differ(what, dict(now), dict(wanted))
    if now.get(key) == wanted.get(key):
        others = sorted(name for name in now.keys() | wanted.keys() if now.get(name) != wanted.get(name))
        return f"{what} differs in {', '.join(others)}"
    return _differ(what, now.get(key), wanted.get(key))


def _levels(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the levels that differ, people first, some of them."""
    differences = []
    for part in ("users", "events"):
        has, wants = _object(now.get(part)), _object(wanted.get(part))
        names = sorted(str(name) for name in has.keys() | wants.keys() if has.get(name) != wants.get(name))
        differences += [f"{name} {_of(has.get(name))} instead of {_of(wants.get(name))}" for name in names]
    differences += [
        f"{name} {_of(now.get(name))} instead of {_of(level)}"
        for name, level in sorted(wanted.items())
        if name not in ("users", "events") and now.get(name) != level
    ]
    shown = differences[:_MAX_DIFFERENCES]
    more = len(differences) - len(shown)
    return "power levels differ: " + "; ".join([*shown, *([f"and {more} more"] if more else [])])


def _differ(what: str, now: object, wanted: object) -> str:
    return f"{what} differs: {_shown(now)} on Matrix, {_shown(wanted)} wanted by OpenMeet"


def _shown(value: object) -> str:
    if value in (None, ""):
        return "nothing"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _of(level: object) -> str:
    if isinstance(level, Mapping):
        return repr(dict(level))
    return "none" if level is None else str(level)


def _listed(listed: bool) -> str:
    return "listed" if listed else "not listed"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

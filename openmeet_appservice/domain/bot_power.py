"""What the bot has the power for in a room as it is: before version 12 it can have been lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    Invite,
    Join,
    Kick,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.findings import Note
from openmeet_appservice.domain.people import listed_now
from openmeet_appservice.domain.power_levels import bot_level, supports_creator_power
from openmeet_appservice.domain.rooms import ActualRoom

_POWER: Final = "m.room.power_levels"
_DEFAULTS: Final[Mapping[str, int]] = {
    "state_default": 50,
    "invite": 0,
    "kick": 50,
    "ban": 50,
    "users_default": 0,
}
"""What Matrix takes for levels that the event does not give (``m.room.power_levels``)."""

_MAX_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class WithinReach:
    """The actions that the bot has the power for, those *beyond* it, and a note where there are any."""

    actions: tuple[Action, ...]
    beyond: tuple[Action, ...] = ()
    note: Note | None = None


def within_reach(actions: Sequence[Action], actual: ActualRoom, bot: str) -> WithinReach:
    """Leave out what the bot has no power for.

    From version 12 on, nothing: its creator stands above all levels. Before, a room without power levels
    is its creator's.
    """
    content = actual.content(_POWER)
    if supports_creator_power(actual.version) or not content:
        return WithinReach(tuple(actions))
    listed = listed_now(actual)
    own = listed.get(bot, _level(content, "users_default"))
    beyond = {index: need for index, a in enumerate(actions) if (need := _need(a, content, actual)) > own}
    if not beyond:
        return WithinReach(tuple(actions))
    uninvited = {
        action.user_id
        for index, action in enumerate(actions)
        if index in beyond and isinstance(action, Invite)
    }
    left = [
        index in beyond or (isinstance(action, Join) and action.user_id in uninvited)
        for index, action in enumerate(actions)
    ]
    return WithinReach(
        tuple(action for action, is_left in zip(actions, left, strict=True) if not is_left),
        tuple(action for action, is_left in zip(actions, left, strict=True) if is_left),
        _demoted(bot, own, max(beyond.values()), listed),
    )


def _demoted(bot: str, own: int, need: int, listed: Mapping[str, int]) -> Note:
    mighty = sorted(user for user, level in listed.items() if level >= need and user != bot)
    named = ", ".join(mighty[:_MAX_NAMED]) or "a server admin (Synapse's make_room_admin)"
    return Note(
        "bot_demoted",
        f"has power level {own} in this room and needs {need}, so not everything can be done; "
        f"it must be given back by {named}",
        bot,
    )


def _need(action: Action, content: Mapping[str, Any], actual: ActualRoom) -> int:
    """Return the level that *action* needs; 0 for what no level is needed for."""
    match action:
        case SetState(event_type=event_type):
            # It gives the bot the level that it should have, and nobody can give more than they have.
            own = bot_level(actual.version) if event_type == _POWER else 0
            return max(own, _state_level(content, event_type))
        case SetDirectoryVisibility():
            return _state_level(content, "m.room.canonical_alias")
        case Invite():
            return _level(content, "invite")
        case Kick():
            return _level(content, "kick")
        case Ban():
            return _level(content, "ban")
        case Unban():
            return max(_level(content, "ban"), _level(content, "kick"))
        case _:
            return 0


def _state_level(content: Mapping[str, Any], event_type: str) -> int:
    events = content.get("events")
    level = events.get(event_type) if isinstance(events, Mapping) else None
    return level if isinstance(level, int) else _level(content, "state_default")


def _level(content: Mapping[str, Any], name: str) -> int:
    level = content.get(name)
    return level if isinstance(level, int) else _DEFAULTS[name]

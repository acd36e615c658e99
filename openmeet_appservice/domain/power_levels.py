"""The power levels of a room: one event, always written whole.

Up to room version 11 a creator has power only by being listed, so the bot is listed with 100 and
nobody else gets more than 99. From version 12 creators stand above all levels and must not be listed
(Matrix specification, room version 12, authorization rules 9 and 10; Synapse answers 400 either way
round), so levels above 100 are out of everybody's reach but the bot's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

_NUMBERED = re.compile(r"[1-9][0-9]{0,3}")
_FIRST_WITH_CREATOR_POWER = 12

BOT_ONLY_EVENTS: Final = (
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.server_acl",
    "m.room.tombstone",
)
"""State that decides who may be in the room and who manages it: the bot's alone."""

MODERATED_EVENTS: Final = ("m.room.avatar", "m.room.name", "m.room.topic")
"""State that moderators may change."""

MODERATOR: Final = 50
MAX_USERS_BYTES: Final = 48_000
"""Room for the listed users: an event has at most 65,536 bytes with everything around it."""


def supports_creator_power(version: str) -> bool:
    """Whether the creators of a room of *version* have power without being listed.

    Versions that are not numbers are experiments of one server or another; they get the older rules.
    """
    return bool(_NUMBERED.fullmatch(version)) and int(version) >= _FIRST_WITH_CREATOR_POWER


def bot_level(version: str) -> int:
    """The level that only the bot reaches."""
    return 150 if supports_creator_power(version) else 100


def highest_level(version: str) -> int:
    """The highest level that people are given."""
    return 100 if supports_creator_power(version) else 99


@dataclass(frozen=True, slots=True)
class ListedLevels:
    """The levels to write for people, and who had to be left out because the event would be too large."""

    users: Mapping[str, int]
    left_out: tuple[str, ...] = ()


def listed_levels(
    version: str, levels: Mapping[str, int], fixed: Mapping[str, int] = MappingProxyType({})
) -> ListedLevels:
    """Choose what is listed: levels other than 0, capped to what people may have.

    Levels that are *fixed*, because the bot cannot change them, are kept as they are. Of more than the
    event can hold (`MAX_USERS_BYTES`) those below 0 are listed, and the highest.
    """
    top = highest_level(version)
    capped = {user: min(level, top) for user, level in levels.items() if level != 0}
    wanted = list((capped | dict(fixed)).items())
    wanted.sort(key=lambda entry: (entry[1] >= 0, -entry[1], entry[0]))
    size, users, left_out = 0, {}, []
    for user, level in wanted:
        size += len(json.dumps(user, ensure_ascii=False).encode()) + len(f":{level},")
        if size > MAX_USERS_BYTES:
            left_out.append(user)
        else:
            users[user] = level
    return ListedLevels(users, tuple(left_out))


def power_levels(
    version: str, bot: str, users: Mapping[str, int], *, private: bool, closed: bool
) -> dict[str, Any]:
    """The whole content of ``m.room.power_levels``.

    Parameters
    ----------
    version
        Of the room.
    bot
        The bot's user id; it made the room.
    users
        The levels of people, as `listed_levels` chose them.
    private
        Only the bot invites.
    closed
        Nobody but the bot may do anything, not even write.
    """
    top = bot_level(version)
    events = dict.fromkeys(BOT_ONLY_EVENTS, top)
    events |= dict.fromkeys(MODERATED_EVENTS, top if closed else MODERATOR)
    return {
        "users": dict(users) if supports_creator_power(version) else {**users, bot: top},
        "users_default": 0,
        "events": events,
        "events_default": top if closed else 0,
        "state_default": top,
        "invite": top if private or closed else MODERATOR,
        "kick": MODERATOR,
        "ban": MODERATOR,
        "redact": MODERATOR,
        "notifications": {"room": MODERATOR},
    }

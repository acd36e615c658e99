"""Rooms that OpenMeet's former in-process service made: their names, and whether they may be taken over.

That service named a room ``#event-{slug}-{tenant}`` or ``#group-{slug}-{tenant}``, with slug and tenant as
OpenMeet spells them. Whether a room is what the alias of a known entity leads to is asked; no alias is taken
apart, for neither a tenant nor a slug can be told from its text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import MAX_BYTES
from openmeet_appservice.domain.power_levels import bot_level, supports_creator_power
from openmeet_appservice.domain.reading import RoomState
from openmeet_appservice.domain.rooms import JsonObject

_POWER: Final = "m.room.power_levels"
_DEFAULTS: Final[Mapping[str, int]] = {"state_default": 50, "kick": 50, "ban": 50, "redact": 50}
"""What holds where the event says nothing (Matrix specification, ``m.room.power_levels``)."""

_OTHERS: Final = ("invite", "events_default", "users_default")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a room is not taken over.

    Parameters
    ----------
    code
        ``not_inside``, ``no_power``, ``not_the_creator``, ``replaced``, ``other_name``, ``in_use`` or
        ``gone``.
    detail, remedy
        What is the matter and what to do, for people.
    """

    code: str
    detail: str
    remedy: str


def former_alias(kind: EntityKind, slug: str, tenant_id: str, server: str) -> str | None:
    """Return the full alias that the former service gave such a room, None where Matrix allows none."""
    alias = f"#{kind}-{slug}-{tenant_id}:{server}"
    return alias if len(alias.encode()) <= MAX_BYTES else None


def obstacle(room_id: str, alias: str, names: Collection[str], state: RoomState, bot: str) -> Obstacle | None:
    """Return why the bot, which is in the room, cannot take it over, None where it can.

    *alias* leads to it, and is one of the *names* that the room of this entity may have. The bot must be
    able to write every setting anew and to remove whoever is no equal of its: below version 12 that takes as
    much power as anything in the room does, from 12 on it must be a creator.
    """
    replacement = state.state.get("m.room.tombstone", {}).get("replacement_room")
    if "m.room.tombstone" in state.state:
        return Obstacle(
            "replaced",
            f"it was replaced by {replacement or 'another room'}",
            f"let {alias} lead to the newer room, or delete the alias: then a new room is made",
        )
    named = state.state.get("m.room.canonical_alias", {}).get("alias")
    if isinstance(named, str) and named and named not in names:
        return Obstacle(
            "other_name",
            f"it calls itself {named}: {alias} may be a former name of another's room",
            f"if it is another's, delete the alias {alias}: then a new room is made; if not, make {alias} "
            "its main address and adopt again",
        )
    if supports_creator_power(state.version):
        return None if bot in creators(state) else _not_the_creator(state, alias)
    needed = max(bot_level(state.version), *_thresholds(state.state.get(_POWER, {})))
    level = power_of(bot, state.state.get(_POWER, {}))
    return None if level >= needed else no_power(room_id, bot, level, needed)


def creators(state: RoomState) -> frozenset[str]:
    """Return who has a creator's power in a room of version 12 or later."""
    more = state.state.get("m.room.create", {}).get("additional_creators")
    listed = [user for user in more if isinstance(user, str)] if isinstance(more, list) else []
    return frozenset(listed if state.creator is None else {*listed, state.creator})


def power_of(user: str, content: JsonObject) -> int:
    """Return the level that a room's power levels give *user*."""
    users = content.get("users")
    listed = users.get(user) if isinstance(users, Mapping) else None
    return _level(listed, _level(content.get("users_default"), 0))


def not_inside(room_id: str, bot: str, words: str) -> Obstacle:
    """Return what is in the way where the bot may not join; *words* are the homeserver's."""
    return Obstacle(
        "not_inside",
        f"the bot is not in the room and is not let in: {words}",
        f"let somebody with the power invite {bot} (and take its ban back, if it is banned), or have a "
        f"server admin give it power, which invites it: {_make_room_admin(room_id, bot)}; then adopt again",
    )


def no_power(room_id: str, bot: str, level: int, needed: int) -> Obstacle:
    """Return what is in the way where the bot has too little power."""
    return Obstacle(
        "no_power",
        f"the bot has power level {level} and needs {needed}",
        f"have a server admin give it the power: {_make_room_admin(room_id, bot)}; then adopt again",
    )


def gone(alias: str) -> Obstacle:
    """Return what is in the way where an alias leads to a room that nobody is in."""
    return Obstacle(
        "gone",
        "nobody of this homeserver is in the room any more, so nobody can enter it",
        f"nothing: {alias} is taken off it, and a new room is made",
    )


def in_use(alias: str) -> Obstacle:
    """Return what is in the way where the room is already ours, of something else."""
    return Obstacle(
        "in_use",
        "the room belongs to another event or group already",
        f"delete the alias {alias}: then a new room is made",
    )


def _not_the_creator(state: RoomState, alias: str) -> Obstacle:
    return Obstacle(
        "not_the_creator",
        f"only {state.creator} can manage it: in room version {state.version} that is its creator's alone",
        "give the service that user as appservice.bot_localpart, or start anew: delete the alias "
        f"{alias}, and a new room is made",
    )


def _make_room_admin(room_id: str, bot: str) -> str:
    return f'POST /_synapse/admin/v1/rooms/{room_id}/make_room_admin {{"user_id": "{bot}"}}'


def _thresholds(content: JsonObject) -> Iterator[int]:
    """Every level that something in the room takes: to change a threshold takes as much."""
    for name, default in _DEFAULTS.items():
        yield _level(content.get(name), default)
    for name in _OTHERS:
        yield _level(content.get(name), 0)
    events = content.get("events")
    for needed in events.values() if isinstance(events, Mapping) else ():
        yield _level(needed, 0)


def _level(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default

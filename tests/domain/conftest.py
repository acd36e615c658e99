"""A homeserver in a few lines: what an action does to a room, and what Synapse would refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    CreateRoom,
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
from openmeet_appservice.domain.canonical import named_aliases
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom

Apply: TypeAlias = Callable[[ActualRoom | None, Action, DesiredRoom], ActualRoom]

ROOM_ID = "!room"
CLAIM = "c0ffeec0ffeec0ffee"
DEFAULT_LEVELS: dict[str, Any] = {"historical": 100, "ban": 50, "kick": 50, "invite": 50}


class Refused(AssertionError):
    """The homeserver would not do this."""


def apply_action(actual: ActualRoom | None, action: Action, desired: DesiredRoom) -> ActualRoom:
    """The room after *action*; raises `Refused` where Synapse would answer with an error."""
    if actual is None:
        if not isinstance(action, CreateRoom):
            raise Refused("there is no room")
        return _created(action, desired)
    match action:
        case JoinBot():
            return _with_member(actual, desired.bot, "join")
        case SetState(event_type, content, ""):
            _check_state(actual, event_type, content, desired.bot)
            return replace(actual, state={**actual.state, event_type: content})
        case PutAlias() | DeleteAlias():
            return _with_alias(actual, action, desired)
        case SetDirectoryVisibility(listed):
            _bot_is_in(actual, desired.bot)
            return replace(actual, listed=listed)
        case Ban(user):
            _can_remove(actual, user, desired.bot)
            ours = actual.our_bans | {user}
            return replace(_with_member(actual, user, "ban"), our_bans=ours)
        case Unban(user):
            if actual.members.get(user) != "ban":
                raise Refused("403: not banned")
            after = _with_member(actual, user, "leave")
            return replace(after, our_bans=after.our_bans - {user}, kept_out=after.kept_out - {user})
        case Invite() | Join() | Kick():
            return _with_membership(actual, action, desired.bot)
        case _:
            raise Refused(f"{action} on a room that exists")


def _created(action: CreateRoom, desired: DesiredRoom) -> ActualRoom:
    request = action.request(CLAIM)
    version = request["room_version"]
    state = {event["type"]: event["content"] for event in request["initial_state"]}
    alias = f"#{request['room_alias_name']}:{desired.bot.partition(':')[2]}"
    state.setdefault("m.room.canonical_alias", {"alias": alias})
    levels = request["power_level_content_override"]
    _check_levels(version, levels, desired.bot)
    state["m.room.power_levels"] = {**DEFAULT_LEVELS, **levels}
    for name in ("name", "topic"):
        if name in request:
            state[f"m.room.{name}"] = {name: request[name]}
    return ActualRoom(
        room_id=ROOM_ID,
        version=version,
        members={desired.bot: "join"},
        state=state,
        listed=request["visibility"] == "public",
        aliases=frozenset({alias}),
        alias_target=ROOM_ID if alias == desired.alias else None,
    )


def _with_alias(actual: ActualRoom, action: PutAlias | DeleteAlias, desired: DesiredRoom) -> ActualRoom:
    about_wanted = action.alias == desired.alias
    if isinstance(action, DeleteAlias):
        named = action.alias in named_aliases(actual.content("m.room.canonical_alias"))
        if named and action.alias in actual.aliases:
            raise Refused("the room still names the alias that is deleted")
        target = None if about_wanted else actual.alias_target
        return replace(actual, aliases=actual.aliases - {action.alias}, alias_target=target)
    elsewhere = action.alias in actual.taken or (about_wanted and actual.alias_target is not None)
    if action.alias in actual.aliases or elsewhere:
        raise Refused("409: this alias exists")
    target = actual.room_id if about_wanted else actual.alias_target
    return replace(actual, aliases=actual.aliases | {action.alias}, alias_target=target)


def _with_membership(actual: ActualRoom, action: Invite | Join | Kick, bot: str) -> ActualRoom:
    now = actual.members.get(action.user_id)
    match action:
        case Invite():
            _bot_is_in(actual, bot)
            allowed, after = now not in ("join", "ban"), "invite"
        case Join():
            rule = actual.content("m.room.join_rules").get("join_rule")
            allowed, after = now == "invite" or (rule == "public" and now != "ban"), "join"
        case Kick():
            _can_remove(actual, action.user_id, bot)
            allowed, after = now in ("join", "invite"), "leave"
    if not allowed:
        raise Refused(f"403: {action} while the membership is {now}")
    return _with_member(actual, action.user_id, after)


def _with_member(actual: ActualRoom, user: str, membership: str) -> ActualRoom:
    return replace(actual, members={**actual.members, user: membership})


def _can_remove(actual: ActualRoom, user: str, bot: str) -> None:
    _bot_is_in(actual, bot)
    listed = actual.content("m.room.power_levels").get("users", {})
    if actual.version != "12" and listed.get(user, 0) >= 100:
        raise Refused(f"403: {user} is as mighty as the bot")


def _bot_is_in(actual: ActualRoom, bot: str) -> None:
    if actual.members.get(bot) != "join":
        raise Refused("403: the bot is not in the room")


def _check_state(actual: ActualRoom, event_type: str, content: Mapping[str, Any], bot: str) -> None:
    _bot_is_in(actual, bot)
    if event_type == "m.room.canonical_alias":
        here = actual.aliases | ({content.get("alias")} if actual.alias_target == actual.room_id else set())
        if not here.issuperset(named_aliases(content)):
            raise Refused("M_BAD_ALIAS")
    if event_type == "m.room.power_levels":
        _check_levels(actual.version, content, bot)
        before = actual.content(event_type).get("users", {})
        for user, level in before.items():
            reach = actual.version == "12" or level < 100 or user == bot
            if not reach and content["users"].get(user) != level:
                raise Refused(f"403: the bot cannot change the level of {user}")


def _check_levels(version: str, content: Mapping[str, Any], bot: str) -> None:
    listed = bot in content["users"]
    if listed == (version == "12"):
        raise Refused(f"400: the creator is listed: {listed}, in version {version}")
    if version != "12" and max(content["users"].values()) > content["users"][bot]:
        raise Refused("403: somebody has more power than the bot")


@pytest.fixture(scope="session", name="apply")
def _apply() -> Apply:
    """`apply(room, action, desired)`: the room after the action; fails where Synapse would refuse."""
    return apply_action

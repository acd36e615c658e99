"""A room of the model homeserver: its state, and who may change what (room versions 10 to 12).

The rules are those of the Matrix specification's room versions as far as local users meet them, the refusals
those that Synapse was seen to answer with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]

_SINGLE_LEVELS = ("users_default", "events_default", "state_default", "ban", "kick", "redact", "invite")
_LEVEL_MAPS = ("events", "notifications")


class MatrixError(Exception):
    """What the homeserver answers instead of a result."""

    def __init__(self, status: int, errcode: str, error: str = "No", **more: Any) -> None:
        super().__init__(f"{errcode} ({status}): {error}")
        self.status = status
        self.body = {"errcode": errcode, "error": error, **more}


def forbidden(error: str = "No") -> MatrixError:
    """Return the commonest refusal."""
    return MatrixError(403, "M_FORBIDDEN", error)


def not_found(error: str = "Not found.") -> MatrixError:
    """Return the answer about what is not there."""
    return MatrixError(404, "M_NOT_FOUND", error)


@dataclass(slots=True)
class Room:
    """A room. *emit* is given each new event in the form that clients get."""

    room_id: str
    version: str
    new_event_id: Callable[[], str]
    emit: Callable[[JsonObject], None]
    listed: bool = False
    state: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    left_with: dict[str, list[JsonObject]] = field(default_factory=dict)

    # -- what there is

    @property
    def creator(self) -> str | None:
        """Who made it, once its first event is there."""
        create = self.state.get(("m.room.create", ""))
        return None if create is None else create["sender"]

    def content(self, event_type: str, state_key: str = "") -> JsonObject:
        """Return the content of a state event, empty where there is none."""
        event = self.state.get((event_type, state_key))
        return {} if event is None else event["content"]

    def membership(self, user: str) -> str | None:
        """Return somebody's membership, None for whom the room has never seen."""
        return self.content("m.room.member", user).get("membership")

    def members(self, *memberships: str) -> set[str]:
        """Return everybody with one of these memberships."""
        return {
            user
            for (kind, user), event in self.state.items()
            if kind == "m.room.member" and event["content"]["membership"] in memberships
        }

    def power(self, user: str) -> float:
        """Return somebody's power."""
        if self._has_mighty_creator and user == self.creator:
            return math.inf
        levels = self.content("m.room.power_levels")
        if not levels:
            return 100 if user == self.creator else 0
        level: int = levels.get("users", {}).get(user, levels.get("users_default", 0))
        return level

    def state_as_seen_by(self, user: str) -> list[JsonObject]:
        """Return the state for somebody inside, or as it was when somebody left or did not come."""
        if self.membership(user) == "join":
            return list(self.state.values())
        if self.membership(user) == "leave":
            return self.left_with[user]
        raise forbidden(f"User {user} not in room {self.room_id}")

    @property
    def _has_mighty_creator(self) -> bool:
        return int(self.version) >= 12

    def _level(self, name: str, default: int) -> int:
        level: int = self.content("m.room.power_levels").get(name, default)
        return level

    # -- what is done to it

    def add(self, sender: str, event_type: str, content: JsonObject, state_key: str = "") -> str:
        """Add a state event, whoever may; the same again is kept as it is."""
        before = self.state.get((event_type, state_key))
        if before is not None and before["content"] == content and before["sender"] == sender:
            return str(before["event_id"])
        event = {
            "type": event_type,
            "state_key": state_key,
            "sender": sender,
            "content": content,
            "room_id": self.room_id,
            "event_id": self.new_event_id(),
        }
        self.state[event_type, state_key] = event
        if event_type == "m.room.member" and content["membership"] == "leave":
            self.left_with[state_key] = list(self.state.values())
        self.emit(event)
        return str(event["event_id"])

    def check_state(self, sender: str, event_type: str, content: JsonObject) -> None:
        """Check that somebody may set a state event that is no membership."""
        self._must_be_inside(sender)
        levels = self.content("m.room.power_levels")
        needed = levels.get("events", {}).get(event_type, self._level("state_default", 50 if levels else 0))
        if self.power(sender) < needed:
            raise forbidden(f"You don't have permission to post that to the room. {event_type}")
        if event_type == "m.room.power_levels":
            self.check_levels(content)
            self._check_level_changes(sender, levels, content)

    def check_levels(self, content: JsonObject) -> None:
        """Check what holds for power levels whoever sets them."""
        users = content.get("users", {})
        if self._has_mighty_creator and self.creator in users:
            raise MatrixError(400, "M_UNKNOWN", "Creator user must not appear in content.users")
        numbers = [*users.values(), *content.get("events", {}).values()]
        if any(type(level) is not int for level in numbers):
            raise MatrixError(400, "M_BAD_JSON", "a level is no integer")

    def _check_level_changes(self, sender: str, before: JsonObject, after: JsonObject) -> None:
        own = self.power(sender)
        changes: list[tuple[int | None, int | None, bool]] = [
            (before.get(name), after.get(name), False) for name in _SINGLE_LEVELS
        ]
        for name in _LEVEL_MAPS:
            changes += [(old, new, False) for _, old, new in _differences(before, after, name)]
        changes += [(old, new, user != sender) for user, old, new in _differences(before, after, "users")]
        for old, new, is_other in changes:
            if old == new:
                continue
            if old is not None and (old > own or (is_other and old >= own)):
                raise forbidden("You don't have permission to change a level as high as your own")
            if new is not None and new > own:
                raise forbidden("You don't have permission to give more than you have")

    # -- people

    def join(self, user: str, profile: Mapping[str, str]) -> None:
        """Let somebody join."""
        if not self.members("join"):
            raise MatrixError(404, "M_UNKNOWN", "Can't join remote room because no servers are in it")
        membership = self.membership(user)
        if membership == "join":
            return
        if membership == "ban":
            raise MatrixError(403, "M_BAD_STATE", "Cannot join user who was banned")
        is_open = self.content("m.room.join_rules").get("join_rule") == "public"
        if not is_open and membership != "invite":
            raise forbidden("You are not invited to this room.")
        self._become(user, user, "join", profile)

    def invite(self, sender: str, user: str) -> None:
        """Invite somebody."""
        if self.membership(user) == "ban":
            raise MatrixError(403, "M_BAD_STATE", "Cannot invite user who was banned")
        if self._made_so(sender, user, "invite"):
            return
        self._must_be_inside(sender)
        if self.membership(user) == "join":
            raise forbidden(f"{user} is already in the room.")
        if self.power(sender) < self._level("invite", 0):
            raise forbidden("You don't have permission to invite users")
        self._become(sender, user, "invite", {})

    def kick(self, sender: str, user: str) -> None:
        """Remove somebody."""
        membership = self.membership(user)
        if membership == "ban":
            raise MatrixError(403, "M_BAD_STATE", "Cannot kick user who was banned")
        if self._made_so(sender, user, "leave"):
            return
        if membership not in ("join", "invite", "knock"):
            raise forbidden("The target user is not in the room")
        self._must_be_inside(sender)
        if sender != user:
            self._must_outrank(sender, user, "kick")
        self._become(sender, user, "leave", {})

    def ban(self, sender: str, user: str) -> None:
        """Ban somebody, inside or not."""
        if self._made_so(sender, user, "ban"):
            return
        self._must_be_inside(sender)
        self._must_outrank(sender, user, "ban")
        self._become(sender, user, "ban", {})

    def unban(self, sender: str, user: str) -> None:
        """Take a ban back."""
        if self.membership(user) is not None and self.membership(user) != "ban":
            raise MatrixError(403, "M_BAD_STATE", "Cannot unban user who was not banned")
        self._must_be_inside(sender)
        self._must_outrank(sender, user, "ban")
        self._become(sender, user, "leave", {})

    def leave(self, user: str) -> None:
        """Let somebody leave, or decline."""
        membership = self.membership(user)
        if membership == "leave" and self.state["m.room.member", user]["sender"] == user:
            return
        if membership not in ("join", "invite", "knock"):
            raise forbidden("You are not in the room")
        self._become(user, user, "leave", {})

    def _made_so(self, sender: str, user: str, membership: str) -> bool:
        """Tell whether the very same was done before: Synapse then looks no further."""
        event = self.state.get(("m.room.member", user))
        return event is not None and (event["sender"], event["content"]) == (
            sender,
            {"membership": membership},
        )

    def _become(self, sender: str, user: str, membership: str, profile: Mapping[str, str]) -> None:
        self.add(sender, "m.room.member", {"membership": membership, **profile}, user)

    def _must_be_inside(self, user: str) -> None:
        if self.membership(user) != "join":
            raise forbidden(f"User {user} not in room {self.room_id}")

    def _must_outrank(self, sender: str, user: str, what: str) -> None:
        own = self.power(sender)
        if own < self._level(what, 50) or own <= self.power(user):
            raise forbidden(f"You cannot {what} user {user}.")


def _differences(
    before: JsonObject, after: JsonObject, name: str
) -> list[tuple[str, int | None, int | None]]:
    old, new = before.get(name, {}), after.get(name, {})
    return [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]

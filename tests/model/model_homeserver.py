"""A model of Synapse as far as the service uses it, in memory and without a clock of its own.

What it does is what Synapse was seen to do (`test_model_homeserver.py` asks both the same). Above all
``createRoom`` is made of steps between which everything else can happen, and after each of which the
homeserver can die: the room's row and its listing, the alias, ``m.room.create``, the creator's membership,
and the rest at once.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .model_room import JsonObject, MatrixError, Room, forbidden, not_found


@dataclass(slots=True)
class ModelHomeserver:
    """The homeserver.

    Parameters
    ----------
    server_name, bot
        Its name, and the application service's bot.
    prefixes
        How the localparts of users and aliases begin that only the application service may make.
    default_version
        Of rooms that are made without one.
    pause
        Awaited between the steps of making a room; told whether the creator is inside. From then on Synapse
        has all events ready and only writes them.
    push
        Given every event, as clients get it.
    """

    server_name: str
    bot: str
    prefixes: tuple[str, ...]
    default_version: str
    pause: Callable[[bool], Awaitable[None]]
    push: Callable[[JsonObject], None]
    profiles: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    _counter: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.profiles[self.bot] = self._localpart(self.bot)

    # -- users

    def register(self, sender: str, body: JsonObject) -> JsonObject:
        """Make a user."""
        localpart = body["username"]
        if not localpart.startswith(self.prefixes):
            raise MatrixError(400, "M_EXCLUSIVE", "Invalid user localpart for this application service.")
        user = f"@{localpart}:{self.server_name}"
        if user in self.profiles:
            raise MatrixError(400, "M_USER_IN_USE", "User ID already taken.")
        self.profiles[user] = localpart
        return {"user_id": user, "home_server": self.server_name}

    def display_name(self, user: str) -> JsonObject:
        """Return somebody's name."""
        if user not in self.profiles:
            raise not_found()
        return {"displayname": self.profiles[user]}

    def set_display_name(self, sender: str, user: str, name: str) -> JsonObject:
        """Name oneself, in every room too."""
        if sender != user:
            raise MatrixError(400, "M_FORBIDDEN", "Cannot set another user's displayname")
        self.profiles[user] = name
        for room in self.rooms.values():
            if room.membership(user) == "join":
                room.add(user, "m.room.member", {"membership": "join", "displayname": name}, user)
        return {}

    def _localpart(self, user: str) -> str:
        return user[1:].partition(":")[0]

    # -- aliases and the directory

    def resolve(self, alias: str) -> JsonObject:
        """Tell where an alias leads."""
        if alias not in self.aliases:
            raise MatrixError(404, "M_NOT_FOUND", f"Room alias {alias} not found")
        return {"room_id": self.aliases[alias], "servers": [self.server_name]}

    def put_alias(self, alias: str, room_id: str) -> JsonObject:
        """Let a new alias lead to a room."""
        self._must_be_ours(alias)
        if alias in self.aliases:
            raise MatrixError(409, "M_UNKNOWN", f"Room alias {alias} already exists")
        self._room(room_id)
        self.aliases[alias] = room_id
        return {}

    def delete_alias(self, alias: str) -> JsonObject:
        """Take an alias away; what its room says of it is not touched."""
        self._must_be_ours(alias)
        self.aliases.pop(alias, None)
        return {}

    def room_aliases(self, sender: str, room_id: str) -> JsonObject:
        """List the aliases of a room, for those inside."""
        if self._room(room_id).membership(sender) != "join":
            raise forbidden("You don't have permission to view the aliases list.")
        return {"aliases": [alias for alias, target in self.aliases.items() if target == room_id]}

    def visibility(self, room_id: str) -> JsonObject:
        """Tell whether the directory shows a room."""
        return {"visibility": "public" if self._room(room_id).listed else "private"}

    def set_visibility(self, sender: str, room_id: str, visibility: str) -> JsonObject:
        """Have the directory show a room, or not."""
        room = self._room(room_id)
        levels = room.content("m.room.power_levels")
        needed = levels.get("events", {}).get("m.room.canonical_alias", levels.get("state_default", 50))
        if room.membership(sender) != "join" or room.power(sender) < needed:
            raise forbidden("This server requires you to be a moderator in the room")
        room.listed = visibility == "public"
        return {}

    def _must_be_ours(self, alias: str) -> None:
        if not alias[1:].startswith(self.prefixes):
            raise MatrixError(400, "M_EXCLUSIVE", "This alias is outside the namespace")

    # -- making rooms

    async def create_room(self, sender: str, body: JsonObject) -> JsonObject:
        """Make a room, step by step."""
        alias = None
        if body.get("room_alias_name"):
            alias = f"#{body['room_alias_name']}:{self.server_name}"
            if alias in self.aliases:
                raise MatrixError(400, "M_ROOM_IN_USE", "Room alias already taken")
        async for room in self._steps(sender, body, alias):
            made = room
            await self.pause(bool(room.members("join")))
        return {"room_id": made.room_id}

    async def _steps(self, sender: str, body: JsonObject, alias: str | None) -> AsyncIterator[Room]:
        version = body.get("room_version", self.default_version)
        number = next(self._counter)
        room_id = f"!room{number}" if int(version) >= 12 else f"!room{number}:{self.server_name}"
        room = Room(room_id, version, self._new_event_id, self.push)
        room.listed = body.get("visibility") == "public"
        self.rooms[room_id] = room
        yield room
        if alias is not None:
            self._must_be_ours(alias)
            if alias in self.aliases:
                raise MatrixError(409, "M_UNKNOWN", f"Room alias {alias} already exists")
            self.aliases[alias] = room_id
        yield room
        content = {**body.get("creation_content", {}), "room_version": version}
        room.add(sender, "m.room.create", content)
        yield room
        profile = {"displayname": self.profiles[sender]}
        room.add(sender, "m.room.member", {"membership": "join", **profile}, sender)
        yield room
        for (event_type, state_key), value in self._first_state(room, sender, body, alias).items():
            room.add(sender, event_type, value, state_key)
        yield room

    def _first_state(
        self, room: Room, sender: str, body: JsonObject, alias: str | None
    ) -> dict[tuple[str, str], JsonObject]:
        given = {(one["type"], one.get("state_key", "")): one["content"] for one in body["initial_state"]}
        is_public = body.get("preset", "private_chat") == "public_chat"
        levels = {
            "users": {} if int(room.version) >= 12 else {sender: 100},
            "users_default": 0,
            "events": {},
            "events_default": 0,
            "state_default": 50,
            "invite": 50 if is_public else 0,
            "historical": 100,
            **body.get("power_level_content_override", {}),
        }
        room.check_levels(levels)
        state: dict[tuple[str, str], JsonObject] = {("m.room.power_levels", ""): levels}
        if alias is not None and ("m.room.canonical_alias", "") not in given:
            state["m.room.canonical_alias", ""] = {"alias": alias}
        state["m.room.join_rules", ""] = {"join_rule": "public" if is_public else "invite"}
        state["m.room.history_visibility", ""] = {"history_visibility": "shared"}
        if not is_public:
            state["m.room.guest_access", ""] = {"guest_access": "can_join"}
        state |= given
        if "name" in body:
            state["m.room.name", ""] = {"name": body["name"]}
        if "topic" in body:
            rich = {"m.text": [{"body": body["topic"]}]}
            state["m.room.topic", ""] = {"topic": body["topic"], "m.topic": rich}
        return state

    # -- rooms

    def room_state(self, sender: str, room_id: str) -> list[JsonObject]:
        """Return the whole state."""
        return self._visible(sender, room_id).state_as_seen_by(sender)

    def state_event(self, sender: str, room_id: str, event_type: str, state_key: str) -> JsonObject:
        """Return the content of one state event."""
        return dict(self.whole_state_event(sender, room_id, event_type, state_key)["content"])

    def whole_state_event(self, sender: str, room_id: str, event_type: str, state_key: str) -> JsonObject:
        """Return one state event."""
        for event in self._visible(sender, room_id).state_as_seen_by(sender):
            if (event["type"], event["state_key"]) == (event_type, state_key):
                return event
        raise MatrixError(404, "M_NOT_FOUND", "Event not found.")

    def set_state(
        self, sender: str, room_id: str, event_type: str, state_key: str, content: JsonObject
    ) -> JsonObject:
        """Set one state event."""
        room = self._visible(sender, room_id)
        room.check_state(sender, event_type, content)
        alias = content.get("alias") if event_type == "m.room.canonical_alias" else None
        if alias and self.aliases.get(alias) != room_id:
            raise MatrixError(400, "M_BAD_ALIAS", f"Room alias {alias} does not point to the room")
        return {"event_id": room.add(sender, event_type, content, state_key)}

    def join(self, sender: str, room_id: str) -> JsonObject:
        """Join."""
        if room_id not in self.rooms:
            raise MatrixError(404, "M_UNKNOWN", "Can't join remote room because no servers are in it")
        self.rooms[room_id].join(sender, {"displayname": self.profiles[sender]})
        return {"room_id": room_id}

    def change_member(self, sender: str, room_id: str, what: str, body: Mapping[str, Any]) -> JsonObject:
        """Invite, kick, ban or unban somebody, or leave."""
        room = self._visible(sender, room_id)
        match what:
            case "invite":
                room.invite(sender, body["user_id"])
            case "kick":
                room.kick(sender, body["user_id"])
            case "ban":
                room.ban(sender, body["user_id"])
            case "unban":
                room.unban(sender, body["user_id"])
            case "leave":
                room.leave(sender)
        return {}

    def joined_members(self, sender: str, room_id: str) -> JsonObject:
        """Return who is inside, to those who are, and to an application service with a user inside."""
        inside = self._visible(sender, room_id).members("join")
        if not any(self._localpart(user).startswith(self.prefixes) or user == sender for user in inside):
            raise forbidden(f"User {sender} not in room {room_id}")
        return {"joined": {user: {"display_name": self.profiles[user]} for user in inside}}

    def joined_rooms(self, sender: str) -> JsonObject:
        """Return where somebody is inside."""
        return {"joined_rooms": [id for id, room in self.rooms.items() if room.membership(sender) == "join"]}

    def _visible(self, sender: str, room_id: str) -> Room:
        """Return the room; one that is not there refuses everybody as one that is."""
        room = self.rooms.get(room_id)
        if room is None or room.creator is None:
            raise forbidden(f"User {sender} not in room {room_id}")
        return room

    def _room(self, room_id: str) -> Room:
        if room_id not in self.rooms:
            raise not_found()
        return self.rooms[room_id]

    def _new_event_id(self) -> str:
        return f"$event{next(self._counter)}"

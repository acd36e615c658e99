"""What the plan asks for, one small dataclass for each thing that is done on the homeserver.

Of each, ``describe()`` is a line for people (the dry run) and ``to_json()`` the same for programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

from openmeet_appservice.domain.arrival import CLAIM
from openmeet_appservice.domain.names import temporary_alias_localpart


@dataclass(frozen=True, slots=True)
class _Action:
    name: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """The action as a JSON object: ``action`` and its own fields."""
        shown = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"action": self.name} | {k: v for k, v in shown.items() if v is not None}


@dataclass(frozen=True, slots=True)
class CreateRoom(_Action):
    """Make the room, whole, without members.

    Parameters
    ----------
    alias_localpart
        The public alias, which then is the lock against a second room; None for a room that has
        none, which is locked by a temporary alias made of the claim.
    content
        The body of ``POST /createRoom`` without alias and claim.
    as_user
        The puppet that makes a direct room, None for the bot.
    """

    name: ClassVar[str] = "create_room"
    alias_localpart: str | None
    content: Mapping[str, Any]
    as_user: str | None = None

    def request(self, claim: str, predecessor: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The body to send for *claim* (see `names.temporary_alias_localpart`).

        *predecessor* is what ``m.room.create`` says of the room whose place this one takes.

        Without a public alias an empty canonical alias is sent along: Synapse would otherwise write
        the temporary one into the room.
        """
        body = dict(self.content)
        body["creation_content"] = {**body.get("creation_content", {}), CLAIM: claim}
        if predecessor is not None:
            body["creation_content"]["predecessor"] = dict(predecessor)
        body["room_alias_name"] = self.alias_localpart or temporary_alias_localpart(claim)
        if self.alias_localpart is None:
            empty = {"type": "m.room.canonical_alias", "state_key": "", "content": {}}
            body["initial_state"] = [*body.get("initial_state", []), empty]
        return body

    def describe(self) -> str:
        alias = f"with the alias #{self.alias_localpart}" if self.alias_localpart else "no alias"
        version = self.content.get("room_version")
        if self.as_user is not None:
            return f"make a direct room as {self.as_user} (version {version})"
        return f"make the room {self.content.get('name')!r} (version {version}, {alias})"


@dataclass(frozen=True, slots=True)
class JoinBot(_Action):
    """Let the bot join its room again; nothing else is possible before."""

    name: ClassVar[str] = "join_bot"

    def describe(self) -> str:
        return "join the room as the bot"


@dataclass(frozen=True, slots=True)
class SetState(_Action):
    """Write a state event, as the bot unless *as_user* says otherwise."""

    name: ClassVar[str] = "set_state"
    event_type: str
    content: Mapping[str, Any]
    state_key: str = ""
    as_user: str | None = None

    def describe(self) -> str:
        return f"set {self.event_type} to {dict(self.content)!r}"


@dataclass(frozen=True, slots=True)
class PutAlias(_Action):
    """Let a full alias point to this room. It points nowhere now."""

    name: ClassVar[str] = "put_alias"
    alias: str

    def describe(self) -> str:
        return f"give the room the alias {self.alias}"


@dataclass(frozen=True, slots=True)
class DeleteAlias(_Action):
    """Take a full alias off whichever room has it."""

    name: ClassVar[str] = "delete_alias"
    alias: str

    def describe(self) -> str:
        return f"delete the alias {self.alias}"


@dataclass(frozen=True, slots=True)
class SetDirectoryVisibility(_Action):
    """Show the room in the server's room directory, or take it out."""

    name: ClassVar[str] = "set_directory_visibility"
    listed: bool

    def describe(self) -> str:
        return "list the room in the directory" if self.listed else "take it out of the directory"


@dataclass(frozen=True, slots=True)
class Invite(_Action):
    """Invite somebody, as the bot unless *by* says otherwise."""

    name: ClassVar[str] = "invite"
    user_id: str
    by: str | None = None

    def describe(self) -> str:
        return f"invite {self.user_id}"


@dataclass(frozen=True, slots=True)
class Join(_Action):
    """Let a puppet join, as itself."""

    name: ClassVar[str] = "join"
    user_id: str

    def describe(self) -> str:
        return f"join as {self.user_id}"


@dataclass(frozen=True, slots=True)
class Kick(_Action):
    """Remove somebody, or take back the invitation, as the bot.

    *came*: somebody who came without being entitled, of which OpenMeet is told. *counted*: it is remembered,
    for the person may come back again and again.
    """

    name: ClassVar[str] = "kick"
    user_id: str
    reason: str
    came: bool = False
    counted: bool = False

    def describe(self) -> str:
        return f"remove {self.user_id} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Ban(_Action):
    """Remove somebody for good, as the bot, or keep somebody out who is not in; *came* as with `Kick`."""

    name: ClassVar[str] = "ban"
    user_id: str
    reason: str
    came: bool = False

    def describe(self) -> str:
        return f"ban {self.user_id} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Unban(_Action):
    """Take a ban of the bot's back; the room is not entered by it."""

    name: ClassVar[str] = "unban"
    user_id: str

    def describe(self) -> str:
        return f"take back the ban of {self.user_id}"


@dataclass(frozen=True, slots=True)
class Leave(_Action):
    """Let a puppet leave its direct room, or decline the invitation to it, as itself."""

    name: ClassVar[str] = "leave"
    user_id: str

    def describe(self) -> str:
        return f"leave as {self.user_id}"


@dataclass(frozen=True, slots=True)
class MarkDirect(_Action):
    """Let a puppet's clients show the room as a direct chat (``m.direct``), or no longer."""

    name: ClassVar[str] = "mark_direct"
    user_id: str
    marked: bool

    def describe(self) -> str:
        what = "note the room as" if self.marked else "no longer have the room as"
        return f"{what} a direct chat of {self.user_id}"


Action: TypeAlias = (
    CreateRoom
    | JoinBot
    | SetState
    | PutAlias
    | DeleteAlias
    | SetDirectoryVisibility
    | Invite
    | Join
    | Kick
    | Ban
    | Unban
    | Leave
    | MarkDirect
)

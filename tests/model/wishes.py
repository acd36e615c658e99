"""What OpenMeet wants, and whether a room is like that: told from the contract, not from the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .stack import BOT, SERVER

JsonObject = dict[str, Any]
State = Mapping[tuple[str, str], JsonObject]
"""A room's state events by type and state key."""

_POWER = {"host": 100, "owner": 100, "admin": 75, "moderator": 50, "speaker": 25}
_MAY_CHAT = ("confirmed", "attended", "cancelled")
_OF_THE_BOT = (
    "canonical_alias",
    "encryption",
    "guest_access",
    "history_visibility",
    "join_rules",
    "power_levels",
    "server_acl",
    "tombstone",
)


def puppet(tenant: str, slug: str) -> str:
    """Return the user id of a user's puppet."""
    return f"@openmeet_{tenant}_{slug}:{SERVER}"


@dataclass
class Wish:
    """An event or group as OpenMeet wants it."""

    tenant: str
    kind: str
    slug: str
    spec: JsonObject
    members: dict[str, JsonObject] = field(default_factory=dict)
    archived: bool = False
    encrypted_once: bool = False

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"{self.kind}s/{self.slug}"

    @property
    def alias(self) -> str:
        """The alias kept for it."""
        return f"#{self.kind}-{self.slug}-{self.tenant}:{SERVER}"

    @property
    def is_open(self) -> bool:
        """Whether its room is to be open."""
        return not self.archived and self.spec["status"] in ("published", "cancelled")

    @property
    def anyone_may_join(self) -> bool:
        """Whether strangers may walk in."""
        return self.spec["visibility"] != "private" and self.spec.get("access") == "anyone"

    @property
    def has_alias(self) -> bool:
        """Whether its room has the alias."""
        return bool(self.is_open and self.spec["visibility"] != "private")

    @property
    def topic(self) -> str:
        """The topic: its own, or what the template makes of the description."""
        text = self.spec.get("topic") or self.spec.get("description") or ""
        return f"Cancelled. {text}".strip() if self.spec["status"] == "cancelled" else text

    def entitled(self) -> dict[str, int]:
        """Who belongs into the room, with what power."""
        found = {}
        for user, member in self.members.items():
            if self.kind == "group":
                may = member["role"] != "guest"
            else:
                may = member.get("status", "confirmed") in _MAY_CHAT
            if may and not member.get("banned"):
                level = -1 if member.get("muted") else _POWER.get(member["role"], 0)
                found[puppet(self.tenant, user)] = level
        return found

    def banned(self) -> set[str]:
        """Whom OpenMeet wants kept out."""
        return {puppet(self.tenant, user) for user, member in self.members.items() if member.get("banned")}


def memberships(state: State) -> dict[str, tuple[str, str]]:
    """Return everybody's membership and who made it so, the bot aside."""
    return {
        user: (event["content"]["membership"], event["sender"])
        for (kind, user), event in state.items()
        if kind == "m.room.member" and user != BOT
    }


def banned_by_others(wish: Wish, state: State) -> set[str]:
    """Return who belongs into the room but was banned by a moderator."""
    found = memberships(state)
    return {
        user for user in wish.entitled() if found.get(user, ("", ""))[0] == "ban" and found[user][1] != BOT
    }


def check_open(wish: Wish, version: str, state: State, *, listed: bool, leads_here: bool) -> None:
    """Check that an open room is as wanted."""
    content = {kind: event["content"] for (kind, key), event in state.items() if key == ""}
    assert content["m.room.create"]["room_version"] == version
    assert content["m.room.name"]["name"] == wish.spec["name"]
    assert content.get("m.room.topic", {}).get("topic", "") == wish.topic
    rule = "public" if wish.anyone_may_join else "invite"
    assert content["m.room.join_rules"]["join_rule"] == rule
    assert content["m.room.history_visibility"] == {"history_visibility": "shared"}
    assert content["m.room.guest_access"] == {"guest_access": "forbidden"}
    assert listed == (wish.spec["visibility"] == "public")
    assert leads_here == wish.has_alias
    alias = {"alias": wish.alias} if wish.has_alias else {}
    assert content.get("m.room.canonical_alias", {}) == alias
    if wish.spec.get("encrypted"):
        assert content["m.room.encryption"] == {"algorithm": "m.megolm.v1.aes-sha2"}
    elif not wish.encrypted_once:
        assert "m.room.encryption" not in content
    _check_levels(wish, version, content["m.room.power_levels"])
    _check_people(wish, state)


def _check_levels(wish: Wish, version: str, levels: JsonObject) -> None:
    mighty = int(version) >= 12
    top, most = (150, 100) if mighty else (100, 99)
    users = {user: min(level, most) for user, level in wish.entitled().items() if level != 0}
    assert levels["users"] == users | ({} if mighty else {BOT: 100})
    assert levels["users_default"] == levels["events_default"] == 0
    assert levels["state_default"] == top
    assert {kind: levels["events"][f"m.room.{kind}"] for kind in _OF_THE_BOT} == dict.fromkeys(
        _OF_THE_BOT, top
    )
    assert levels["events"]["m.room.name"] == levels["events"]["m.room.topic"] == 50
    assert levels["invite"] == (top if wish.spec["visibility"] == "private" else 50)
    assert (levels["kick"], levels["ban"], levels["redact"]) == (50, 50, 50)


def _check_people(wish: Wish, state: State) -> None:
    found = memberships(state)
    inside = {user for user, (membership, _) in found.items() if membership == "join"}
    invited = {user for user, (membership, _) in found.items() if membership == "invite"}
    expected = wish.entitled().keys() - banned_by_others(wish, state)
    if wish.anyone_may_join:
        assert expected <= inside
        ours = {user for user in inside | invited if user.startswith("@openmeet_")}
        assert ours == expected
    else:
        assert inside == expected
        assert invited == set()
    for user in wish.banned():
        assert found[user][0] == "ban"
    for user, member in wish.members.items():
        if not member.get("banned"):
            assert found.get(puppet(wish.tenant, user), ("", "")) != ("ban", BOT)


def check_closed(state: State, version: str, *, listed: bool) -> None:
    """Check that a room is shut: nobody finds it, is in it or can do anything in it."""
    assert not listed
    assert state["m.room.join_rules", ""]["content"]["join_rule"] == "invite"
    levels = state["m.room.power_levels", ""]["content"]
    top = 150 if int(version) >= 12 else 100
    assert levels["events_default"] == levels["invite"] == levels["state_default"] == top
    assert state.get(("m.room.canonical_alias", ""), {"content": {}})["content"].get("alias") is None
    inside = {user for user, (kind, _) in memberships(state).items() if kind in ("join", "invite")}
    assert inside == set()

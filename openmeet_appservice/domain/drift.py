"""What others change in a room of ours: how it is noticed, and what a tenant wants done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Field(StrEnum):
    """What this service sees to in a room. A closed set: it labels metrics."""

    NAME = "name"
    TOPIC = "topic"
    AVATAR = "avatar"
    ALIASES = "aliases"
    JOIN_RULE = "join_rule"
    POWER_LEVELS = "power_levels"
    HISTORY = "history"
    GUESTS = "guests"
    ENCRYPTION = "encryption"
    TOMBSTONE = "tombstone"
    DIRECTORY = "directory"
    MEMBERS = "members"
    BANS = "bans"
    BOT = "bot"
    OTHER = "other"


class Drift(StrEnum):
    """What becomes of a change that somebody made in the room.

    ``correct``: it is set right. ``accept``: it stays until OpenMeet says something new of that field.
    """

    CORRECT = "correct"
    ACCEPT = "accept"


class Bans(StrEnum):
    """What becomes of a moderator's ban of somebody who belongs into the room; it is never taken back.

    ``keep``: it is reported as a difference. ``accept``: it is none.
    """

    KEEP = "keep"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """What a tenant wants done about changes that others make in its rooms, field by field."""

    name: Drift = Drift.CORRECT
    topic: Drift = Drift.CORRECT
    avatar: Drift = Drift.CORRECT
    aliases: Drift = Drift.CORRECT
    join_rule: Drift = Drift.CORRECT
    power_levels: Drift = Drift.CORRECT
    bans: Bans = Bans.KEEP

    def accepts(self, field: Field) -> bool:
        """Whether a change of *field* is left alone. What has no setting of its own is always set right."""
        return field in _CHOSEN and getattr(self, field) == Drift.ACCEPT


AS_DESIGNED: Final = DriftPolicy()
"""Everything is set right, and bans are kept."""


def drift_policy(chosen: Mapping[str, str]) -> DriftPolicy:
    """Return the policy that says by field what *chosen* says, and of others the default."""
    values: dict[str, Any] = {
        name: Bans(value) if name == "bans" else Drift(value) for name, value in chosen.items()
    }
    return DriftPolicy(**values)


_CHOSEN: Final = frozenset(
    {Field.NAME, Field.TOPIC, Field.AVATAR, Field.ALIASES, Field.JOIN_RULE, Field.POWER_LEVELS}
)

FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "m.room.name": Field.NAME,
        "m.room.topic": Field.TOPIC,
        "m.room.avatar": Field.AVATAR,
        "m.room.canonical_alias": Field.ALIASES,
        "m.room.join_rules": Field.JOIN_RULE,
        "m.room.power_levels": Field.POWER_LEVELS,
        "m.room.history_visibility": Field.HISTORY,
        "m.room.guest_access": Field.GUESTS,
        "m.room.encryption": Field.ENCRYPTION,
        "m.room.tombstone": Field.TOMBSTONE,
    }
)
"""The field of each type of state event that has one, those of members aside."""


@dataclass(frozen=True, slots=True)
class Touch:
    """That an event touches something this service sees to.

    Parameters
    ----------
    joins
        Whether it is somebody who came in.
    invited_by
        Of somebody who took up an invitation: who had sent that.
    """

    field: Field
    joins: bool = False
    invited_by: str | None = None


def touch_of(event: Mapping[str, Any]) -> Touch | None:
    """Return what *event*, as Synapse pushes it, touches; None for nearly all.

    A member's event that changes the name or picture only touches nothing.
    """
    kind, state_key = event.get("type"), event.get("state_key")
    if not isinstance(kind, str) or not isinstance(state_key, str):
        return None
    if kind == "m.room.member":
        return _membership(event)
    field = FIELDS.get(kind)
    return None if field is None or state_key else Touch(field)


def is_drift(touch: Touch, *, sender: str, bot: str, is_ours: bool) -> bool:
    """Whether the room has to be compared for it.

    What the bot sends is what the comparison came to, and so is a puppet that comes in. An invitation of
    the bot's that is taken up is what was wanted.

    Parameters
    ----------
    sender, bot
        Who sent the event, and the bot's user id.
    is_ours
        This service sent it as one of its puppets.
    """
    return sender != bot and touch.invited_by != bot and not (is_ours and touch.joins)


def _membership(event: Mapping[str, Any]) -> Touch | None:
    unsigned = _object(event.get("unsigned"))
    before = _object(unsigned.get("prev_content") or event.get("prev_content")).get("membership")
    now = _object(event.get("content")).get("membership")
    if before == now:
        return None
    if "ban" in (before, now):
        return Touch(Field.BANS)
    joins = now == "join"
    inviter = unsigned.get("prev_sender") if joins and before == "invite" else None
    return Touch(Field.MEMBERS, joins, inviter if isinstance(inviter, str) else None)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

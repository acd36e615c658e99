"""The words of OpenMeet: kinds, statuses, visibility and roles, as the provisioning API spells them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class EntityKind(StrEnum):
    """What has a room that is addressed by a slug."""

    EVENT = "event"
    GROUP = "group"
    DIRECT = "direct"


class EntityStatus(StrEnum):
    """How far an event or group has come."""

    DRAFT = "draft"
    PENDING = "pending"
    PUBLISHED = "published"
    CANCELLED = "cancelled"


class Visibility(StrEnum):
    """Who may find it."""

    PUBLIC = "public"
    UNLISTED = "unlisted"
    PRIVATE = "private"


class Access(StrEnum):
    """Who may walk in: its members only, or anyone."""

    MEMBERS = "members"
    ANYONE = "anyone"


class JoinPolicy(StrEnum):
    """Which of those who belong into a room join it at once; see `entitlement.all_join`."""

    AUTO = "auto"
    EAGER = "eager"
    LAZY = "lazy"


class AttendeeStatus(StrEnum):
    """What somebody answered to an event, or was answered. Group members have none."""

    INVITED = "invited"
    CONFIRMED = "confirmed"
    ATTENDED = "attended"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    MAYBE = "maybe"
    PENDING = "pending"
    WAITLIST = "waitlist"


class Wanted(StrEnum):
    """What an entity needs on Matrix.

    ``none``: no room, and none has been made. ``open``: a room that works. ``closed``: the room it
    has is kept, but nobody finds it, is in it or can write in it.
    """

    NONE = "none"
    OPEN = "open"
    CLOSED = "closed"


STATUSES: Final[Mapping[EntityKind, tuple[EntityStatus, ...]]] = MappingProxyType(
    {
        EntityKind.EVENT: tuple(EntityStatus),
        EntityKind.GROUP: (EntityStatus.DRAFT, EntityStatus.PENDING, EntityStatus.PUBLISHED),
        EntityKind.DIRECT: (EntityStatus.PUBLISHED,),
    }
)
"""The statuses that each kind can have."""

ROLES: Final[Mapping[EntityKind, tuple[str, ...]]] = MappingProxyType(
    {
        EntityKind.EVENT: ("host", "moderator", "speaker", "participant", "guest"),
        EntityKind.GROUP: ("owner", "admin", "moderator", "member", "guest"),
        EntityKind.DIRECT: ("member",),
    }
)
"""The roles of each kind, the mightiest first."""

DEFAULT_ROLE: Final[Mapping[EntityKind, str]] = MappingProxyType(
    {EntityKind.EVENT: "participant", EntityKind.GROUP: "member", EntityKind.DIRECT: "member"}
)
"""The role of a member who is given none."""

DEFAULT_POWER_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {"host": 100, "owner": 100, "admin": 75, "moderator": 50, "speaker": 25}
)
"""The power level of each role that has one; the others have 0."""

DEFAULT_CHAT_STATUSES: Final[frozenset[AttendeeStatus]] = frozenset(
    {AttendeeStatus.CONFIRMED, AttendeeStatus.ATTENDED, AttendeeStatus.CANCELLED}
)
"""The attendee statuses that may chat. OpenMeet lets people who answered "no" go on chatting."""

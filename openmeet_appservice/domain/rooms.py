"""A room as it should be and a room as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from openmeet_appservice.domain.drift import AS_DESIGNED, DriftPolicy
from openmeet_appservice.domain.entitlement import all_join, may_chat
from openmeet_appservice.domain.kinds import (
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    JoinPolicy,
    Visibility,
    Wanted,
)
from openmeet_appservice.domain.topic import DEFAULT_TEMPLATE, Schedule, fill_topic

JsonObject: TypeAlias = Mapping[str, Any]

MAX_NAME_BYTES: Final = 255
"""The longest room name (the limit of older Matrix specifications, which clients rely on)."""

MAX_TOPIC_BYTES: Final = 2_000
"""The longest topic: OpenMeet's descriptions have no limit, events have one."""

ENCRYPTED: Final[JsonObject] = {"algorithm": "m.megolm.v1.aes-sha2"}
"""The content of ``m.room.encryption``."""

MUTED: Final = -1
"""The power level of who may only read: below what every message needs."""

_PUBLISHED: Final = frozenset({EntityStatus.PUBLISHED, EntityStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """What a tenant chose for its rooms.

    Parameters
    ----------
    alias
        The template of aliases (`names.Template`).
    private_alias
        Whether private rooms have an alias too.
    version
        The version of new rooms; None for the homeserver's default.
    federate
        Whether people of other servers can be in new rooms. Cannot be changed later.
    access
        For entities that say nothing themselves.
    power_levels
        By role; roles not named have 0.
    chat_statuses
        The attendee statuses that may chat.
    topic
        The template of topics (`topic.fill_topic`), for entities that give none.
    encrypted
        Whether the rooms of entities that say nothing themselves are encrypted.
    join, join_auto_limit
        Who joins at once; see `entitlement.all_join`.
    drift
        What is done about changes that others make in rooms.
    """

    alias: str
    private_alias: bool
    version: str | None
    federate: bool
    access: Access
    power_levels: Mapping[str, int]
    chat_statuses: frozenset[AttendeeStatus]
    topic: str = DEFAULT_TEMPLATE
    encrypted: bool = False
    join: JoinPolicy = JoinPolicy.AUTO
    join_auto_limit: int = 50
    drift: DriftPolicy = AS_DESIGNED


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """What OpenMeet said about an event, group or direct room, and what is stored about it.

    Parameters
    ----------
    alias
        The full alias that is kept for it, whether or not its room has it now; direct rooms have none.
    alternatives
        Further full aliases that are kept for it: those of its former slugs.
    topic
        None or blank: the tenant's template is filled with *description*, *schedule* and *url*.
    avatar
        The ``mxc://`` URI of its picture, empty for none, None where that is not known (yet).
    access, encrypted
        None: as the tenant's settings say.
    archived
        It was deleted.
    has_room
        A room was made, or is perhaps being made.
    """

    kind: EntityKind
    name: str
    status: EntityStatus
    visibility: Visibility
    alias: str | None
    alternatives: tuple[str, ...] = ()
    topic: str | None = None
    description: str | None = None
    url: str | None = None
    schedule: Schedule | None = None
    avatar: str | None = ""
    access: Access | None = None
    encrypted: bool | None = None
    archived: bool = False
    has_room: bool = False


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A member as OpenMeet listed it, with its user id on Matrix. *status* None means confirmed.

    Who is *banned* may not come back, who is *muted* may only read.
    """

    user_id: str
    role: str
    status: AttendeeStatus | None = None
    banned: bool = False
    muted: bool = False


@dataclass(frozen=True, slots=True)
class DesiredMember:
    """Somebody who belongs into the room, with the power level of the role, or `MUTED`.

    Who does not *join* at once is let in when there is something to say, and stays then.
    """

    user_id: str
    power_level: int = 0
    joins: bool = True


@dataclass(frozen=True, slots=True)
class DesiredRoom:
    """The room as it should be.

    Parameters
    ----------
    wanted
        Unless ``open``, the room is closed (or none is made) and *name*, *topic* and *avatar* are left alone.
    bot
        The bot's user id.
    avatar
        An ``mxc://`` URI, empty for none; None leaves what there is.
    version, federate
        Of a room that is still to be made.
    join_rule
        ``public`` or ``invite``.
    listed
        Whether the server's room directory shows it.
    private
        Whether only the bot may invite.
    alias, alternatives
        The full public alias, None for none, and others beside it that lead here as well.
    encrypted
        Whether it is encrypted. Once it is it stays so.
    members
        Everybody who belongs into it, the bot not among them.
    banned
        Who may not come back.
    forgiven
        Whom OpenMeet lists and does not want banned: a ban of ours is taken back.
    removals_confirmed
        A person confirmed that many people may be removed at once.
    guarded
        The room was adopted and that is not enforced yet: nobody is removed from it or lowered.
    owners
        Of a direct room: the puppets among its two members, the one who makes it first. None: it is no
        direct room, and the bot's. See `domain.direct`.
    """

    wanted: Wanted
    bot: str
    name: str = ""
    topic: str = ""
    avatar: str | None = None
    version: str = "12"
    federate: bool = False
    join_rule: str = "invite"
    listed: bool = False
    private: bool = False
    alias: str | None = None
    alternatives: tuple[str, ...] = ()
    encrypted: bool = False
    members: tuple[DesiredMember, ...] = ()
    banned: frozenset[str] = frozenset()
    forgiven: frozenset[str] = frozenset()
    removals_confirmed: bool = False
    guarded: bool = False
    owners: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ActualRoom:
    """The room as the homeserver has it.

    Parameters
    ----------
    version
        The room version; ``1`` is what a room without one has (Matrix, ``m.room.create``).
    members
        Membership (``join``, ``invite``, ``leave``, ``ban``, ``knock``) by user id.
    state
        The content of the state events with an empty state key, by type.
    listed
        Whether the server's room directory shows it.
    aliases
        The full aliases in our namespace that point to this room.
    alias_target
        The room id that the desired alias points to, None for none (or no desired alias).
    alias_target_is_ours
        Whether that is a room of ours that may lose it: a former one or an orphan.
    taken
        Alternatives that lead to another room, which keeps them, with that room's id.
    ours
        Those among the members who are puppets of this tenant.
    our_bans
        Those who were banned by the bot, not by a moderator.
    kept_out
        Those of them whom it banned because they came back again and again.
    came
        Those who may have come by another hand than this service's, though they did not belong here.
    returners
        Those who were removed as often within an hour that the next time is one too many.
    marked
        Of a direct room: the puppets whose clients show it as a direct chat.
    """

    room_id: str
    version: str = "1"
    members: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, JsonObject] = field(default_factory=dict)
    listed: bool = False
    aliases: frozenset[str] = frozenset()
    alias_target: str | None = None
    alias_target_is_ours: bool = False
    taken: Mapping[str, str] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()
    our_bans: frozenset[str] = frozenset()
    kept_out: frozenset[str] = frozenset()
    came: frozenset[str] = frozenset()
    returners: frozenset[str] = frozenset()
    marked: frozenset[str] = frozenset()

    def content(self, event_type: str) -> JsonObject:
        """The content of a state event with an empty state key, empty if there is none."""
        return self.state.get(event_type, {})


def desired_room(
    entity: EntityFacts,
    members: Iterable[MemberFacts],
    settings: RoomSettings,
    *,
    bot: str,
    default_version: str,
    removals_confirmed: bool = False,
    entitled: int | None = None,
) -> DesiredRoom:
    """Derive the room that an event or group should have.

    Drafts and pending ones never had a room and get none; one that was published before, and an
    archived one, keeps its room closed. A cancelled event's room stays open and says so in the topic.
    A private room is for members, whatever *access* says. Names are cut to 255 bytes, topics to 2,000.

    Parameters
    ----------
    bot
        The bot's user id.
    default_version
        The homeserver's default room version, used where the settings name none.
    entitled
        How many belong into the room, where *members* are only some of them.
    """
    wanted = wanted_of(entity)
    if wanted is not Wanted.OPEN:
        return DesiredRoom(wanted=wanted, bot=bot, removals_confirmed=removals_confirmed)
    listed = tuple(members)
    private = entity.visibility is Visibility.PRIVATE
    alias = entity.alias if settings.private_alias or not private else None
    anyone = not private and (entity.access or settings.access) is Access.ANYONE
    return DesiredRoom(
        wanted=wanted,
        bot=bot,
        name=shortened(" ".join(entity.name.split()), MAX_NAME_BYTES),
        topic=_topic(entity, settings.topic),
        avatar=entity.avatar,
        version=settings.version or default_version,
        federate=settings.federate,
        join_rule="public" if anyone else "invite",
        listed=entity.visibility is Visibility.PUBLIC,
        private=private,
        alias=alias,
        alternatives=() if alias is None else entity.alternatives,
        encrypted=settings.encrypted if entity.encrypted is None else entity.encrypted,
        members=_desired_members(entity.kind, listed, settings, entitled),
        banned=frozenset(member.user_id for member in listed if member.banned),
        forgiven=frozenset(member.user_id for member in listed if not member.banned),
        removals_confirmed=removals_confirmed,
    )


def is_open(status: EntityStatus, *, archived: bool) -> bool:
    """Tell whether the room of something with that status is to be open; *archived*: it was deleted."""
    return status in _PUBLISHED and not archived


def shortened(text: str, limit: int) -> str:
    """*text* in at most *limit* bytes of UTF-8 (3 or more), a cut shown by an ellipsis."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    ellipsis = "…"
    kept = encoded[: limit - len(ellipsis.encode())]
    return kept.decode(errors="ignore").rstrip() + ellipsis


def wanted_of(entity: EntityFacts) -> Wanted:
    """Tell what the entity needs on Matrix."""
    if is_open(entity.status, archived=entity.archived):
        return Wanted.OPEN
    return Wanted.CLOSED if entity.has_room else Wanted.NONE


def _topic(entity: EntityFacts, template: str) -> str:
    text = (entity.topic or "").strip() or fill_topic(
        template,
        name=entity.name,
        description=entity.description or "",
        url=entity.url or "",
        schedule=entity.schedule,
    )
    if entity.status is EntityStatus.CANCELLED:
        text = f"Cancelled. {text}".strip()
    return shortened(text, MAX_TOPIC_BYTES)


def belongs(kind: EntityKind, member: MemberFacts, settings: RoomSettings) -> bool:
    """Whether a member belongs into the room."""
    return not member.banned and may_chat(kind, member.role, member.status, settings.chat_statuses)


def desired_member(member: MemberFacts, settings: RoomSettings, *, everybody: bool) -> DesiredMember:
    """Derive what is wanted of somebody who belongs into the room; *everybody* joins, or those with power."""
    power = settings.power_levels.get(member.role, 0)
    return DesiredMember(member.user_id, MUTED if member.muted else power, everybody or power > 0)


def _desired_members(
    kind: EntityKind, members: Iterable[MemberFacts], settings: RoomSettings, number: int | None
) -> tuple[DesiredMember, ...]:
    entitled = [member for member in members if belongs(kind, member, settings)]
    number = len(entitled) if number is None else number
    everybody = all_join(settings.join, settings.join_auto_limit, number)
    return tuple(desired_member(member, settings, everybody=everybody) for member in entitled)

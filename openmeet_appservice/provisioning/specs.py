"""What OpenMeet may want: the specs of users, events, groups and members."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from openmeet_appservice.domain.kinds import Access, AttendeeStatus, EntityStatus, Visibility
from openmeet_appservice.provisioning.texts import (
    Description,
    DisplayName,
    ExternalId,
    ImageUrl,
    MomentText,
    Name,
    PageUrl,
    SlugText,
    TimeZone,
    Topic,
)
from openmeet_appservice.web.models import ApiModel

EventRole = Literal["host", "moderator", "speaker", "participant", "guest"]
GroupRole = Literal["owner", "admin", "moderator", "member", "guest"]


class UserSpec(ApiModel):
    """A user of OpenMeet."""

    display_name: DisplayName = Field(
        description="What others see. Blank: the slug.", examples=["Ada Lovelace"]
    )
    external_id: ExternalId | None = Field(
        default=None, description="OpenMeet's own id. Once given it stays; another one is refused."
    )


class EntitySpec(ApiModel):
    """What events and groups have in common."""

    name: Name = Field(description="The room's name.", examples=["Board Games"])
    description: Description | None = Field(
        default=None, description="For the topic, where none is given (see the setting `rooms.topic`)."
    )
    topic: Topic | None = Field(
        default=None, description="The room's topic, of which rooms show the first 2,000 bytes."
    )
    image_url: ImageUrl | None = Field(
        default=None,
        description="Its picture, for the room's avatar: PNG, JPEG, GIF or WebP of at most 5 MiB, given "
        "without login or redirect. Fetched once, and again when the URL changes. Empty or absent: none. "
        "While it cannot be fetched the room keeps the avatar it has, and `sync.last_error` says why "
        "(`image_unavailable`, `image_unusable`, `image_refused`); nothing else waits for it.",
    )
    url: PageUrl | None = Field(default=None, description="Its page on OpenMeet, for the topic.")
    visibility: Visibility = Field(
        description="`public`: in the room directory. `unlisted`: found by its alias only. "
        "`private`: for members, without an alias."
    )
    access: Access | None = Field(
        default=None,
        description="Who may walk in: `members` only, or `anyone` (never into something private). "
        "Absent: as the tenant's settings say.",
    )

    encrypted: bool | None = Field(
        default=None,
        description="Whether the room is encrypted. An encrypted room stays so whatever is said later, until "
        "it is recreated; this service forwards what it cannot read. Absent: as the tenant's settings say.",
    )

    @field_validator("image_url", mode="after")
    @classmethod
    def _empty_is_none(cls, image_url: str | None) -> str | None:
        return image_url or None

    @field_validator("access", mode="after")
    @classmethod
    def _private_is_for_members(cls, access: Access | None, info: ValidationInfo) -> Access | None:
        if access is Access.ANYONE and info.data.get("visibility") is Visibility.PRIVATE:
            raise ValueError("What is private is for members only.")
        return access


class EventSpec(EntitySpec):
    """An event."""

    status: EntityStatus = Field(
        description="`draft` and `pending` have no room, or a closed one. "
        "A `cancelled` event's room stays open and says so in its topic."
    )
    starts_at: MomentText | None = Field(default=None, description="For the topic, with `ends_at`.")
    ends_at: MomentText | None = Field(default=None, description="Not before `starts_at`, and not without.")
    time_zone: TimeZone | None = Field(default=None, description="In which both are shown. Absent: UTC.")
    external_id: ExternalId | None = Field(
        default=None, description="OpenMeet's own id. Once given it stays; another one is refused."
    )

    @field_validator("ends_at", mode="after")
    @classmethod
    def _ends_after_it_starts(cls, ends_at: str | None, info: ValidationInfo) -> str | None:
        if ends_at is None or "starts_at" not in info.data:
            return ends_at
        starts_at = info.data["starts_at"]
        if starts_at is None:
            raise ValueError("It ends, so it has to start: give starts_at.")
        if ends_at < starts_at:
            raise ValueError("It ends before it starts.")
        return ends_at


class GroupSpec(EntitySpec):
    """A group."""

    status: Literal[EntityStatus.DRAFT, EntityStatus.PENDING, EntityStatus.PUBLISHED] = Field(
        description="`draft` and `pending` have no room, or a closed one."
    )
    external_id: ExternalId | None = Field(
        default=None, description="OpenMeet's own id. Once given it stays; another one is refused."
    )


class _Standing(ApiModel):
    """What members of events and groups have in common."""

    banned: bool = Field(
        default=False,
        description="Whether the user is kept out, and banned on Matrix. Taken back by `false`; who is only "
        "taken off the list stays banned.",
    )
    muted: bool = Field(default=False, description="Whether the user may only read.")


class AttendeeStanding(_Standing):
    """What somebody is in an event."""

    role: EventRole
    status: AttendeeStatus = Field(
        default=AttendeeStatus.CONFIRMED,
        description="What the attendee answered. The tenant's `chat_statuses` decide who may chat.",
    )


class GroupStanding(_Standing):
    """What somebody is in a group."""

    role: GroupRole = Field(description="A `guest` has applied, and may not chat.")


class Attendee(AttendeeStanding):
    """One member of an event."""

    user: SlugText = Field(description="The user's slug. A user never `PUT` gets a placeholder.")


class GroupMember(GroupStanding):
    """One member of a group."""

    user: SlugText = Field(description="The user's slug. A user never `PUT` gets a placeholder.")


class EventPut(EventSpec):
    """An event and, where given, exactly who belongs to it."""

    members: list[Attendee] | None = Field(default=None, description="Absent: as they are. Empty: nobody.")


class GroupPut(GroupSpec):
    """A group and, where given, exactly who belongs to it."""

    members: list[GroupMember] | None = Field(default=None, description="Absent: as they are. Empty: nobody.")


class AttendeeList(ApiModel):
    """Exactly who belongs to an event."""

    members: list[Attendee]


class GroupMemberList(ApiModel):
    """Exactly who belongs to a group."""

    members: list[GroupMember]


class AttendeeDelta(ApiModel):
    """A change of an event's members. Others stay as they are."""

    upsert: list[Attendee] = Field(default=[], description="Added, or changed.")
    remove: list[SlugText] = Field(default=[], description="Slugs of users; those not there are passed over.")


class GroupMemberDelta(ApiModel):
    """A change of a group's members. Others stay as they are."""

    upsert: list[GroupMember] = Field(default=[], description="Added, or changed.")
    remove: list[SlugText] = Field(default=[], description="Slugs of users; those not there are passed over.")


def stored(spec: ApiModel) -> dict[str, Any]:
    """Return what the store keeps of a spec: all but ``external_id`` and ``members``, as JSON values."""
    return spec.model_dump(mode="json", exclude={"external_id", "members"})

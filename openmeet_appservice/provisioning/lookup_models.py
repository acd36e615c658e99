"""What is asked of OpenMeet in a look-up, and what it may answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.provisioning.specs import Attendee, EventSpec, GroupMember, GroupSpec, UserSpec
from openmeet_appservice.store.hints import Kind
from openmeet_appservice.web.models import ApiModel

MAX_TOKEN = 2048
"""The longest token of a page of members."""

NextPage = Field(
    default=None,
    max_length=MAX_TOKEN,
    description="Sent back as `members_page_token` to get the next page; null on the last.",
)


class LookupRequest(ApiModel):
    """What OpenMeet is asked."""

    tenant: str
    kind: Kind
    slug: str
    user: str | None = Field(default=None, description="Only this member is asked about.")
    members_page_token: str | None = Field(default=None, description="`next_members_page_token` as answered.")


class EventFound(ApiModel):
    """An event as it is now."""

    spec: EventSpec
    members: list[Attendee] | None = Field(
        default=None,
        description="Exactly who belongs to it, or some with a token for the next. With `user`: that one, or "
        "nobody. Absent: as they are.",
    )
    next_members_page_token: str | None = NextPage


class GroupFound(ApiModel):
    """A group as it is now."""

    spec: GroupSpec
    members: list[GroupMember] | None = Field(
        default=None,
        description="Exactly who belongs to it, or some with a token for the next. With `user`: that one, or "
        "nobody. Absent: as they are.",
    )
    next_members_page_token: str | None = NextPage


class UserFound(ApiModel):
    """A user as it is now."""

    spec: UserSpec


AnyFound = EventFound | GroupFound | UserFound

ANSWERS: dict[str, type[AnyFound]] = {
    EntityKind.EVENT.value: EventFound,
    EntityKind.GROUP.value: GroupFound,
    "user": UserFound,
}
"""The model of the answer for each kind."""


def request_body(
    tenant_id: str, kind: Kind, slug: str, user: str | None, token: str | None
) -> dict[str, Any]:
    """Return the body of one request, without what there is not."""
    asked = LookupRequest(tenant=tenant_id, kind=kind, slug=slug, user=user, members_page_token=token)
    return asked.model_dump(mode="json", exclude_none=True)

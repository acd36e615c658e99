"""Events and groups behave alike; here is what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import FieldError, Invalid
from openmeet_appservice.provisioning.entity_writes import Place, Standings
from openmeet_appservice.provisioning.specs import (
    Attendee,
    AttendeeDelta,
    AttendeeList,
    AttendeeStanding,
    EventPut,
    EventSpec,
    GroupMember,
    GroupMemberDelta,
    GroupMemberList,
    GroupPut,
    GroupSpec,
    GroupStanding,
)
from openmeet_appservice.provisioning.states import RoomOnMatrix, SyncState
from openmeet_appservice.store.members import Standing
from openmeet_appservice.web.models import AnswerModel, Page
from openmeet_appservice.web.routes import Request


class EntityAnswer(AnswerModel):
    """What events and groups have in common."""

    tenant: str
    kind: EntityKind
    slug: str
    spec: EventSpec | GroupSpec
    matrix: RoomOnMatrix
    sync: SyncState
    etag: str


class EventAnswer(EntityAnswer):
    """An event."""

    spec: EventSpec


class GroupAnswer(EntityAnswer):
    """A group."""

    spec: GroupSpec


_Superseded = Annotated[
    bool, Field(description="The spec was older than the last accepted, and was not applied.")
]
_MembersSuperseded = Annotated[
    bool, Field(description="The members were older than the last accepted, and were not applied.")
]


class EventWritten(EventAnswer):
    """An event after a write."""

    superseded: _Superseded
    members_superseded: _MembersSuperseded


class GroupWritten(GroupAnswer):
    """A group after a write."""

    superseded: _Superseded
    members_superseded: _MembersSuperseded


class EventPage(Page[EventAnswer]):
    """Some of the events, by slug."""


class GroupPage(Page[GroupAnswer]):
    """Some of the groups, by slug."""


_ListEtag = Annotated[
    str, Field(description="Of the whole list; a page read with another one may not fit to this.")
]


class AttendeePage(Page[Attendee]):
    """Some of an event's members, in no particular order."""

    etag: _ListEtag


class GroupMemberPage(Page[GroupMember]):
    """Some of a group's members, in no particular order."""

    etag: _ListEtag


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds, with its models.

    Attributes
    ----------
    kind
        Which one.
    spec, put
        The spec by itself, and with ``members`` as ``PUT`` takes it.
    answer, written, page
        What is answered to a read, to a write, and as a list.
    member, standing, member_list, delta, member_page
        One member with and without its user, all of them, a change of some, and a page of them.
    """

    kind: EntityKind
    spec: type[EventSpec] | type[GroupSpec]
    put: type[EventPut] | type[GroupPut]
    answer: type[EventAnswer] | type[GroupAnswer]
    written: type[EventWritten] | type[GroupWritten]
    page: type[EventPage] | type[GroupPage]
    member: type[Attendee] | type[GroupMember]
    standing: type[AttendeeStanding] | type[GroupStanding]
    member_list: type[AttendeeList] | type[GroupMemberList]
    delta: type[AttendeeDelta] | type[GroupMemberDelta]
    member_page: type[AttendeePage] | type[GroupMemberPage]

    @property
    def tag(self) -> str:
        """``events`` or ``groups``: in paths, and for the reader of the documentation."""
        return f"{self.kind}s"

    @property
    def path(self) -> str:
        """The path of one of them."""
        return f"/v1/tenants/{{tenant}}/{self.tag}/{{{self.kind}}}"

    def place(self, request: Request) -> Place:
        """Return which one a request names."""
        return Place(request.path["tenant"], self.kind, request.path[self.kind.value])


EVENTS = Kind(
    kind=EntityKind.EVENT,
    spec=EventSpec,
    put=EventPut,
    answer=EventAnswer,
    written=EventWritten,
    page=EventPage,
    member=Attendee,
    standing=AttendeeStanding,
    member_list=AttendeeList,
    delta=AttendeeDelta,
    member_page=AttendeePage,
)

GROUPS = Kind(
    kind=EntityKind.GROUP,
    spec=GroupSpec,
    put=GroupPut,
    answer=GroupAnswer,
    written=GroupWritten,
    page=GroupPage,
    member=GroupMember,
    standing=GroupStanding,
    member_list=GroupMemberList,
    delta=GroupMemberDelta,
    member_page=GroupMemberPage,
)


def standing_of(model: AttendeeStanding | GroupStanding) -> Standing:
    """Return what the store keeps of a member's role and status."""
    status = model.status.value if isinstance(model, AttendeeStanding) else None
    return Standing(model.role, status, model.banned, model.muted)


def people(listed: Sequence[Attendee | GroupMember], pointer: str) -> Standings:
    """Return who is what, by slug.

    Parameters
    ----------
    pointer
        Where the list stands in the body, such as ``/members``.

    Raises
    ------
    Invalid
        A user is there twice.
    """
    refuse_doubled([member.user for member in listed], pointer, "/user")
    return {member.user: standing_of(member) for member in listed}


def refuse_doubled(slugs: Sequence[str], pointer: str, field: str = "") -> None:
    """Raise `Invalid`, naming each slug that came before already, case aside."""
    seen: set[str] = set()
    faults = []
    for position, slug in enumerate(slugs):
        if key(slug) in seen:
            faults.append(FieldError(f"{pointer}/{position}{field}", "given_twice", "This user came before."))
        seen.add(key(slug))
    if faults:
        raise Invalid(errors=faults[:100])


def member_model(kind: Kind, user: str, standing: Standing) -> BaseModel:
    """Return one member as the API shows it."""
    fields: Mapping[str, Any] = {
        "user": user,
        "role": standing.role,
        "banned": standing.banned,
        "muted": standing.muted,
    }
    if kind.kind is EntityKind.EVENT:
        fields = {**fields, "status": standing.status}
    return kind.member.model_validate(fields)

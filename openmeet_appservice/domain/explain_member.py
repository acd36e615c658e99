"""The daily question, "Ada can't see the chat": who may be in a room, who is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind, Wanted
from openmeet_appservice.domain.people import CAME_BACK
from openmeet_appservice.domain.rooms import MemberFacts


class Reason(StrEnum):
    """Why somebody belongs into a room, or does not."""

    MEMBER = "member"
    UNKNOWN_USER = "unknown_user"
    NOT_LISTED = "not_listed"
    BANNED = "banned"
    ROLE = "role_may_not_chat"
    STATUS = "status_may_not_chat"
    NO_ROOM_WANTED = "no_room_wanted"


class Membership(StrEnum):
    """What somebody is in a room, as the homeserver says; ``none``: never was anything there."""

    JOIN = "join"
    INVITE = "invite"
    KNOCK = "knock"
    LEAVE = "leave"
    BAN = "ban"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the homeserver says of somebody in the room.

    Parameters
    ----------
    by
        Who made it so, as a user id.
    at
        When, in milliseconds since the epoch by the homeserver's clock.
    reason
        What was given as the reason.
    """

    membership: Membership
    by: str | None = None
    at: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong last: a stable *code*, a *detail* for people, and when (milliseconds)."""

    code: str
    detail: str
    at: int


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one user and one event or group.

    Parameters
    ----------
    wanted
        What the entity needs on Matrix.
    has_room
        Whether its room is known.
    user_id, registered
        Of the user's puppet; None where OpenMeet never named such a user.
    member
        As OpenMeet lists the user, None for not at all.
    joins
        Whether the member joins at once.
    settled
        Whether the homeserver agrees with everything that is wanted of the entity.
    trouble, room_trouble
        What was refused about this user, and what keeps the whole entity from being as wanted.
    bot
        The bot's user id.
    """

    kind: EntityKind
    slug: str
    user: str
    wanted: Wanted
    has_room: bool
    user_id: str | None
    registered: bool
    member: MemberFacts | None
    joins: bool
    chat_statuses: Set[AttendeeStatus]
    seen: Seen
    settled: bool
    trouble: Trouble | None
    room_trouble: Trouble | None
    bot: str

    @property
    def reason(self) -> Reason:
        """Why the user belongs into the room, or does not."""
        if self.wanted is not Wanted.OPEN:
            return Reason.NO_ROOM_WANTED
        if self.user_id is None:
            return Reason.UNKNOWN_USER
        if self.member is None:
            return Reason.NOT_LISTED
        if self.member.banned:
            return Reason.BANNED
        if self.kind is EntityKind.DIRECT:
            return Reason.MEMBER
        if self.kind is EntityKind.GROUP:
            return Reason.ROLE if self.member.role == "guest" else Reason.MEMBER
        status = self.member.status or AttendeeStatus.CONFIRMED
        return Reason.MEMBER if status in self.chat_statuses else Reason.STATUS


def why(case: Case) -> str:
    """Say in a sentence why the user belongs into the room, or does not."""
    match case.reason:
        case Reason.NO_ROOM_WANTED:
            return f"The {case.kind} is not published (any more), so nobody is in its room."
        case Reason.UNKNOWN_USER:
            return f"OpenMeet never named a user {case.user}."
        case Reason.NOT_LISTED:
            return f"{case.user} is not on the {case.kind}'s list of members."
        case Reason.BANNED:
            return f"OpenMeet lists {case.user} as banned."
        case Reason.ROLE:
            return f"{case.user} has the role {_role(case)}, which may not chat."
        case Reason.STATUS:
            allowed = ", ".join(sorted(case.chat_statuses))
            return f"{case.user} has the status {_status(case)}; those who may chat: {allowed}."
        case _:
            status = f" with the status {_status(case)}" if case.kind is EntityKind.EVENT else ""
            return f"{case.user} is listed as {_role(case)}{status}, and may chat."


def advice(case: Case) -> tuple[str, ...]:
    """Say what to do so that the user is inside, if that is meant; nothing where all is well."""
    return tuple(_advice(case))


def _advice(case: Case) -> Iterator[str]:
    belongs = case.reason is Reason.MEMBER
    inside = case.seen.membership is Membership.JOIN
    if not belongs:
        yield _ENTITLE[case.reason].format(kind=case.kind, user=case.user)
        if inside:
            yield "The user is inside all the same and will be removed; if that does not happen, see below."
    elif not case.has_room:
        yield "The room is not made yet: wait, or see why below."
    elif case.seen.membership is Membership.BAN:
        yield _unban(case)
    elif case.seen.membership is Membership.UNKNOWN:
        yield "The homeserver did not say whether the user is inside: see whether it runs, and ask again."
    elif not inside and not case.joins:
        yield "Nothing: in so large a room this user joins with the first message sent through OpenMeet."
    elif not inside and case.settled and case.trouble is None:
        yield f"Have the room compared again: POST to the {case.kind}'s resync does it."
    elif not inside and case.trouble is None and case.room_trouble is None:
        yield "Wait: the room is being brought in line."
    if belongs and inside and case.member is not None and case.member.muted:
        yield "The user may only read: OpenMeet lists the member as muted."
    if case.trouble is not None:
        yield "See what the homeserver refused about this user; it is tried again by itself."
    if case.room_trouble is not None and not (belongs and inside):
        yield f"See why the {case.kind} is degraded ({case.room_trouble.code}); that may be in the way."


def _unban(case: Case) -> str:
    if case.seen.by != case.bot:
        return (
            f"A moderator ({case.seen.by}) has banned the user in the room. Nobody is unbanned silently: "
            "a moderator has to take it back."
        )
    if case.seen.reason == CAME_BACK:
        return "The service had banned the user for coming back again and again; it takes that back now."
    return "The service has banned the user for OpenMeet; it takes that back now."


def _role(case: Case) -> str:
    return "" if case.member is None else case.member.role


def _status(case: Case) -> str:
    status = case.member.status if case.member is not None else None
    return status or AttendeeStatus.CONFIRMED


_ENTITLE: Final = {
    Reason.NO_ROOM_WANTED: "Publish the {kind} on OpenMeet.",
    Reason.UNKNOWN_USER: "See whether the slug is right; else PUT the user, and the member of the {kind}.",
    Reason.NOT_LISTED: "If {user} should be inside, PUT the member of the {kind}.",
    Reason.BANNED: "If {user} should be inside, PUT the member with banned false.",
    Reason.ROLE: "If {user} should be inside, PUT the member with another role.",
    Reason.STATUS: "If {user} should be inside, PUT the member with a status that may chat.",
}

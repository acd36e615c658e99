"""Who may chat."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind


def may_chat(
    kind: EntityKind,
    role: str,
    status: AttendeeStatus | None,
    chat_statuses: AbstractSet[AttendeeStatus],
) -> bool:
    """Whether a member belongs into the room.

    Parameters
    ----------
    kind
        Of the entity whose member it is.
    role
        One of `kinds.ROLES` of that kind.
    status
        The attendee's status; None means ``confirmed``. A group's members have none, so there it
        does not count.
    chat_statuses
        The statuses that may chat, as the tenant chose.

    A group's ``guest`` has only applied to be a member, so he may not; every role of an event may, and so
    may both in a direct room.
    """
    if kind is EntityKind.DIRECT:
        return True
    if kind is EntityKind.GROUP:
        return role != "guest"
    return (status or AttendeeStatus.CONFIRMED) in chat_statuses

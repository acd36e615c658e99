"""Who may chat, and who of them is in the room from the beginning."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind, JoinPolicy


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


def all_join(policy: JoinPolicy, limit: int, entitled: int) -> bool:
    """Whether everybody who belongs into a room joins it at once, not only those with power.

    A homeserver takes 5 to 15 joins a second, so thousands of puppets take many minutes, and while their
    users only read through OpenMeet it buys nothing. The rule keeps nothing in mind, and nobody is made to
    leave by it: who is inside stays.

    Parameters
    ----------
    policy, limit
        As the tenant chose. Under ``auto`` all join where at most *limit* people belong into the room.
    entitled
        How many belong into it.
    """
    return policy is JoinPolicy.EAGER or (policy is JoinPolicy.AUTO and entitled <= limit)

"""Invitations of puppets into rooms that are not OpenMeet's: reading them, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from openmeet_appservice.domain.arrival import Arrival, loads
from openmeet_appservice.domain.names import MAX_BYTES


class InvitationPolicy(StrEnum):
    """What puppets answer to people who invite them to a direct chat."""

    ACCEPT = "accept"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True)
class Invited:
    """Somebody was invited.

    *direct* says that the inviter meant a direct chat.
    """

    user_id: str
    room_id: str
    inviter: str
    direct: bool


def read_invitation(arrival: Arrival) -> Invited | None:
    """Return the invitation that an event is, None for any other event."""
    if arrival.target is None:
        return None
    try:
        content = loads(arrival.body).get("content")
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("membership") != "invite":
        return None
    return Invited(
        user_id=arrival.target,
        room_id=arrival.room_id,
        inviter=arrival.sender[:MAX_BYTES],
        direct=content.get("is_direct") is True,
    )


def accepts(policy: InvitationPolicy, *, direct: bool) -> bool:
    """Tell whether an invitation is accepted: never into a room of several people."""
    return direct and policy is InvitationPolicy.ACCEPT

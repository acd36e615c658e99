"""What the reconciler is told about its surroundings."""

from __future__ import annotations

from dataclasses import dataclass

from openmeet_appservice.domain.invitations import InvitationPolicy
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.reconciler.full_check import FullCheckSettings


@dataclass(frozen=True, slots=True)
class ReconcilerSettings:
    """How the reconciler works.

    Parameters
    ----------
    server_name, bot_user_id
        The homeserver's name and the full id of the bot.
    rooms
        The room settings of tenants that chose nothing themselves.
    direct_invitations
        What puppets of such tenants answer to people who invite them to a direct chat.
    concurrency
        How many users and entities are worked on at the same time.
    member_concurrency
        How many people of one room are worked on at the same time. Synapse lets membership changes of
        a room pass one by one, so more than a few only make it slower (measured with 1 to 16).
    lease_ms
        For how long a row is taken at once, in milliseconds. Long work renews it every third of that.
    poll_seconds
        After how many seconds due work is looked for without having been woken.
    full_check
        How every room is compared once in a while; None: only when something changes.
    """

    server_name: str
    bot_user_id: str
    rooms: RoomSettings
    direct_invitations: InvitationPolicy = InvitationPolicy.DECLINE
    concurrency: int = 8
    member_concurrency: int = 4
    lease_ms: int = 30_000
    poll_seconds: float = 5.0
    full_check: FullCheckSettings | None = None

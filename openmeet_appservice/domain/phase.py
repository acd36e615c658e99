"""``sync.phase``: in one word, how far Synapse has followed."""

from __future__ import annotations

from enum import StrEnum

from openmeet_appservice.domain.kinds import Wanted


class Phase(StrEnum):
    """What the API shows of an event or group."""

    NONE = "none"
    PENDING = "pending"
    READY = "ready"
    DEGRADED = "degraded"
    ARCHIVED = "archived"
    DELETING = "deleting"


def phase(
    *,
    wanted: Wanted,
    archived: bool,
    generation: int,
    observed_generation: int,
    has_error: bool,
    has_room: bool,
    purge: bool = False,
) -> Phase:
    """Tell how far Synapse has followed what OpenMeet wants.

    Parameters
    ----------
    wanted
        As `rooms.desired_room` found it.
    archived
        OpenMeet deleted it.
    generation
        Counts the changes of what is wanted.
    observed_generation
        The one that Synapse was last seen to agree with.
    has_error
        The last attempt failed, or something is held for a person to confirm.
    has_room
        A room in use is recorded.
    purge
        Nothing of it is to be left; once that is so, there is nothing to have a phase.

    An error comes first: whoever waits should see that waiting alone may not help. Where there is no
    room and none is wanted there is nothing to wait for. A draft whose room is closed is as much
    ``none`` as one that never had a room.
    """
    if has_error:
        return Phase.DEGRADED
    if purge:
        return Phase.DELETING
    settled = observed_generation >= generation
    if wanted is Wanted.OPEN:
        return Phase.READY if settled and has_room else Phase.PENDING
    if has_room and not settled:
        return Phase.PENDING
    return Phase.ARCHIVED if archived else Phase.NONE

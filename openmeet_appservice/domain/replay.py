"""What is to be sent again: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from openmeet_appservice.domain.ranges import Range, common, is_empty, merged, without


class Only(StrEnum):
    """What of the events that the endpoint's lanes have passed."""

    FAILED = "failed"
    """Its dead letters."""
    MISSING = "missing"
    """What it never took: the dead letters, and what came before it received the room."""
    ALL = "all"
    """Everything that is in the log."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to send again.

    Parameters
    ----------
    since, until
        Only events that were stored at *since* or later, and before *until* (milliseconds since the epoch).
    from_sequence
        Only events from this sequence on; for one room.
    tenant
        Only this tenant's rooms (lower-case).
    room_ref
        Only this room, of *tenant*.
    letters
        With `Only.FAILED`: only the dead letters of these ids.
    """

    only: Only
    since: int | None = None
    until: int | None = None
    from_sequence: int | None = None
    tenant: str | None = None
    room_ref: str | None = None
    letters: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """In how many rooms events were queued, and how many."""

    rooms: int = 0
    events: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rooms + other.rooms, self.events + other.events)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter by its key, and the sequences that it names."""

    at: int
    id: str
    events: Range


@dataclass(frozen=True, slots=True)
class Standing:
    """How a room stands with an endpoint.

    Parameters
    ----------
    oldest
        The first sequence that is still in the log.
    acked
        The last one that the lane has passed; of a room without a lane, the newest there is.
    began_after
        What came up to here was never meant for the endpoint.
    letters
        The dead letters that may be used.
    queued
        What is to be sent again already.
    """

    oldest: int
    acked: int
    began_after: int
    letters: Sequence[Letter] = ()
    queued: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """What is to be done for a room.

    Parameters
    ----------
    ranges
        What to queue, in order.
    letters
        The dead letters that are used up: all that is left of their events is queued.
    began_after
        What `Standing.began_after` becomes, so that what was missing is missing no more.
    """

    ranges: tuple[Range, ...]
    letters: tuple[Letter, ...]
    began_after: int


def again(standing: Standing, window: Range, only: Only) -> Again:
    """Decide what of a room is sent again.

    A dead letter is used whole if any of its events is meant. What the lane has not passed yet comes anyway,
    and what is queued already is not queued twice.

    Parameters
    ----------
    window
        Only events within.
    """
    there = standing.oldest, standing.acked
    meant = common(window, there)
    wanted: list[Range] = []
    if only is Only.ALL:
        wanted.append(meant)
    else:
        wanted += [
            common(letter.events, there)
            for letter in standing.letters
            if not is_empty(common(letter.events, meant))
        ]
    if only is Only.MISSING:
        wanted.append(common(meant, (1, standing.began_after)))
    wanted = merged(wanted)
    used = [
        letter
        for letter in standing.letters
        if not is_empty(left := common(letter.events, there)) and not without([left], wanted)
    ]
    began_after = standing.began_after
    if only is not Only.FAILED and meant[0] <= began_after <= meant[1]:
        began_after = meant[0] - 1
    return Again(tuple(without(wanted, standing.queued)), tuple(used), began_after)

"""What of a room's history the log lacks: pure.

A room's history is walked from its oldest event to its newest, page by page, beginning behind the point up
to which the log is known to be complete::

    history   … ● ───── ● ── ● ── ○ ── ● ── ○ ── ○
                point   known     │    known  └──┴─ nothing of the log comes after them: if they are young,
                                  │                 they may be on their way, and are looked at again later
                                  └─ missing, for Synapse pushes a room's events in order

Where the point cannot be found, because history was purged on either side, nothing counts as missing that
is older than the first event that the log knows: that may be gone from the log on purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from openmeet_appservice.domain.arrival import Arrival


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a walk has come.

    Parameters
    ----------
    previous
        The event that comes before the next one, None where there is none.
    settled
        The last event up to which all is old enough to stay as it is: the new point, once what is missing
        up to there was added.
    counting
        Whether what the log lacks counts as missing; False until a known event was met.
    still
        Whether no young event was met yet.
    """

    previous: str | None = None
    settled: str | None = None
    counting: bool = True
    still: bool = True


def from_point(point: str | None) -> Walk:
    """Return the walk that begins behind *point*, with the first event of history where that is None."""
    return Walk(previous=point, settled=point)


def from_anywhere() -> Walk:
    """Return the walk that begins with the oldest event there is, because the point is not to be found."""
    return Walk(counting=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that the log lacks, and the one that it comes after (None: it is the first)."""

    event: Arrival
    after: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one page. *pending*: what is young at its end may be on its way; the walk ends there."""

    walk: Walk
    missing: tuple[Missing, ...]
    pending: bool


def newer_than(point: str | None, events: Sequence[Arrival]) -> Sequence[Arrival] | None:
    """Return those of *events*, the oldest first, that come after *point*; None where that is missing."""
    for index in range(len(events) - 1, -1, -1):
        if events[index].event_id == point:
            return events[index + 1 :]
    return None


def step(walk: Walk, events: Sequence[Arrival], known: Collection[str], *, grace: int) -> Step:
    """Walk over one page.

    Parameters
    ----------
    events
        The page, the oldest first.
    known
        The ids of those that the log has.
    grace
        How old an event is, in milliseconds, when it is certainly no longer on its way.
    """
    last_known = max((i for i, event in enumerate(events) if event.event_id in known), default=-1)
    previous, settled, counting, still = walk.previous, walk.settled, walk.counting, walk.still
    missing: list[Missing] = []
    pending = False
    for index, event in enumerate(events):
        young = is_young(event, grace)
        if event.event_id in known:
            counting = True
        elif counting and young and index > last_known:
            pending = True
            break
        elif counting:
            missing.append(Missing(event, previous))
        still = still and not young
        previous = event.event_id
        if still:
            settled = previous
    return Step(Walk(previous, settled, counting, still), tuple(missing), pending)


def is_young(event: Arrival, grace: int) -> bool:
    """Tell whether the event was sent so lately that it may still be on its way.

    An event with a time of its own choice in the future has an age below zero, and counts as old.
    """
    return event.age is not None and 0 <= event.age < grace

"""What the receiver does with a request, chosen by the seed, the place in the room's log, and the try.

It does not depend on when anything happens, so two runs with one seed meet the same misfortune wherever they
make the same batches. Each misfortune passes: after `LAST` unlucky tries a batch is taken.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

LAST = 4
"""How often in a row a batch is not taken at most."""


FIRST, AGAIN = 0.08, 0.4
"""How likely a batch is unlucky when it comes for the first time, and when it comes again."""


class Kind(Enum):
    """What can happen to a request."""

    TAKEN = "taken at once"
    SLOW = "taken slowly"
    STATUS = "answered with an error"
    REST = "told to come back later"
    TOO_LARGE = "told that it is too large"
    HANGS = "never answered"
    RESET = "connection reset before the answer"
    CUT = "connection reset in the middle of a 2xx"
    LATE = "taken, but answered too late"


@dataclass(frozen=True, slots=True)
class Treatment:
    """What to do. *status* of what is answered; *seconds* to wait before, or to ask to be left alone."""

    kind: Kind
    status: int = 200
    seconds: float = 0.0


TAKEN = Treatment(Kind.TAKEN)

_STATUSES = (500, 500, 500, 502, 503, 404, 401, 403, 301, 307, 400, 422, 408, 418)


def treat(
    seed: int, endpoint: str, room_id: str, first: int, events: int, tries: int, *, timeout: float
) -> Treatment:
    """Return what becomes of a request.

    Parameters
    ----------
    first, events
        Where its batch begins in the room's log, and how many events it holds.
    tries
        How often this batch has come before.
    timeout
        How long the sender waits, in seconds.
    """
    if tries >= LAST:
        return TAKEN
    chance = random.Random(f"{seed} {endpoint} {room_id} {first} {events} {tries}")
    # What was unlucky once is more often so again, else no batch would ever be refused three times.
    if chance.random() > (AGAIN if tries else FIRST):
        return TAKEN
    kind = chance.random()
    if kind < 0.15:
        return Treatment(Kind.SLOW, seconds=chance.uniform(0.05, 0.5) * timeout)
    if kind < 0.55:
        # A batch that is refused is so for what it holds: always the same then.
        status = random.Random(f"{seed} {endpoint} {room_id} {first} {events}").choice(_STATUSES)
        return Treatment(Kind.STATUS, status)
    if kind < 0.62:
        return Treatment(Kind.REST, chance.choice((429, 503)), seconds=1)
    if kind < 0.75 and events > 1:
        return Treatment(Kind.TOO_LARGE, 413)
    if kind < 0.82:
        return Treatment(Kind.HANGS)
    if kind < 0.88:
        return Treatment(Kind.RESET)
    if kind < 0.94:
        return Treatment(Kind.CUT)
    return Treatment(Kind.LATE, seconds=1.3 * timeout)

"""What follows from a try: pure.

=====================  ================================================================================
2xx                    taken
410                    the endpoint is gone: nothing more is sent to it
413                    the batch is split; a single event is refused for good
400, 422               tried again on the schedule; after `REFUSALS` such answers the batch's events go one
                       by one, each with a schedule of its own
429, 503 with          the whole endpoint is left alone for so long, and no less than the schedule says
``Retry-After``
all others, and none   tried again on the schedule: a wrong secret or a bad deploy on the other side must not
                       throw chat away
=====================  ================================================================================

What outlives the schedule is parked, or skipped, as the endpoint wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from openmeet_appservice.outbound import retry_after
from openmeet_appservice.outbound.client import Answer, NoAnswer

JITTER = 0.2
"""Each wait is up to this part shorter or longer, so that what failed together is not retried together."""

REFUSALS = 3
"""After so many refusals of a batch its events are sent one by one."""

LONGEST_REST_MS = 3_600_000
"""No endpoint is left alone for longer at its word, lest a typing error stops it for years."""

GONE, TOO_LARGE = 410, 413
REFUSED = frozenset({400, 422})
_RESTING = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Try:
    """What was tried.

    Parameters
    ----------
    events
        How many events were in the batch.
    attempts, refusals
        How often it failed before, and how many of these times it was refused with 400 or 422.
    """

    events: int
    attempts: int
    refusals: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The endpoint has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the same again *at* (milliseconds since the epoch)."""

    at: int


@dataclass(frozen=True, slots=True)
class Split:
    """Send the same events again at once, at most *most* at a time."""

    most: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint will never take this event: go on with the next."""


@dataclass(frozen=True, slots=True)
class Park:
    """The schedule is exhausted: stop this room."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The schedule is exhausted: go on with what comes next."""


@dataclass(frozen=True, slots=True)
class Disable:
    """The endpoint is gone: keep the batch, and stop the endpoint."""


Decision: TypeAlias = Taken | Retry | Split | Refused | Park | Skip | Disable


class Health(Enum):
    """What a try says of the endpoint, whatever it says of the batch."""

    SOUND = "sound"
    """Somebody was there and judged the batch."""
    FAILED = "failed"
    RESTING = "resting"
    """It asked to be left alone."""
    GONE = "gone"


def decide(
    result: Answer | NoAnswer,
    tried: Try,
    *,
    retry: Sequence[float],
    skip: bool,
    now: int,
    random: float,
) -> Decision:
    """Decide what to do with the batch after a try.

    Parameters
    ----------
    retry
        The waits between tries, in seconds.
    skip
        Whether what outlives the schedule is skipped instead of parked.
    now
        Milliseconds since the epoch.
    random
        At least 0 and below 1.
    """
    status = result.status if isinstance(result, Answer) else None
    if status is not None and 200 <= status < 300:
        return Taken()
    if status == GONE:
        return Disable()
    if status == TOO_LARGE:
        return Split(tried.events // 2) if tried.events > 1 else Refused()
    if status in REFUSED and tried.events > 1 and tried.refusals + 1 >= REFUSALS:
        return Split(1)
    if tried.attempts >= len(retry):
        return Skip() if skip else Park()
    factor = 1 - JITTER + 2 * JITTER * random
    scheduled = now + round(retry[tried.attempts] * 1000 * factor)
    return Retry(max(scheduled, rest_until(result, now) or 0))


def health(result: Answer | NoAnswer, now: int) -> Health:
    """Tell what a try says of the endpoint."""
    if not isinstance(result, Answer):
        return Health.FAILED
    if result.status == GONE:
        return Health.GONE
    if 200 <= result.status < 300 or result.status == TOO_LARGE or result.status in REFUSED:
        return Health.SOUND
    return Health.FAILED if rest_until(result, now) is None else Health.RESTING


def rest_until(result: Answer | NoAnswer, now: int) -> int | None:
    """Return until when the endpoint asked to be left alone (milliseconds since the epoch), if it did.

    By ``Retry-After``, with 429 or 503; at most `LONGEST_REST_MS`.
    """
    if not isinstance(result, Answer) or result.status not in _RESTING:
        return None
    wait = retry_after.wait_ms(result.headers, now=now, longest=LONGEST_REST_MS)
    return now + wait if wait > 0 else None


def describe(result: Answer | NoAnswer) -> str:
    """Say what came of a try to a person; never with the answer's body, which may hold anything."""
    return f"the answer was {result.status}" if isinstance(result, Answer) else result.detail

"""What follows from a try: pure.

2xx is taken. Every other answer, and none, is tried again on the schedule: a wrong secret or a bad deploy
on the other side must not throw chat away. What outlives the schedule is parked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openmeet_appservice.outbound.client import Answer, NoAnswer

JITTER = 0.2
"""Each wait is up to this part shorter or longer, so that what failed together is not retried together."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The endpoint has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the same again *at* (milliseconds since the epoch)."""

    at: int


@dataclass(frozen=True, slots=True)
class Park:
    """The schedule is exhausted: stop this room."""


Decision: TypeAlias = Taken | Retry | Park


def decide(
    result: Answer | NoAnswer, *, attempts: int, retry: Sequence[float], now: int, random: float
) -> Decision:
    """Decide what to do after a try.

    Parameters
    ----------
    attempts
        How many tries of this batch failed before.
    retry
        The waits between tries, in seconds.
    now
        Milliseconds since the epoch.
    random
        At least 0 and below 1.
    """
    if isinstance(result, Answer) and 200 <= result.status < 300:
        return Taken()
    if attempts >= len(retry):
        return Park()
    factor = 1 - JITTER + 2 * JITTER * random
    return Retry(now + round(retry[attempts] * 1000 * factor))


def outcome(result: Answer | NoAnswer) -> str:
    """Name what came of a try, for logs and metrics: ``2xx``, ``4xx``, ``timed_out``…"""
    return f"{result.status // 100}xx" if isinstance(result, Answer) else result.reason.value


def describe(result: Answer | NoAnswer) -> str:
    """Say what came of a try to a person; never with the answer's body, which may hold anything."""
    return f"the answer was {result.status}" if isinstance(result, Answer) else result.detail

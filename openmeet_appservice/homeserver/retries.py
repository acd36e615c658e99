"""When a request to the homeserver is made again, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)

# What a proxy answers while Synapse is away, and Synapse while a part of it is.
_PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a single call is. What outlives it is the caller's to schedule.

    Parameters
    ----------
    attempts
        How often a request is made at most.
    first_wait, longest_wait
        Seconds before the first repetition and the most there are between two; each is twice the one
        before. The homeserver's own ``Retry-After`` may be longer.
    budget
        Seconds after the start of the call from which on no repetition begins.
    """

    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 8.0
    budget: float = 60.0

    def wait(
        self, error: HomeserverError, attempt: int, elapsed: float, random: Callable[[], float]
    ) -> float | None:
        """Return how many seconds to wait after a failed attempt, None to give up.

        Parameters
        ----------
        error
            How it failed.
        attempt
            Which attempt failed, from 1.
        elapsed
            Seconds since the call began.
        random
            Returns a number from 0 up to but without 1.
        """
        if attempt >= self.attempts:
            return None
        backoff = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1))
        match error:
            case HomeserverLimited(retry_after=float(seconds)):
                # Never before the time it named, and not all who were told the same at once.
                wait = seconds + random() * self.first_wait
            case HomeserverLimited() | HomeserverUnreachable():
                wait = backoff / 2 + random() * backoff / 2
            case HomeserverRefused(status=status) if status in _PASSING:
                wait = backoff / 2 + random() * backoff / 2
            case _:
                return None
        return wait if elapsed + wait <= self.budget else None

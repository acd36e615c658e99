"""Why a run did not end well, as a person is told, and when it is tried next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
    NotReconciled,
)

UNREACHABLE = "homeserver_unreachable"
TOKEN_REFUSED = "as_token_refused"  # noqa: S105 # a code, no secret
ALIAS_TAKEN = "alias_taken"
LIMITED = "homeserver_limited"
OUTAGES = (UNREACHABLE, TOKEN_REFUSED)
"""The codes of failures that befall everything at once and end for everything at once."""

FIRST_WAIT_MS = 1_000
LONGEST_WAIT_MS = 5 * 60_000
LONGEST_OUTAGE_WAIT_MS = 15_000
PATIENT_WAIT_MS = 60 * 60_000


@dataclass(frozen=True, slots=True)
class Failure:
    """A stable *code*, a *detail* for people, and in how many milliseconds to try again.

    *lasting* says that waiting alone will hardly help: somebody has to do something.
    """

    code: str
    detail: str
    wait_ms: int
    lasting: bool = False


def describe(error: Exception, attempts: int, random_number: Callable[[], float]) -> Failure:
    """Say what *error* means for the user or entity that was being worked on.

    Parameters
    ----------
    attempts
        How many attempts failed before this one.
    random_number
        Returns a number in [0, 1); spreads what failed together.

    The wait doubles from 1 s to 5 min (15 s without an answer), unless the homeserver named a longer one.
    """
    wait = backoff_ms(attempts, random_number)
    match error:
        case HomeserverLimited(retry_after=seconds):
            return Failure(LIMITED, str(error), max(wait, round((seconds or 0) * 1000)))
        case HomeserverError():
            code = code_of(error)
            # A request that was under way when an outage ended must not wait as if it went on.
            longest = LONGEST_OUTAGE_WAIT_MS if code in OUTAGES else LONGEST_WAIT_MS
            return Failure(code, str(error), min(wait, longest))
        case NotReconciled(patient=patient):
            lasting = patient or error.code == ALIAS_TAKEN
            return Failure(error.code, error.detail, PATIENT_WAIT_MS if patient else wait, lasting)
        case _:
            return Failure(
                "internal_error", f"an error of this service ({type(error).__name__}); see its log", wait
            )


def code_of(error: HomeserverError) -> str:
    """Return the stable code of an answer, or none, of the homeserver."""
    match error:
        case HomeserverUnreachable():
            return UNREACHABLE
        case HomeserverRefused(status=401):
            return TOKEN_REFUSED
        case _:
            return "homeserver_refused"


def backoff_ms(attempts: int, random_number: Callable[[], float]) -> int:
    """Return the wait after *attempts* + 1 failures, half of it at random."""
    full = min(LONGEST_WAIT_MS, FIRST_WAIT_MS << min(attempts, 20))
    return round(full * (0.5 + random_number() / 2))

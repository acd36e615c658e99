"""What a try says of the endpoint, whatever was sent."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.delivery.policy import Health, health, rest_until
from openmeet_appservice.domain.webhook_types import ENDPOINT_DISABLED
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import breaker, endpoints, notices
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.ids import NewId

ANSWER_KEPT = 1000
"""How many characters of an answer are kept with the attempt."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A try that ended *now* (milliseconds since the epoch).

    *source* names the room whose events were sent, or what else was: the breaker opens only for failures of
    several.
    """

    endpoint: Endpoint
    source: str
    answer: Answer | NoAnswer
    now: int


@dataclass(frozen=True, slots=True)
class Judged:
    """How the endpoint stands after `judge`.

    *disabled* and *closed* tell that it was disabled, or its breaker closed, just now; *open_until* that the
    breaker opened just now (milliseconds since the epoch).
    """

    disabled: bool = False
    closed: bool = False
    open_until: int | None = None


def judge(connection: Connection, tried: Tried, *, random: float, new_id: NewId) -> Judged:
    """Record what a try says of the endpoint, unless that was changed meanwhile: it is another one then.

    Where it is disabled, the others are told.
    """
    if not endpoints.is_unchanged(connection, tried.endpoint):
        return Judged()
    key, now = tried.endpoint.key, tried.now
    match health(tried.answer, now):
        case Health.SOUND:
            return Judged(closed=breaker.succeeded(connection, key))
        case Health.GONE:
            breaker.succeeded(connection, key)
            disabled = breaker.disable(connection, key, now=now)
            if disabled:
                _tell_the_others(connection, tried, new_id)
            return Judged(disabled=disabled)
        case Health.RESTING:
            breaker.rest(connection, key, until=rest_until(tried.answer, now) or now)
            return Judged(closed=breaker.succeeded(connection, key))
        case Health.FAILED:
            until = breaker.failed(connection, key, tried.source, now=now, random=random)
            return Judged(open_until=until)


def is_failure(tried: Tried) -> bool:
    """Tell whether the endpoint did not answer sensibly."""
    return health(tried.answer, tried.now) is Health.FAILED


def says_nothing_new(tried: Tried) -> bool:
    """Tell whether `judge` has nothing to write, as far as was known when it was claimed what to send."""
    endpoint = tried.endpoint
    return (
        health(tried.answer, tried.now) is Health.SOUND
        and endpoint.breaker == breaker.CLOSED
        and not endpoint.breaker_failures
    )


def attempt(
    tried: Tried,
    *,
    tenant: str,
    webhook_id: str,
    type: str,
    new_id: NewId,
    room_ref: str | None = None,
    first: int | None = None,
    last: int | None = None,
) -> Attempt:
    """Return what is kept of the try; see `store.attempts.Attempt`."""
    answer = tried.answer
    if isinstance(answer, Answer):
        status, began = answer.status, answer.body_start.decode(errors="replace")[:ANSWER_KEPT]
    else:
        status, began = None, answer.detail
    return Attempt(
        owner=tried.endpoint.owner,
        endpoint_ref=tried.endpoint.ref,
        at=tried.now,
        id=new_id("attempt"),
        tenant=tenant,
        webhook_id=webhook_id,
        type=type,
        room_ref=room_ref,
        first=first,
        last=last,
        outcome=answer.outcome,
        status=status,
        milliseconds=round(answer.seconds * 1000),
        answer=began or None,
    )


def _tell_the_others(connection: Connection, tried: Tried, new_id: NewId) -> None:
    endpoint = tried.endpoint
    data = {
        "endpoint": {
            "name": endpoint.name,
            "url": endpoint.wanted.url,
            "platform": endpoint.owner == PLATFORM,
        },
        "reason": "it answered 410",
    }
    notices.add(
        connection,
        endpoint.owner,
        ENDPOINT_DISABLED,
        data,
        now=tried.now,
        new_id=new_id,
        but=endpoint.key,
    )

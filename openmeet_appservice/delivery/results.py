"""The transactions of delivery that record what came of a try: of the batch, and of the endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import Connection

from openmeet_appservice.delivery.claim import Job
from openmeet_appservice.delivery.policy import (
    REFUSED,
    Decision,
    Disable,
    Health,
    Park,
    Refused,
    Retry,
    Skip,
    Split,
    Taken,
    describe,
    health,
    rest_until,
)
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import attempts, batches, breaker, dead_letters, endpoints, lanes
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.ids import NewId

ANSWER_KEPT = 1000
"""How many characters of an answer are kept with the attempt."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of sending *job*, decided *now* (milliseconds since the epoch)."""

    job: Job
    answer: Answer | NoAnswer
    decision: Decision
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


def record(connection: Connection, result: Result, *, new_id: NewId) -> bool:
    """Record a try and what follows for its lane; False when the lease was lost, and nothing is recorded."""
    lane, batch, decision = result.job.lane, result.job.batch, result.decision
    if not _follow(connection, result):
        # The endpoint may be gone with its lanes, and nobody would ever drop what is recorded of it.
        return False
    attempts.record(connection, _attempt(result, new_id))
    if isinstance(decision, Refused | Skip):
        dead_letters.record(connection, _letter(result, new_id))
    if isinstance(decision, Taken | Refused | Skip | Split):
        batches.end(connection, lane, batch.webhook_id)
    return True


def _follow(connection: Connection, result: Result) -> bool:
    """Do with the lane what was decided; False when the lease was lost."""
    lane, batch, now = result.job.lane, result.job.batch, result.now
    match result.decision:
        case Taken() | Refused() | Skip():
            return lanes.taken(connection, lane, last=batch.last, now=now, replay_ref=batch.replay_ref)
        case Split(most):
            return lanes.narrow(connection, lane, most=most, through=batch.last, now=now)
        case Retry(at):
            refused = isinstance(result.answer, Answer) and result.answer.status in REFUSED
            return lanes.fail(connection, lane, retry_at=at, refused=refused)
        case Park():
            return lanes.park(connection, lane, now=now)
        case Disable():
            return lanes.give_back(connection, lane, due_at=now)
        case _:
            assert_never(result.decision)


def judge(connection: Connection, result: Result, *, random: float) -> Judged:
    """Record what a try says of the endpoint, unless that was changed meanwhile: it is another one then."""
    if not endpoints.is_unchanged(connection, result.job.endpoint):
        return Judged()
    endpoint, now = result.job.lane.endpoint, result.now
    match health(result.answer, now):
        case Health.SOUND:
            return Judged(closed=breaker.succeeded(connection, endpoint))
        case Health.GONE:
            breaker.succeeded(connection, endpoint)
            return Judged(disabled=breaker.disable(connection, endpoint, now=now))
        case Health.RESTING:
            breaker.rest(connection, endpoint, until=rest_until(result.answer, now) or now)
            return Judged(closed=breaker.succeeded(connection, endpoint))
        case Health.FAILED:
            room_ref = result.job.lane.room_ref
            return Judged(open_until=breaker.failed(connection, endpoint, room_ref, now=now, random=random))


def says_nothing_new(result: Result) -> bool:
    """Tell whether `judge` has nothing to write, as far as was known when the batch was claimed."""
    endpoint = result.job.endpoint
    return (
        health(result.answer, result.now) is Health.SOUND
        and endpoint.breaker == breaker.CLOSED
        and not endpoint.breaker_failures
    )


def _attempt(result: Result, new_id: NewId) -> Attempt:
    lane, batch, answer = result.job.lane, result.job.batch, result.answer
    if isinstance(answer, Answer):
        status, began = answer.status, answer.body_start.decode(errors="replace")[:ANSWER_KEPT]
    else:
        status, began = None, answer.detail
    return Attempt(
        owner=lane.owner,
        endpoint_ref=lane.endpoint_ref,
        at=result.now,
        id=new_id("attempt"),
        tenant=lane.tenant,
        webhook_id=batch.webhook_id,
        type=ROOM_EVENTS,
        room_ref=lane.room_ref,
        first=batch.first,
        last=batch.last,
        outcome=answer.outcome,
        status=status,
        milliseconds=round(answer.seconds * 1000),
        answer=began or None,
    )


def _letter(result: Result, new_id: NewId) -> DeadLetter:
    lane, batch = result.job.lane, result.job.batch
    return DeadLetter(
        owner=lane.owner,
        endpoint_ref=lane.endpoint_ref,
        at=result.now,
        id=new_id("letter"),
        tenant=lane.tenant,
        room_ref=lane.room_ref,
        first=batch.first,
        last=batch.last,
        reason=Reason.REFUSED if isinstance(result.decision, Refused) else Reason.EXHAUSTED,
        detail=describe(result.answer),
    )

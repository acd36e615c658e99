"""The transaction of delivery that records what came of a try to deliver a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import Connection

from openmeet_appservice.delivery.claim import Job
from openmeet_appservice.delivery.judging import Tried, attempt
from openmeet_appservice.delivery.policy import (
    REFUSED,
    Decision,
    Disable,
    Park,
    Refused,
    Retry,
    Skip,
    Split,
    Taken,
    describe,
)
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import attempts, batches, dead_letters, lanes
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.ids import NewId


@dataclass(frozen=True, slots=True)
class Result:
    """What came of sending *job*, decided *now* (milliseconds since the epoch)."""

    job: Job
    answer: Answer | NoAnswer
    decision: Decision
    now: int

    @property
    def tried(self) -> Tried:
        """What it says of the endpoint."""
        return Tried(self.job.endpoint, self.job.lane.room_ref, self.answer, self.now)


def record(connection: Connection, result: Result, *, new_id: NewId) -> bool:
    """Record a try and what follows for its lane; False when the lease was lost, and nothing is recorded."""
    lane, batch, decision = result.job.lane, result.job.batch, result.decision
    if not _follow(connection, result):
        # The endpoint may be gone with its lanes, and nobody would ever drop what is recorded of it.
        return False
    attempts.record(connection, _attempt(result, new_id))
    if isinstance(decision, Refused | Skip):
        dead_letters.record(connection, _letter(result, new_id), new_id=new_id)
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


def _attempt(result: Result, new_id: NewId) -> Attempt:
    lane, batch = result.job.lane, result.job.batch
    return attempt(
        result.tried,
        tenant=lane.tenant,
        webhook_id=batch.webhook_id,
        type=ROOM_EVENTS,
        new_id=new_id,
        room_ref=lane.room_ref,
        first=batch.first,
        last=batch.last,
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

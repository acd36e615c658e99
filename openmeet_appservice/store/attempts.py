"""Attempts: every try to deliver a webhook, what came of it, and how the answer began.

Kept for a while, for people who want to know why something did not arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_

from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.tables import delivery_attempts, endpoints

FORGET_AT_ONCE = 2000
"""How many are dropped in one transaction, for ingest waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try.

    Parameters
    ----------
    owner, endpoint_ref
        The endpoint.
    at
        When it ended (milliseconds since the epoch).
    tenant
        Whose events they were, or the endpoint's owner.
    room_ref, first, last
        Which events, where they were a room's.
    outcome
        ``2xx``, ``5xx``, ``timed_out``…
    status
        The HTTP status; None where nobody answered.
    milliseconds
        How long it took.
    answer
        How the answer's body began, or why there was none.
    """

    owner: str
    endpoint_ref: str
    at: int
    id: str
    tenant: str
    webhook_id: str
    type: str
    room_ref: str | None
    first: int | None
    last: int | None
    outcome: str
    status: int | None
    milliseconds: int
    answer: str | None


def record(connection: Connection, attempt: Attempt) -> None:
    """Store an attempt."""
    connection.execute(
        _RECORD,
        {
            "owner": attempt.owner,
            "endpoint_ref": attempt.endpoint_ref,
            "at": attempt.at,
            "id": attempt.id,
            "tenant": attempt.tenant,
            "webhook_id": attempt.webhook_id,
            "type": attempt.type,
            "room_ref": attempt.room_ref,
            "first_sequence": attempt.first,
            "last_sequence": attempt.last,
            "outcome": attempt.outcome,
            "status": attempt.status,
            "milliseconds": attempt.milliseconds,
            # PostgreSQL takes no NUL, and whoever answers may send anything.
            "answer": None if attempt.answer is None else attempt.answer.replace("\0", "\ufffd"),
        },
    )


# Built once: building a statement costs more than running it.
_RECORD = insert(delivery_attempts)


def list_page(
    connection: Connection, endpoint: EndpointKey, *, limit: int, before: tuple[int, str] | None = None
) -> list[Attempt]:
    """Return up to *limit* attempts, the newest first.

    Parameters
    ----------
    before
        ``(at, id)`` of the last one of the page before.
    """
    columns = delivery_attempts.c
    query = select(delivery_attempts).where(columns.owner == endpoint[0], columns.endpoint_ref == endpoint[1])
    if before is not None:
        query = query.where(tuple_(columns.at, columns.id) < before)
    query = query.order_by(columns.at.desc(), columns.id.desc()).limit(limit)
    return [_attempt(row) for row in connection.execute(query)]


def forget(connection: Connection, *, before: int) -> int:
    """Drop up to `FORGET_AT_ONCE` attempts from before *before* (milliseconds since the epoch).

    Returns how many; repeat it while there were any.
    """
    columns, dropped = delivery_attempts.c, 0
    # By endpoint, as they are kept in order; those of an endpoint that is removed go with it.
    for owner, ref in connection.execute(select(endpoints.c.tenant, endpoints.c.id)).all():
        of_endpoint = (columns.owner == owner, columns.endpoint_ref == ref)
        oldest = connection.execute(
            select(columns.at, columns.id)
            .where(*of_endpoint, columns.at < before)
            .order_by(columns.at, columns.id)
            .limit(FORGET_AT_ONCE - dropped)
        ).all()
        if oldest:
            upto = tuple_(columns.at, columns.id) <= tuple(oldest[-1])
            dropped += connection.execute(delete(delivery_attempts).where(*of_endpoint, upto)).rowcount
        if dropped >= FORGET_AT_ONCE:
            break
    return dropped


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        owner=row.owner,
        endpoint_ref=row.endpoint_ref,
        at=row.at,
        id=row.id,
        tenant=row.tenant,
        webhook_id=row.webhook_id,
        type=row.type,
        room_ref=row.room_ref,
        first=row.first_sequence,
        last=row.last_sequence,
        outcome=row.outcome,
        status=row.status,
        milliseconds=row.milliseconds,
        answer=row.answer,
    )

"""Idempotency keys: which requests were begun, and what was answered to them.

::

    (none) ──begin──▶ running ──answer──▶ answered ──24 h──▶ (none)
      ▲                  │
      └── end, or dead ──┘

A request whose process died stays *running*; after `RUNNING_MS` the key is free again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.tables import idempotency_keys

KEPT_MS: Final = 24 * 60 * 60 * 1000
"""How long an answer is kept, in milliseconds."""

RUNNING_MS: Final = 2 * 60 * 1000
"""How long a request may run before it is taken for dead, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key on one path: *tenant* in lower case (empty outside tenants), *route* is method and path."""

    tenant: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The request was answered with *status*; *body* is None where it showed a secret."""

    status: int
    body: str | None


Begun: TypeAlias = Answered | Literal["fresh", "running", "other"]
"""``fresh``: to be done, and recorded as running. ``other``: the key was used for another request."""


def begin(connection: Connection, key: Key, body_digest: str, *, now: int) -> Begun:
    """Say what is known of *key*, and record the request as running where it is to be done.

    Of two at once, one gets ``fresh``. *body_digest* is the SHA-256 (hex) of what makes the request.
    """
    row = {
        "tenant": key.tenant,
        "route": key.route,
        "key": key.key,
        "body_digest": body_digest,
        "created_at": now,
    }
    if insert_if_absent(connection, idempotency_keys, row):
        return "fresh"
    found = connection.execute(select(idempotency_keys).where(_is(key)).with_for_update()).one_or_none()
    if found is None:
        # It was forgotten between the two statements; the other request is over.
        return begin(connection, key, body_digest, now=now)
    if now - found.created_at >= (RUNNING_MS if found.status is None else KEPT_MS):
        connection.execute(
            update(idempotency_keys)
            .where(_is(key))
            .values(body_digest=body_digest, status=None, response=None, created_at=now)
        )
        return "fresh"
    if found.body_digest != body_digest:
        return "other"
    return "running" if found.status is None else Answered(found.status, found.response)


def answer(connection: Connection, key: Key, answered: Answered) -> None:
    """Keep the answer of a request that was ``fresh``."""
    connection.execute(
        update(idempotency_keys).where(_is(key)).values(status=answered.status, response=answered.body)
    )


def end(connection: Connection, key: Key) -> None:
    """Let a request that was ``fresh`` be repeated: it was refused, or its outcome is not known."""
    connection.execute(delete(idempotency_keys).where(_is(key)))


def forget(connection: Connection, *, now: int) -> int:
    """Drop the keys that were used more than `KEPT_MS` ago; return how many."""
    return connection.execute(
        delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - KEPT_MS)
    ).rowcount


def _is(key: Key) -> ColumnElement[bool]:
    return and_(
        idempotency_keys.c.tenant == key.tenant,
        idempotency_keys.c.route == key.route,
        idempotency_keys.c.key == key.key,
    )

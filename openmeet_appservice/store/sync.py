"""What is still to be made true on the homeserver: one row for each user, each entity, each open invitation.

A write of desired state raises ``generation`` and makes the row due; the reconciler, once Synapse agrees,
sets ``observed_generation``. A row is worked on by one worker at a time::

    idle ──touch──▶ due ──claim──▶ leased ──finish──▶ idle, or due again if touched meanwhile
                     ▲               │
                     ├──── fail ─────┤   due at the next attempt, the error kept
                     ├──── wait ─────┤   due once what is awaited pokes it
                     └─ lease ends ──┘   the worker died; its late results are refused by the epoch

While a row is leased its ``due_at`` is the end of the lease, so that a dead worker's rows come back by
themselves; any other value there says that it was touched meanwhile.

Whatever makes a row due is counted in ``touches``. Most of it asks for the whole to be compared
(``whole_touch``); a change of a few members asks for them alone, who then stand in `store.checks`. What a run
began with is dealt with when it ends well (``seen_touch``); so nothing is lost however a run ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.tables import sync

Subject = Literal["user", "entity", "invite"]

Announced = Literal["ready", "lacking", "degraded", "archived"]
"""What OpenMeet was told of an event or group; see `reconciler.announcing`."""


@dataclass(frozen=True, slots=True)
class SyncError:
    """Why Synapse does not agree yet.

    *at* is in milliseconds since the epoch. Of what is tried apart from the row, *attempts* and *next_at*
    tell how often in a row and when next; else the row itself does.
    """

    code: str
    detail: str
    at: int
    attempts: int | None = None
    next_at: int | None = None


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How far a user or entity has come. *due_at* is None when nothing is to do.

    *memory* is what the reconciler remembers of the entity's room (`domain.verdict.Memory`).
    """

    generation: int
    observed_generation: int
    attempts: int
    due_at: int | None
    error: SyncError | None
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class Touched:
    """A row after a touch: *touches* is that one's number."""

    generation: int
    observed_generation: int
    touches: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One row, held by one worker until *until* (milliseconds since the epoch).

    *touches* is how often it had been touched when it was claimed, *whole* whether more than single members
    had to be compared then.
    """

    tenant: str
    subject: Subject
    ref: str
    generation: int
    attempts: int
    epoch: int
    until: int
    touches: int = 0
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the next row becomes due (milliseconds since the epoch), None for none, and how many are to do."""

    next_due: int | None
    pending: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands once a result is recorded: *attempts* counts the failures in a row."""

    generation: int
    attempts: int
    announced: Announced | None


def touch(connection: Connection, tenant: str, subject: Subject, ref: str, *, now: int) -> int:
    """Say that the desired state has changed; return the new generation."""
    return change(connection, tenant, subject, ref, now=now).generation


def change(
    connection: Connection, tenant: str, subject: Subject, ref: str, *, now: int, whole: bool = True
) -> Touched:
    """Say that the desired state has changed; not *whole*: only that of members in `store.checks`."""
    upsert = _insert_for(connection)(sync).values(
        tenant=tenant,
        subject=subject,
        ref=ref,
        generation=1,
        observed_generation=0,
        due_at=now,
        attempts=0,
        touches=1,
        whole_touch=1,
        seen_touch=0,
        lease_epoch=0,
        compared_at=now if subject == "entity" else None,
    )
    touches = sync.c.touches + 1
    statement = upsert.on_conflict_do_update(
        index_elements=["tenant", "subject", "ref"],
        set_={
            "generation": sync.c.generation + 1,
            "due_at": now,
            "attempts": 0,
            "touches": touches,
            "whole_touch": touches if whole else sync.c.whole_touch,
        },
    ).returning(sync.c.generation, sync.c.observed_generation, sync.c.touches)
    return Touched(*connection.execute(statement).one())


def poke(connection: Connection, tenant: str, subject: Subject, ref: str, *, now: int) -> None:
    """Have the row compared again soon, as a whole, though nothing new is wanted."""
    connection.execute(update(sync).where(_row(tenant, subject, ref)).values(due_at=now, **_whole_again()))


def poke_members(connection: Connection, tenant: str, ref: str, *, now: int) -> int | None:
    """Have members of an entity, noted in `store.checks` with the number returned, compared again soon.

    None where there is no such row.
    """
    return connection.execute(
        update(sync)
        .where(_row(tenant, "entity", ref))
        .values(due_at=now, touches=sync.c.touches + 1)
        .returning(sync.c.touches)
    ).scalar_one_or_none()


def poke_by(connection: Connection, tenant: str, subject: Subject, ref: str, *, at: int) -> None:
    """Have the row compared again, as a whole, at *at*, unless it is due before.

    *at* is in milliseconds since the epoch.
    """
    later = or_(sync.c.due_at.is_(None), sync.c.due_at > at, sync.c.due_at == sync.c.lease_until)
    due_at = case((later, at), else_=sync.c.due_at)
    connection.execute(update(sync).where(_row(tenant, subject, ref)).values(due_at=due_at, **_whole_again()))


def status(connection: Connection, tenant: str, subject: Subject, ref: str) -> SyncStatus | None:
    """Return how far it has come, None for what was never wanted."""
    found = connection.execute(select(sync).where(_row(tenant, subject, ref))).one_or_none()
    if found is None:
        return None
    return SyncStatus(
        generation=found.generation,
        observed_generation=found.observed_generation,
        attempts=found.attempts,
        due_at=found.due_at,
        error=read_error(found.error),
        memory=found.memory,
    )


def forget(connection: Connection, tenant: str, subject: Subject, ref: str) -> None:
    """Drop the row: what it was for is done for good. Results that come later are refused."""
    connection.execute(delete(sync).where(_row(tenant, subject, ref)))


def claim_due(connection: Connection, *, now: int, lease: int, limit: int) -> list[Lease]:
    """Take up to *limit* due rows, the longest due first, each for *lease* milliseconds."""
    due = connection.execute(
        select(
            sync.c.tenant,
            sync.c.subject,
            sync.c.ref,
            sync.c.generation,
            sync.c.attempts,
            sync.c.touches,
            (sync.c.whole_touch > sync.c.seen_touch).label("whole"),
            sync.c.lease_epoch,
        )
        .where(sync.c.due_at <= now, or_(sync.c.lease_until.is_(None), sync.c.lease_until <= now))
        .order_by(sync.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    taken = []
    for row in due:
        connection.execute(
            update(sync)
            .where(_row(row.tenant, row.subject, row.ref))
            .values(lease_until=now + lease, due_at=now + lease, lease_epoch=row.lease_epoch + 1)
        )
        taken.append(
            Lease(
                tenant=row.tenant,
                subject=row.subject,
                ref=row.ref,
                generation=row.generation,
                attempts=row.attempts,
                epoch=row.lease_epoch + 1,
                until=now + lease,
                touches=row.touches,
                whole=bool(row.whole),
            )
        )
    return taken


def renew(connection: Connection, lease: Lease, *, until: int) -> Lease | None:
    """Hold the row until *until*; None when it was lost to another worker."""
    kept = connection.execute(
        update(sync)
        .where(_held(lease))
        .values(lease_until=until, due_at=case((sync.c.due_at == lease.until, until), else_=sync.c.due_at))
    )
    if kept.rowcount == 0:
        return None
    return replace(lease, until=until)


def finish(
    connection: Connection, lease: Lease, *, observed: int, lacking: SyncError | None = None
) -> Standing | None:
    """Record that Synapse agrees with generation *observed*; return where the row stands then.

    None when the lease was lost.

    Parameters
    ----------
    lacking
        What is not there all the same, and tried apart from this row, which is poked with the result.
    """
    untouched = and_(sync.c.due_at == lease.until, sync.c.generation <= observed)
    done = connection.execute(
        update(sync)
        .where(_held(lease))
        .values(
            observed_generation=observed,
            seen_touch=lease.touches,
            attempts=0,
            error=None if lacking is None else write_error(lacking),
            lease_until=None,
            due_at=case((untouched, None), else_=sync.c.due_at),
        )
        .returning(sync.c.generation, sync.c.attempts, sync.c.announced)
    ).one_or_none()
    return None if done is None else Standing(*done)


def fail(
    connection: Connection, lease: Lease, error: SyncError, *, retry_at: int, whole: bool = True
) -> bool:
    """Record why it failed and when to try again; False when the lease was lost.

    What was touched meanwhile is tried again at once. Not *whole*: what was to be compared stays as it was,
    for the failure says nothing about it.
    """
    failed = connection.execute(
        update(sync)
        .where(_held(lease))
        .values(
            attempts=case((sync.c.due_at == lease.until, lease.attempts + 1), else_=0),
            error=write_error(error),
            lease_until=None,
            due_at=case((sync.c.due_at == lease.until, retry_at), else_=sync.c.due_at),
            **(_whole_again() if whole else {}),
        )
    )
    return failed.rowcount > 0


def wait(connection: Connection, lease: Lease, *, until: int) -> bool:
    """Give the row back for a time; False when the lease was lost.

    Nothing has failed and nothing can be done: what the row waits for pokes it. It is due at *until*
    (milliseconds since the epoch) in any case.
    """
    given = connection.execute(
        update(sync)
        .where(_held(lease))
        .values(
            attempts=0,
            error=None,
            lease_until=None,
            due_at=case((sync.c.due_at == lease.until, until), else_=sync.c.due_at),
        )
    )
    return given.rowcount > 0


def standing(connection: Connection, lease: Lease) -> Standing:
    """Return where the row stands now. The caller has just recorded a result, which keeps it so."""
    columns = sync.c.generation, sync.c.attempts, sync.c.announced
    row = connection.execute(select(*columns).where(_row(lease.tenant, lease.subject, lease.ref))).one()
    return Standing(row.generation, row.attempts, row.announced)


def announced(connection: Connection, tenant: str, subject: Subject, ref: str) -> Announced | None:
    """Return what OpenMeet was told last."""
    found: Announced | None = connection.execute(
        select(sync.c.announced).where(_row(tenant, subject, ref))
    ).scalar()
    return found


def set_announced(connection: Connection, lease: Lease, announced: Announced | None) -> None:
    """Record what OpenMeet was told."""
    connection.execute(
        update(sync).where(_row(lease.tenant, lease.subject, lease.ref)).values(announced=announced)
    )


def set_memory(connection: Connection, tenant: str, ref: str, memory: str) -> None:
    """Record what the reconciler remembers of an entity's room."""
    connection.execute(update(sync).where(_row(tenant, "entity", ref)).values(memory=memory))


def release_all(connection: Connection, *, now: int) -> int:
    """End every lease; for a process that knows it is the only one. Returns how many there were."""
    return connection.execute(
        update(sync).where(sync.c.lease_until.is_not(None)).values(lease_until=None, due_at=now)
    ).rowcount


def release(connection: Connection, lease: Lease, *, now: int) -> bool:
    """Give the row back undone, due at once; False when the lease was lost."""
    given = connection.execute(update(sync).where(_held(lease)).values(lease_until=None, due_at=now))
    return given.rowcount > 0


def retry_failed(connection: Connection, *, now: int, code: str | None = None) -> int:
    """Have everything that failed tried again now, as after an outage; return how many there are.

    With *code*, only what failed for that reason. The whole is compared: it may be another by now.
    """
    why = (
        sync.c.error.is_not(None) if code is None else sync.c.error.startswith(_begins(code), autoescape=True)
    )
    return connection.execute(
        update(sync)
        .where(why, sync.c.due_at > now, sync.c.lease_until.is_(None))
        .values(due_at=now, **_whole_again())
    ).rowcount


def outlook(connection: Connection, *, now: int) -> Outlook:
    """Return when the next row becomes due, and how many there are to do."""
    free = or_(sync.c.lease_until.is_(None), sync.c.lease_until <= now)
    at = case((free, sync.c.due_at), else_=sync.c.lease_until)
    found = connection.execute(select(func.min(at), func.count()).where(sync.c.due_at.is_not(None))).one()
    return Outlook(*found)


def next_due(connection: Connection, *, now: int) -> int | None:
    """Return when the next row becomes due (milliseconds since the epoch), None when none will."""
    return outlook(connection, now=now).next_due


def write_error(error: SyncError) -> str:
    """Return what the column ``error`` holds for it."""
    rest = {"detail": error.detail, "at": error.at, "attempts": error.attempts, "next_at": error.next_at}
    given = {name: value for name, value in rest.items() if value is not None}
    return _begins(error.code) + orjson.dumps(given).decode()[1:]


def read_error(stored: str | None) -> SyncError | None:
    """Return the error that the column ``error`` holds."""
    return None if stored is None else SyncError(**orjson.loads(stored))


def _whole_again() -> dict[str, Any]:
    touches = sync.c.touches + 1
    return {"touches": touches, "whole_touch": touches}


def _begins(code: str) -> str:
    """Return how the stored error of that code begins, so that rows can be found by it."""
    return f'{{"code":"{code}",'


def _insert_for(connection: Connection) -> Any:
    """Return the dialect's own ``insert``: both know ``ON CONFLICT``, but as constructs of their own."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _row(tenant: str, subject: str, ref: str) -> ColumnElement[bool]:
    return and_(sync.c.tenant == tenant, sync.c.subject == subject, sync.c.ref == ref)


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(_row(lease.tenant, lease.subject, lease.ref), sync.c.lease_epoch == lease.epoch)

"""Pictures that OpenMeet names by a URL, and what they are on the homeserver.

A picture is known by tenant and URL, fetched and uploaded once, whoever uses it::

    use ──▶ due ──claim──▶ leased ──taken───▶ idle, with its mxc
             ▲                │
             ├─────failed─────┤   due at the next attempt; what was uploaded before stays
             ├──lease ends────┘   the worker died; its late results are refused by the epoch
             └──recheck── idle    asked for again, and uploaded again only if it is another

Each result pokes those who use it (`store.sync`), in the same transaction: so whoever waits for a picture
may sleep until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, case, delete, exists, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store import sync
from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.sync import Subject, SyncError, read_error, write_error
from openmeet_appservice.store.tables import picture_uses, pictures


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture that something shall have, as far as it is known.

    Parameters
    ----------
    url
        Where OpenMeet has it, None where none is wanted.
    is_used
        Whether it is recorded that it is used, or that none is; else see `use`.
    mxc
        What was uploaded last, None before.
    error
        Why it could not be fetched the last time, how often in a row, and when that is tried next.
    """

    url: str | None
    is_used: bool
    mxc: str | None = None
    error: SyncError | None = None

    @property
    def avatar(self) -> str | None:
        """What is to be shown: an ``mxc://`` URI, empty for none, None where that is not known yet."""
        return "" if self.url is None else self.mxc

    @property
    def is_awaited(self) -> bool:
        """Whether nobody has tried to fetch it yet."""
        return self.avatar is None and self.error is None


@dataclass(frozen=True, slots=True)
class Job:
    """A picture to fetch, held by one worker until its lease ends.

    *mxc*, *content_hash*, *etag* and *last_modified* are of what was fetched before.
    """

    tenant: str
    url_hash: str
    url: str
    mxc: str | None
    content_hash: str | None
    etag: str | None
    last_modified: str | None
    attempts: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched, and what it is on the homeserver."""

    mxc: str
    content_hash: str
    etag: str | None
    last_modified: str | None


def of(connection: Connection, tenant: str, subject: Subject, ref: str, url: str | None) -> Picture:
    """Return what is known of the picture *url* that a user or entity shall have."""
    row = connection.execute(
        select(picture_uses.c.url_hash.label("used"), *pictures.c)
        .outerjoin(pictures, _same_picture())
        .where(
            picture_uses.c.tenant == tenant,
            picture_uses.c.subject == subject,
            picture_uses.c.ref == ref,
        )
    ).one_or_none()
    if url is None:
        return Picture(None, is_used=row is None)
    if row is not None and row.used == _hash(url) and row.url_hash is not None:
        return _picture(row, is_used=True)
    known = connection.execute(select(pictures).where(_is(tenant, _hash(url)))).one_or_none()
    return Picture(url, is_used=False) if known is None else _picture(known, is_used=False)


def use(
    connection: Connection, tenant: str, subject: Subject, ref: str, url: str | None, *, now: int
) -> None:
    """Record that a user or entity uses the picture *url*, or none; one not known yet becomes due.

    Waits for a result that is just being recorded: what is read afterwards holds it, or it pokes.
    """
    connection.execute(
        delete(picture_uses).where(
            picture_uses.c.tenant == tenant, picture_uses.c.subject == subject, picture_uses.c.ref == ref
        )
    )
    if url is None:
        return
    row = {
        "tenant": tenant,
        "url_hash": _hash(url),
        "url": url,
        "due_at": now,
        "attempts": 0,
        "used_at": now,
        "lease_epoch": 0,
    }
    if not insert_if_absent(connection, pictures, row):
        connection.execute(update(pictures).where(_is(tenant, _hash(url))).values(used_at=now))
    wanted = {"tenant": tenant, "subject": subject, "ref": ref, "url_hash": _hash(url)}
    insert_if_absent(connection, picture_uses, wanted)


def recheck(connection: Connection, tenant: str, subject: Subject, ref: str, *, now: int) -> None:
    """Have the picture that a user or entity uses asked for again soon: it may be another by now."""
    its = select(picture_uses.c.url_hash).where(
        picture_uses.c.tenant == tenant, picture_uses.c.subject == subject, picture_uses.c.ref == ref
    )
    connection.execute(
        update(pictures)
        .where(pictures.c.tenant == tenant, pictures.c.url_hash.in_(its))
        .values(due_at=now, attempts=0)
    )


def claim(connection: Connection, *, now: int, lease: int, without: Collection[str] = ()) -> Job | None:
    """Take the picture that is due the longest, for *lease* milliseconds.

    Parameters
    ----------
    without
        Tenants whose pictures are passed over.
    """
    row = connection.execute(
        select(pictures)
        .where(pictures.c.due_at <= now, _is_free(now), pictures.c.tenant.not_in(list(without)))
        .order_by(pictures.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    epoch = row.lease_epoch + 1
    connection.execute(
        update(pictures)
        .where(_is(row.tenant, row.url_hash))
        .values(lease_until=now + lease, due_at=now + lease, lease_epoch=epoch)
    )
    return Job(
        tenant=row.tenant,
        url_hash=row.url_hash,
        url=row.url,
        mxc=row.mxc,
        content_hash=row.content_hash,
        etag=row.etag,
        last_modified=row.last_modified,
        attempts=row.attempts,
        epoch=epoch,
    )


def next_due(connection: Connection, *, now: int, without: Collection[str] = ()) -> int | None:
    """Return when `claim` will find something (milliseconds since the epoch), None for never."""
    return connection.execute(
        select(case((_is_free(now), pictures.c.due_at), else_=pictures.c.lease_until).label("at"))
        .where(pictures.c.due_at.is_not(None), pictures.c.tenant.not_in(list(without)))
        .order_by("at")
        .limit(1)
    ).scalar_one_or_none()


def mxc_of(connection: Connection, tenant: str, content_hash: str) -> str | None:
    """Return what the same content was uploaded as before, None if it never was for this tenant."""
    return connection.execute(
        select(pictures.c.mxc)
        .where(
            pictures.c.tenant == tenant,
            pictures.c.content_hash == content_hash,
            pictures.c.mxc.is_not(None),
        )
        .limit(1)
    ).scalar_one_or_none()


def taken(connection: Connection, job: Job, found: Fetched | None, *, now: int) -> bool:
    """Record what was fetched, None: the same as before; False when the lease was lost."""
    values = {} if found is None else {name: getattr(found, name) for name in Fetched.__slots__}
    if not _end(connection, job, due_at=None, attempts=0, error=None, **values):
        return False
    _poke_users(connection, job, now=now)
    return True


def failed(connection: Connection, job: Job, error: SyncError, *, retry_at: int, now: int) -> bool:
    """Record why it could not be fetched and when to try again; False when the lease was lost."""
    error = replace(error, attempts=job.attempts + 1, next_at=retry_at)
    stored = write_error(error)
    if not _end(connection, job, due_at=retry_at, attempts=job.attempts + 1, error=stored):
        return False
    _poke_users(connection, job, now=now)
    return True


def release(connection: Connection, job: Job, *, now: int) -> None:
    """Give it back undone, due at once, unless the lease was lost."""
    _end(connection, job, due_at=now)


def release_all(connection: Connection, *, now: int) -> None:
    """End every lease; for a process that knows it is the only one."""
    connection.execute(
        update(pictures).where(pictures.c.lease_until.is_not(None)).values(lease_until=None, due_at=now)
    )


def forget(connection: Connection, *, before: int) -> int:
    """Forget pictures that nobody uses and nobody began to use since *before*; return how many."""
    used = exists().where(_same_picture())
    return connection.execute(delete(pictures).where(pictures.c.used_at < before, ~used)).rowcount


def _end(connection: Connection, job: Job, *, due_at: int | None, **values: Any) -> bool:
    """End the lease. What was asked to be looked at again meanwhile stays due."""
    mine = and_(_is(job.tenant, job.url_hash), pictures.c.lease_epoch == job.epoch)
    untouched = pictures.c.due_at == pictures.c.lease_until
    ended = connection.execute(
        update(pictures)
        .where(mine, pictures.c.lease_until.is_not(None))
        .values(lease_until=None, due_at=case((untouched, due_at), else_=pictures.c.due_at), **values)
    )
    return ended.rowcount > 0


def _poke_users(connection: Connection, job: Job, *, now: int) -> None:
    users = connection.execute(
        select(picture_uses.c.subject, picture_uses.c.ref).where(
            picture_uses.c.tenant == job.tenant, picture_uses.c.url_hash == job.url_hash
        )
    )
    for subject, ref in users.all():
        sync.poke(connection, job.tenant, subject, ref, now=now)


def _hash(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _is(tenant: str, url_hash: str) -> ColumnElement[bool]:
    return and_(pictures.c.tenant == tenant, pictures.c.url_hash == url_hash)


def _is_free(now: int) -> ColumnElement[bool]:
    return or_(pictures.c.lease_until.is_(None), pictures.c.lease_until <= now)


def _same_picture() -> ColumnElement[bool]:
    return and_(pictures.c.tenant == picture_uses.c.tenant, pictures.c.url_hash == picture_uses.c.url_hash)


def _picture(row: Row[Any], *, is_used: bool) -> Picture:
    return Picture(
        url=row.url,
        is_used=is_used,
        mxc=row.mxc,
        error=read_error(row.error),
    )

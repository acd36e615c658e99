"""What OpenMeet is to be asked about: after a hint of its own, and in turn.

There is one row for each thing: an event or group as a whole, one member of it, or a user. However many
hints come, there is one thing to ask; hints coalesce. For an event or group in use the row stays after the
answer and is due again in its turn, which finds what a lost hint would have told::

              hint                            answered, in use
    (none) ─────────▶ hinted ──claim──▶ leased ──────────────▶ in turn ──▶ due, claimed …
                        ▲                 │ └─ answered, not in use ──▶ (none)
                        ├──── fail ───────┤    tried again later; nothing is ever given up
                        ├─ lease ends ────┘    the worker died; its late result is refused by the epoch
                        └─ hinted again meanwhile: the answer may be older than that, so it is asked again

While a row is leased its ``due_at`` is the end of the lease. ``version`` counts the hints, so that a result
tells whether another one came while it was on its way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.names import key
from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.lookup_tables import hints
from openmeet_appservice.store.tables import entities, members

Kind = Literal["user", "event", "group"]

ASKED_IN_TURN = ("event", "group")
"""The kinds that are asked about without a hint."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something to ask about, leased until *until* (milliseconds since the epoch).

    Parameters
    ----------
    user
        The one member that is asked about; None: all of it.
    previous_slug
        What it was called before, as a hint said.
    deleted
        A hint said that it was deleted.
    hinted_at
        When OpenMeet hinted last, None when it is asked about in turn.
    version
        Counts the hints.
    attempts
        How often asking failed in a row.
    epoch
        The number of the lease.
    """

    tenant: str
    kind: Kind
    slug: str
    user: str | None
    previous_slug: str | None
    deleted: bool
    hinted_at: int | None
    version: int
    attempts: int
    epoch: int
    until: int


@dataclass(frozen=True, slots=True)
class NextDue:
    """When the next hint is due, and the next turn (milliseconds since the epoch); None: none will be."""

    hinted: int | None
    turn: int | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many hints wait, and since when the oldest does (milliseconds since the epoch)."""

    number: int
    oldest: int | None


def add(
    connection: Connection,
    tenant: str,
    kind: Kind,
    slug: str,
    *,
    user: str | None = None,
    previous_slug: str | None = None,
    deleted: bool = False,
    now: int,
) -> None:
    """Store a hint; due at once."""
    insert = _insert_for(connection)(hints).values(
        **_new(tenant, kind, slug, user),
        previous_slug=previous_slug,
        deleted=deleted,
        hinted_at=now,
        due_at=now,
    )
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["tenant", "kind", "slug_key", "user_key"],
            set_={
                "slug": insert.excluded.slug,
                "user": insert.excluded.user,
                "previous_slug": func.coalesce(insert.excluded.previous_slug, hints.c.previous_slug),
                "deleted": or_(hints.c.deleted, insert.excluded.deleted),
                "hinted_at": now,
                "version": hints.c.version + 1,
                "due_at": now,
                "attempts": 0,
            },
        )
    )


def add_places(connection: Connection, tenant: str, user_ref: str, user: str, *, now: int) -> None:
    """Store a hint at the user in every event and group in use that has him for a member."""
    found = connection.execute(
        select(entities.c.kind, entities.c.slug)
        .join(members, and_(members.c.tenant == entities.c.tenant, members.c.entity_ref == entities.c.id))
        .where(
            members.c.tenant == tenant,
            members.c.user_ref == user_ref,
            entities.c.archived_at.is_(None),
            entities.c.kind.in_(ASKED_IN_TURN),
        )
        .order_by(entities.c.kind, entities.c.slug_key)
    )
    for row in found.all():
        add(connection, tenant, row.kind, row.slug, user=user, now=now)


def not_enrolled(connection: Connection, tenant: str, *, limit: int) -> list[tuple[Kind, str]]:
    """Return kind and slug of up to *limit* events and groups in use that are not asked about in turn yet."""
    whole = and_(
        hints.c.tenant == entities.c.tenant,
        hints.c.kind == entities.c.kind,
        hints.c.slug_key == entities.c.slug_key,
        hints.c.user_key == "",
    )
    found = connection.execute(
        select(entities.c.kind, entities.c.slug)
        .outerjoin(hints, whole)
        .where(
            entities.c.tenant == tenant,
            hints.c.tenant.is_(None),
            entities.c.archived_at.is_(None),
            entities.c.kind.in_(ASKED_IN_TURN),
        )
        .limit(limit)
    )
    return [(row.kind, row.slug) for row in found]


def enrol(connection: Connection, tenant: str, kind: Kind, slug: str, *, due_at: int) -> bool:
    """Have the event or group asked about in turn, first at *due_at*; False where it is already."""
    row = _new(tenant, kind, slug, None) | {"deleted": False, "due_at": due_at}
    return insert_if_absent(connection, hints, row)


def claim(
    connection: Connection,
    *,
    now: int,
    until: int,
    hinted: bool,
    limit: int,
    but: Collection[str] = (),
) -> list[Hint]:
    """Lease up to *limit* due rows until *until*, the longest due first.

    What is asked about whole is not asked about one member as well; but for a mere turn, of which there is
    only a limited number in a second, none waits.

    Parameters
    ----------
    hinted
        Those that OpenMeet hinted at, else those whose turn it is.
    but
        Tenants to leave alone.
    """
    whole = hints.alias("whole")
    covered = select(whole.c.tenant).where(
        whole.c.tenant == hints.c.tenant,
        whole.c.kind == hints.c.kind,
        whole.c.slug_key == hints.c.slug_key,
        whole.c.user_key == "",
        or_(and_(whole.c.due_at <= now, whole.c.hinted_at.is_not(None)), whole.c.lease_until > now),
    )
    query = (
        select(hints)
        .where(
            hints.c.due_at <= now,
            _free(now),
            hints.c.hinted_at.is_not(None) if hinted else hints.c.hinted_at.is_(None),
            or_(hints.c.user_key == "", ~covered.exists()),
        )
        .order_by(hints.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if but:
        query = query.where(hints.c.tenant.not_in(list(but)))
    taken = []
    for row in connection.execute(query).all():
        epoch = row.lease_epoch + 1
        where = _named(row.tenant, row.kind, row.slug_key, row.user_key)
        values = {"lease_until": until, "due_at": until, "lease_epoch": epoch}
        connection.execute(update(hints).where(where).values(values))
        taken.append(
            Hint(
                tenant=row.tenant,
                kind=row.kind,
                slug=row.slug,
                user=row.user,
                previous_slug=row.previous_slug,
                deleted=row.deleted,
                hinted_at=row.hinted_at,
                version=row.version,
                attempts=row.attempts,
                epoch=epoch,
                until=until,
            )
        )
    return taken


def next_due(connection: Connection, *, now: int, but: Collection[str] = ()) -> NextDue:
    """Return when the next rows are due that nobody works on."""
    query = select(hints.c.due_at).where(_free(now)).order_by(hints.c.due_at).limit(1)
    if but:
        query = query.where(hints.c.tenant.not_in(list(but)))
    return NextDue(
        hinted=connection.execute(query.where(hints.c.hinted_at.is_not(None))).scalar_one_or_none(),
        turn=connection.execute(query.where(hints.c.hinted_at.is_(None))).scalar_one_or_none(),
    )


def finish(connection: Connection, hint: Hint, *, next_at: int | None) -> bool:
    """Record that *hint* was answered, and when its turn comes next (None: never).

    Returns False when the lease was lost. What was hinted at again meanwhile stays due.
    """
    if connection.execute(_again(hint)).rowcount:
        return True
    same = and_(_held(hint), hints.c.version == hint.version)
    if next_at is None:
        return connection.execute(delete(hints).where(same)).rowcount > 0
    done = {
        "hinted_at": None,
        "previous_slug": None,
        "deleted": False,
        "due_at": next_at,
        "attempts": 0,
        "lease_until": None,
    }
    return connection.execute(update(hints).where(same).values(done)).rowcount > 0


def fail(connection: Connection, hint: Hint, *, retry_at: int, attempts: int) -> bool:
    """Have it asked about again at *retry_at*, earlier if it was hinted at meanwhile.

    *attempts* is how often it has failed now. Returns False when the lease was lost.
    """
    if connection.execute(_again(hint)).rowcount:
        return True
    values = {"due_at": retry_at, "attempts": attempts, "lease_until": None}
    same = and_(_held(hint), hints.c.version == hint.version)
    return connection.execute(update(hints).where(same).values(values)).rowcount > 0


def covered(connection: Connection, hint: Hint, *, began: int) -> int:
    """Drop the hints at single members that are older than *began*, for all of it was read since."""
    return connection.execute(
        delete(hints).where(
            hints.c.tenant == hint.tenant,
            hints.c.kind == hint.kind,
            hints.c.slug_key == key(hint.slug),
            hints.c.user_key != "",
            hints.c.hinted_at < began,
            hints.c.lease_until.is_(None),
        )
    ).rowcount


def release_all(connection: Connection, *, now: int) -> int:
    """End every lease; for a process that knows it is the only one. Returns how many there were."""
    return connection.execute(
        update(hints).where(hints.c.lease_until.is_not(None)).values(lease_until=None, due_at=now)
    ).rowcount


def waiting(connection: Connection) -> Waiting:
    """Return how many hints have not been followed yet."""
    number, oldest = connection.execute(
        select(func.count(), func.min(hints.c.hinted_at)).where(hints.c.hinted_at.is_not(None))
    ).one()
    return Waiting(number, oldest)


def _again(hint: Hint) -> Any:
    """Give back a row that was hinted at while it was leased: it is due since then."""
    other = and_(_held(hint), hints.c.version != hint.version)
    return update(hints).where(other).values(lease_until=None)


def _new(tenant: str, kind: str, slug: str, user: str | None) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "kind": kind,
        "slug_key": key(slug),
        "user_key": "" if user is None else key(user),
        "slug": slug,
        "user": user,
        "version": 1,
        "attempts": 0,
        "lease_epoch": 0,
    }


def _named(tenant: str, kind: str, slug_key: str, user_key: str) -> ColumnElement[bool]:
    return and_(
        hints.c.tenant == tenant,
        hints.c.kind == kind,
        hints.c.slug_key == slug_key,
        hints.c.user_key == user_key,
    )


def _held(hint: Hint) -> ColumnElement[bool]:
    user_key = "" if hint.user is None else key(hint.user)
    return and_(_named(hint.tenant, hint.kind, key(hint.slug), user_key), hints.c.lease_epoch == hint.epoch)


def _free(now: int) -> ColumnElement[bool]:
    return or_(hints.c.lease_until.is_(None), hints.c.lease_until <= now)


def _insert_for(connection: Connection) -> Any:
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert

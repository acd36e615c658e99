"""Users of OpenMeet and the user ids of their puppets.

A user whom a list of members names before OpenMeet ever ``PUT`` it gets a row too, a *placeholder*: it has
no spec, is called by its slug, and has no row in ``sync``, for nothing is wanted of it until it has to be
in a room; then whoever brings it there registers its puppet. A ``PUT`` makes it a user like any other.

``user_id`` is made once, by the template of its time, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select, update

from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.domain.names import key
from openmeet_appservice.store.bulk import among, insert_all_absent, insert_if_absent
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.sync import SyncStatus, read_error
from openmeet_appservice.store.tables import sync, users


@dataclass(frozen=True, slots=True)
class User:
    """One user of a tenant.

    Attributes
    ----------
    ref
        Our id of it.
    slug, slug_key
        The slug as first given, and as it is compared.
    placeholder
        It was named by a list of members, never ``PUT``.
    spec
        What OpenMeet wants, with the API's names: ``display_name``. Empty for a placeholder.
    as_of
        When OpenMeet read what it wrote last; milliseconds since the epoch.
    revision
        Counts the changes of spec and external id.
    registered_at
        When Synapse first said that the account exists, None before.
    profile_name
        The display name that Synapse accepted last, None before.
    """

    tenant: str
    ref: str
    slug: str
    slug_key: str
    placeholder: bool
    external_id: str | None
    spec: Mapping[str, Any]
    as_of: int | None
    revision: int
    user_id: str
    registered_at: int | None
    profile_name: str | None

    @property
    def display_name(self) -> str:
        """What the puppet is called: the slug where OpenMeet gave no name or a blank one."""
        return str(self.spec.get("display_name") or "").strip() or self.slug


@dataclass(frozen=True, slots=True)
class UserView:
    """A user and how far Synapse has followed; *sync* is None for a placeholder."""

    user: User
    sync: SyncStatus | None


def find(connection: Connection, tenant: str, slug: str, *, lock: bool = False) -> User | None:
    """Return the user of that slug, in any case; *lock* keeps others from changing it meanwhile."""
    query = select(users).where(users.c.tenant == tenant, users.c.slug_key == key(slug))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _user(row)


def get(connection: Connection, tenant: str, ref: str) -> User | None:
    """Return the user of that id of ours."""
    row = connection.execute(select(users).where(users.c.tenant == tenant, users.c.id == ref)).one_or_none()
    return None if row is None else _user(row)


def by_user_id(connection: Connection, user_id: str, tenant: str | None = None) -> User | None:
    """Return whose puppet *user_id* (Matrix) is; only among those of *tenant*, if one is given."""
    query = select(users).where(users.c.user_id == user_id)
    if tenant is not None:
        query = query.where(users.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    return None if row is None else _user(row)


def create(
    connection: Connection,
    tenant: str,
    slug: str,
    *,
    user_id: str,
    spec: Mapping[str, Any],
    external_id: str | None,
    as_of: int | None,
    now: int,
    new_id: NewId,
) -> User | None:
    """Add a user; None where the slug or *user_id* is taken."""
    row = _new_row(tenant, slug, user_id, now, new_id) | {
        "placeholder": False,
        "external_id": external_id,
        "spec": dumps(spec),
        "as_of": as_of,
    }
    return find(connection, tenant, slug) if insert_if_absent(connection, users, row) else None


def change(
    connection: Connection,
    user: User,
    *,
    spec: Mapping[str, Any],
    external_id: str | None,
    as_of: int | None,
    now: int,
) -> User:
    """Give the user another spec; a placeholder is none any more. The caller has locked the row."""
    return _updated(
        connection,
        user,
        placeholder=False,
        spec=dumps(spec),
        external_id=external_id,
        as_of=as_of,
        revision=user.revision + 1,
        updated_at=now,
    )


def note_as_of(connection: Connection, user: User, as_of: int) -> User:
    """Record how new the data was that confirmed what is known. The caller has locked the row."""
    return _updated(connection, user, as_of=as_of)


def refs(connection: Connection, tenant: str, slugs: Collection[str]) -> dict[str, str]:
    """Return our ids of those of *slugs* that are users, by ``slug_key``. Any number at once."""
    keys = {key(slug) for slug in slugs}
    found = connection.execute(
        select(users.c.slug_key, users.c.id).where(
            users.c.tenant == tenant, among(connection, users.c.slug_key, keys)
        )
    )
    return {row.slug_key: row.id for row in found}


def ensure(
    connection: Connection,
    tenant: str,
    slugs: Collection[str],
    *,
    user_id: Callable[[str], str],
    now: int,
    new_id: NewId,
) -> dict[str, str]:
    """Return our ids of all *slugs* by ``slug_key``, with placeholders made for those unknown.

    A slug whose user id (as the function *user_id* makes it) is another's is missing in the answer.
    """
    known = refs(connection, tenant, slugs)
    unknown = {key(slug): slug for slug in slugs if key(slug) not in known}
    if not unknown:
        return known
    # Sorted, so that two lists that are written at once wait for one another instead of deadlocking.
    rows = [
        _new_row(tenant, slug, user_id(slug), now, new_id)
        | {"placeholder": True, "external_id": None, "spec": "{}", "as_of": None}
        for _, slug in sorted(unknown.items())
    ]
    insert_all_absent(connection, users, rows)
    return known | refs(connection, tenant, list(unknown))


def view(connection: Connection, tenant: str, slug: str) -> UserView | None:
    """Return the user of that slug, in any case, with its state."""
    row = connection.execute(
        _views().where(users.c.tenant == tenant, users.c.slug_key == key(slug))
    ).one_or_none()
    return None if row is None else _view(row)


def list_page(connection: Connection, tenant: str, *, after: str | None, limit: int) -> list[UserView]:
    """Return up to *limit* users in the order of ``slug_key``, from the one after *after*."""
    query = _views().where(users.c.tenant == tenant).order_by(users.c.slug_key).limit(limit)
    if after is not None:
        query = query.where(users.c.slug_key > after)
    return [_view(row) for row in connection.execute(query)]


def _is(user: User) -> Any:
    return and_(users.c.tenant == user.tenant, users.c.id == user.ref)


def _updated(connection: Connection, user: User, **values: Any) -> User:
    return _user(connection.execute(update(users).where(_is(user)).values(**values).returning(users)).one())


def _new_row(tenant: str, slug: str, user_id: str, now: int, new_id: NewId) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": new_id("user"),
        "slug": slug,
        "slug_key": key(slug),
        "user_id": user_id,
        "revision": 1,
        "created_at": now,
        "updated_at": now,
    }


def _views() -> Select[Any]:
    state = and_(sync.c.tenant == users.c.tenant, sync.c.subject == "user", sync.c.ref == users.c.id)
    return select(
        users,
        sync.c.generation,
        sync.c.observed_generation,
        sync.c.attempts,
        sync.c.due_at,
        sync.c.error,
    ).select_from(users.outerjoin(sync, state))


def _view(row: Row[Any]) -> UserView:
    if row.generation is None:
        return UserView(_user(row), None)
    status = SyncStatus(
        generation=row.generation,
        observed_generation=row.observed_generation,
        attempts=row.attempts,
        due_at=row.due_at,
        error=read_error(row.error),
    )
    return UserView(_user(row), status)


def _user(row: Row[Any]) -> User:
    return User(
        tenant=row.tenant,
        ref=row.id,
        slug=row.slug,
        slug_key=row.slug_key,
        placeholder=row.placeholder,
        external_id=row.external_id,
        spec=loads(row.spec),
        as_of=row.as_of,
        revision=row.revision,
        user_id=row.user_id,
        registered_at=row.registered_at,
        profile_name=row.profile_name,
    )

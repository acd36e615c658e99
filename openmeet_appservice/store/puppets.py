"""What the reconciler knows of each user's puppet: whether Synapse has it, and under which name.

The rest of a user's row is `store.users`'.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select, update

from openmeet_appservice.domain.arrival import loads
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.tables import users

COLUMNS: Final = (
    users.c.tenant,
    users.c.id,
    users.c.slug,
    users.c.spec,
    users.c.user_id,
    users.c.registered_at,
    users.c.profile_name,
)
"""What `from_row` reads."""


@dataclass(frozen=True, slots=True)
class Puppet:
    """A user as Synapse is to know it.

    Parameters
    ----------
    display_name
        As wanted: OpenMeet's, or the slug where it gave none.
    registered
        Synapse has said that the account exists.
    profile_name
        The display name that Synapse accepted last, None for none yet.
    """

    tenant: str
    ref: str
    user_id: str
    display_name: str
    registered: bool
    profile_name: str | None


def get(connection: Connection, tenant: str, ref: str) -> Puppet | None:
    """Return the puppet of the user with that id of ours."""
    row = connection.execute(_columns().where(users.c.tenant == tenant, users.c.id == ref)).first()
    return None if row is None else from_row(row)


def by_user_id(connection: Connection, tenant: str, user_ids: Collection[str]) -> dict[str, Puppet]:
    """Return those of *user_ids*, any number, that are puppets of the tenant."""
    rows = connection.execute(
        _columns().where(users.c.tenant == tenant, among(connection, users.c.user_id, user_ids))
    )
    return {row.user_id: from_row(row) for row in rows}


def set_registered(connection: Connection, tenant: str, ref: str, *, now: int) -> None:
    """Record that Synapse has the account; the first time stays."""
    connection.execute(
        update(users)
        .where(users.c.tenant == tenant, users.c.id == ref, users.c.registered_at.is_(None))
        .values(registered_at=now)
    )


def set_profile_name(connection: Connection, puppet: Puppet, name: str) -> str | None:
    """Record that Synapse has accepted *name*; return the one that it had accepted before, None for none.

    Where that is not the one *puppet* was read with, it is not known which of the two Synapse took last.
    """
    row = (users.c.tenant == puppet.tenant) & (users.c.id == puppet.ref)
    before: str | None = connection.execute(
        select(users.c.profile_name).where(row).with_for_update()
    ).scalar()
    connection.execute(update(users).where(row).values(profile_name=name))
    return before


def _columns() -> Select[Any]:
    return select(*COLUMNS)


def from_row(row: Row[Any]) -> Puppet:
    """Return the puppet that *row*, which has `COLUMNS`, is about."""
    return Puppet(
        tenant=row.tenant,
        ref=row.id,
        user_id=row.user_id,
        display_name=str(loads(row.spec).get("display_name") or "").strip() or row.slug,
        registered=row.registered_at is not None,
        profile_name=row.profile_name,
    )

"""What the homeserver refused about single people, kept until it agrees with everything again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from openmeet_appservice.store.member_tables import member_errors

MOST: Final = 1000
"""Of more people than that the first are kept: what is in their way is mostly the same."""


def replace(
    connection: Connection, tenant: str, entity_ref: str, details: Mapping[str, str], *, now: int
) -> None:
    """Record what was refused about whom, by user id (Matrix), in the place of what is known."""
    forget(connection, tenant, entity_ref)
    rows = [
        {"tenant": tenant, "entity_ref": entity_ref, "user_id": user_id, "at": now, "detail": detail}
        for user_id, detail in list(details.items())[:MOST]
    ]
    if rows:
        connection.execute(insert(member_errors), rows)


def forget(connection: Connection, tenant: str, entity_ref: str) -> None:
    """Forget what was refused: now all is as it should be."""
    connection.execute(
        delete(member_errors).where(
            member_errors.c.tenant == tenant, member_errors.c.entity_ref == entity_ref
        )
    )


def of(connection: Connection, tenant: str, entity_ref: str, user_id: str) -> tuple[str, int] | None:
    """Return what was refused about one user, and when (milliseconds since the epoch)."""
    row = connection.execute(
        select(member_errors.c.detail, member_errors.c.at).where(
            member_errors.c.tenant == tenant,
            member_errors.c.entity_ref == entity_ref,
            member_errors.c.user_id == user_id,
        )
    ).one_or_none()
    return None if row is None else (row.detail, row.at)

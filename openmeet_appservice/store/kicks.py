"""Whom this service has removed in the last hour, so that it knows who comes back again and again."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, func, select

from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.member_tables import member_kicks

WITHIN_MS: Final = 60 * 60 * 1000
"""For how long a removal counts, in milliseconds."""


def note(connection: Connection, tenant: str, entity_ref: str, user_id: str, *, now: int) -> None:
    """Record that *user_id* was removed, and forget what is longer ago than `WITHIN_MS`."""
    connection.execute(
        delete(member_kicks).where(member_kicks.c.tenant == tenant, member_kicks.c.at <= now - WITHIN_MS)
    )
    row = {"tenant": tenant, "entity_ref": entity_ref, "user_id": user_id, "at": now}
    insert_if_absent(connection, member_kicks, row)


def recent(connection: Connection, tenant: str, entity_ref: str, *, now: int) -> dict[str, int]:
    """Return who was removed within `WITHIN_MS`, and how often."""
    found = connection.execute(
        select(member_kicks.c.user_id, func.count().label("times"))
        .where(member_kicks.c.tenant == tenant, member_kicks.c.entity_ref == entity_ref)
        .where(member_kicks.c.at > now - WITHIN_MS)
        .group_by(member_kicks.c.user_id)
    )
    return {row.user_id: row.times for row in found}

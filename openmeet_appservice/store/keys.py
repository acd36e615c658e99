"""API keys of platform and tenants. Only a key's SHA-256 is stored, with whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, select

from openmeet_appservice.store.bulk import insert_if_absent
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import api_keys

PLATFORM = ""
"""What stands for the tenant of a platform key."""

Scope = Literal["platform", "tenant"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key, which is not the key.

    *tenant* is the lower-case id, or `PLATFORM`; *created_at* is in milliseconds since the epoch.
    """

    tenant: str
    id: str
    scope: Scope
    name: str
    created_at: int


def add(
    connection: Connection, tenant: str, *, name: str, digest: str, now: int, new_id: NewId
) -> ApiKey | None:
    """Add a key of *tenant* (lower-case, or `PLATFORM`); None where the key is in use already.

    *digest* is the key's SHA-256 in hexadecimal.
    """
    key_id = new_id("key")
    fresh = insert_if_absent(
        connection,
        api_keys,
        {
            "tenant": tenant,
            "id": key_id,
            "scope": "platform" if tenant == PLATFORM else "tenant",
            "name": name,
            "digest": digest,
            "created_at": now,
        },
    )
    if not fresh:
        return None
    row = connection.execute(
        select(api_keys).where(api_keys.c.tenant == tenant, api_keys.c.id == key_id)
    ).one()
    return _key(row)


def by_digest(connection: Connection, digest: str) -> ApiKey | None:
    """Return whose key has this SHA-256 (hex)."""
    row = connection.execute(select(api_keys).where(api_keys.c.digest == digest)).one_or_none()
    return None if row is None else _key(row)


def list_page(connection: Connection, tenant: str, *, after: str | None, limit: int) -> list[ApiKey]:
    """Return up to *limit* keys of *tenant* (or `PLATFORM`) by id, from the one after *after*."""
    query = select(api_keys).where(api_keys.c.tenant == tenant).order_by(api_keys.c.id).limit(limit)
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return [_key(row) for row in connection.execute(query)]


def revoke(connection: Connection, tenant: str, key_id: str) -> bool:
    """Take a key away; False where *tenant* (or `PLATFORM`) has none of that id."""
    return (
        connection.execute(
            delete(api_keys).where(api_keys.c.tenant == tenant, api_keys.c.id == key_id)
        ).rowcount
        == 1
    )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(tenant=row.tenant, id=row.id, scope=row.scope, name=row.name, created_at=row.created_at)

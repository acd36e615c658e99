"""What commands have in common that work on the database, beside a running service or without."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection

from openmeet_appservice import errors, wiring
from openmeet_appservice.config import Config
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.store import endpoints, entities, rooms, schema, tenants
from openmeet_appservice.store.database import Database, SQLiteDatabase
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.filelock import FileLock
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.tenants import Tenant

T = TypeVar("T")
PAGE = 500


def with_database(config: Config, do: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with the database of *config*, whose schema must be this release's."""

    async def opened() -> T:
        database = wiring.open_database(config)
        try:
            await database.read(schema.check)
            return await do(database)
        finally:
            await database.close()

    return asyncio.run(opened())


@contextmanager
def alone(database: Database) -> Iterator[None]:
    """Hold the lock of an SQLite file, so that no service runs beside; PostgreSQL needs none."""
    if not isinstance(database, SQLiteDatabase):
        yield
        return
    lock = FileLock(database.path)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def add_endpoint(command: argparse.ArgumentParser) -> None:
    """Add the words that name an endpoint."""
    command.add_argument("endpoint", metavar="ENDPOINT", help="its name, such as main")
    command.add_argument("--tenant", help="whose endpoint it is (default: the platform's)")


def add_room(command: argparse.ArgumentParser) -> None:
    """Add the words that name one of the rooms that an endpoint gets."""
    command.add_argument("--room", metavar="KIND/SLUG", help="only this room, such as event/board-games")
    command.add_argument("--of-tenant", metavar="TENANT", help="of the platform's endpoint: only this tenant")


def all_tenants(connection: Connection) -> list[Tenant]:
    """Return every tenant, in the order of their lower-case ids."""
    found: list[Tenant] = []
    while page := tenants.list_page(connection, after=found[-1].tenant if found else None, limit=PAGE):
        found += page
    return found


def require_tenant(connection: Connection, tenant_id: str) -> Tenant:
    """Return the tenant of that id, in any case.

    Raises
    ------
    UsageError
        There is none.
    """
    tenant = tenants.get(connection, tenant_id)
    if tenant is None:
        raise errors.UsageError(f"There is no tenant {tenant_id}; `tenant list` shows those there are.")
    return tenant


def require_endpoint(connection: Connection, tenant_id: str | None, name: str) -> Endpoint:
    """Return the tenant's endpoint of that name, or the platform's where no tenant is given.

    Raises
    ------
    UsageError
        There is no such tenant or endpoint.
    """
    owner = PLATFORM if tenant_id is None else require_tenant(connection, tenant_id).tenant
    found = endpoints.get(connection, owner, name)
    if found is None:
        whose = "The platform" if tenant_id is None else f"Tenant {tenant_id}"
        hint = " (a tenant's needs --tenant)" if tenant_id is None else ""
        raise errors.UsageError(
            f"{whose} has no webhook endpoint {name}{hint}; `delivery stats` shows those there are."
        )
    return found


def served_tenant(connection: Connection, endpoint: Endpoint, tenant_id: str | None) -> str | None:
    """Return whose events alone are meant: of a tenant's endpoint always that tenant's.

    Parameters
    ----------
    tenant_id
        One of those that the platform's endpoint serves; None: all of them.

    Raises
    ------
    UsageError
        There is no such tenant, or the endpoint does not serve it.
    """
    if tenant_id is None:
        return endpoint.owner or None
    tenant = require_tenant(connection, tenant_id).tenant
    served = endpoint.wanted.tenants
    if endpoint.owner not in (PLATFORM, tenant) or (served is not None and tenant not in map(key, served)):
        raise errors.UsageError(f"Endpoint {endpoint.name} does not get the events of tenant {tenant_id}.")
    return tenant


def require_room(connection: Connection, tenant: str | None, room: str) -> Room:
    """Return the room of ``KIND/SLUG``: the one in use, else the one that was made last.

    Raises
    ------
    UsageError
        It names no room of the tenant.
    """
    kind, _, slug = room.partition("/")
    if kind not in set(EntityKind) or not slug:
        raise errors.UsageError(f"--room: write KIND/SLUG, such as event/board-games, not {room}")
    if tenant is None:
        raise errors.UsageError("--room: this endpoint gets the events of many tenants; say --of-tenant too.")
    entity = entities.find(connection, tenant, EntityKind(kind), slug)
    found = None if entity is None else rooms.latest(connection, tenant, entity.ref)
    if found is None:
        raise errors.UsageError(f"--room: there is no room of the {kind} {slug}.")
    return found

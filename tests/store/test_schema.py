"""The schema: made by its migrations, the same as the tables say, never another program's."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from openmeet_appservice import errors
from openmeet_appservice.store import schema, service
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.lookup_tables import metadata


async def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await database.read(differences) == []


async def test_an_empty_database_is_too_old_until_migrated(database_url: str) -> None:
    database = open_database(database_url)
    with pytest.raises(errors.SchemaTooOld):
        await database.read(schema.check)
    assert await database.write(schema.migrate) is None
    await database.read(schema.check)
    assert await database.write(schema.migrate) == schema.newest_revision()
    await database.close()


async def test_replicas_that_start_together_take_turns(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(3)]
    await asyncio.gather(*(database.write(schema.migrate) for database in databases))
    for database in databases:
        await database.read(schema.check)
        await database.close()


async def test_a_newer_schema_is_refused(database: Database) -> None:
    def advance(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await database.write(advance)
    with pytest.raises(errors.SchemaTooNew, match="9999"):
        await database.read(schema.check)
    with pytest.raises(errors.SchemaTooNew, match="9999"):
        await database.write(schema.migrate)


async def test_another_programs_database_is_left_alone(database_url: str) -> None:
    database = open_database(database_url)

    def theirs(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE state_events (id INTEGER)"))

    await database.write(theirs)
    with pytest.raises(errors.ForeignDatabase, match="state_events"):
        await database.write(schema.migrate)
    await database.close()


async def test_it_remembers_whose_database_it_is(database: Database) -> None:
    await database.write(schema.claim_for, "example.org", "openmeet")
    await database.write(schema.claim_for, "example.org", "openmeet")
    with pytest.raises(errors.ForeignDatabase, match=r"example\.org.*other\.org"):
        await database.write(schema.claim_for, "other.org", "openmeet")
    with pytest.raises(errors.ForeignDatabase, match="appservice_id openmeet"):
        await database.write(schema.claim_for, "example.org", "second")
    assert await database.read(service.get, "server_name") == "example.org"

"""Bringing the database to the newest schema, and refusing one that is not ours to use.

Replicas that start together, and a `migrate` beside them, take turns: an advisory lock on PostgreSQL,
the one writer's ``BEGIN IMMEDIATE`` on SQLite. All steps run in one transaction.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from openmeet_appservice import errors
from openmeet_appservice.store import service

MIGRATIONS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x6F6D6173
"""Any number will do, so long as every release uses the same: "omas" in ASCII."""


def newest_revision() -> str:
    """Return the revision that this release of the program needs."""
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert head is not None, "the package holds its migrations"
    return head


def current_revision(connection: Connection) -> str | None:
    """Return the revision of this database, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(connection: Connection) -> str | None:
    """Bring the database to the newest schema and return the revision it had before.

    Raises
    ------
    SchemaTooNew
        A later release wrote it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    before = current_revision(connection)
    _refuse_unknown(connection, before)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before


def check(connection: Connection) -> None:
    """Raise unless the database has exactly the schema that this release needs.

    Raises
    ------
    SchemaTooNew
        A later release wrote it.
    SchemaTooOld
        It is empty or has an earlier schema.
    """
    current = current_revision(connection)
    _refuse_unknown(connection, current)
    if current != newest_revision():
        raise errors.SchemaTooOld


def claim_for(connection: Connection, server_name: str, appservice_id: str) -> None:
    """Remember whose database this is, and refuse another's.

    Raises
    ------
    ForeignDatabase
        It was made for another homeserver or appservice.
    """
    for name, ours in (("server_name", server_name), ("appservice_id", appservice_id)):
        theirs = service.get(connection, name)
        if theirs is None:
            service.put(connection, name, ours)
        elif theirs != ours:
            raise errors.ForeignDatabase(
                f"this database was made for {name} {theirs}, the configuration says {ours}: "
                "put the old value back, or give a new, empty database in database.url"
            )


def _refuse_unknown(connection: Connection, current: str | None) -> None:
    if current is None:
        _refuse_other_programs(connection)
        return
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if current not in known:
        raise errors.SchemaTooNew(
            f"the database has schema {current}, newer than this release's {newest_revision()}: "
            "run the release that wrote it, or restore the backup of before"
        )


def _refuse_other_programs(connection: Connection) -> None:
    """An admin who points `database.url` at Synapse's database must not find our tables among its own."""
    tables = set(inspect(connection).get_table_names())
    if tables:
        raise errors.ForeignDatabase(
            "this database holds another program's tables "
            f"({', '.join(sorted(tables)[:3])}, …): give an empty one in database.url"
        )

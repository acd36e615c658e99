"""The database: whether it answers, has the schema this release needs, and is this installation's."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.config import Config
from openmeet_appservice.errors import ForeignDatabase, SchemaTooNew, SchemaTooOld, StoreError
from openmeet_appservice.ops.doctor import stored
from openmeet_appservice.ops.doctor.files import check_mode
from openmeet_appservice.ops.doctor.finding import Finding, Level, info, ok, problem, warning
from openmeet_appservice.store.database import Database, SQLiteDatabase


async def check_database(config: Config, database: Database) -> tuple[list[Finding], bool]:
    """Look at the database, and return whether what is in it can be read."""
    findings: list[Finding] = []
    if isinstance(database, SQLiteDatabase):
        if not database.path.exists():
            return [_no_file(config, database.path)], False
        findings = check_mode("database file", database.path)
    try:
        revision = await database.read(stored.current_schema)
        owner = _owner(config, await database.read(stored.owner))
    except (StoreError, SQLAlchemyError) as error:
        return [*findings, *_unusable(config, error)], False
    findings += [
        ok("database", f"{_KINDS[database.dialect]} answers"),
        ok("schema", f"{revision}, the newest"),
    ]
    return [*findings, owner], owner.level is not Level.PROBLEM


_KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

_MIGRATE = "`openmeet-appservice migrate`"


def _no_file(config: Config, path: Path) -> Finding:
    what = f"there is no {path} yet"
    if config.database.auto_migrate:
        return info("database", f"{what}; `openmeet-appservice run` makes it")
    return problem("database", what, f"Make it with {_MIGRATE}, or correct `database.url`.")


def _unusable(config: Config, error: Exception) -> list[Finding]:
    match error:
        case SchemaTooOld():
            words = "is empty or has an older schema than this release needs"
            if config.database.auto_migrate:
                remedy = "It is brought up to date at the next start of `openmeet-appservice run`."
                found = warning("schema", words, remedy)
            else:
                found = problem("schema", words, f"Bring it up to date with {_MIGRATE}.")
            return [ok("database", "it answers"), found]
        case SchemaTooNew():
            remedy = "Run the release that wrote it, or restore the backup of before."
            return [ok("database", "it answers"), problem("schema", str(error), remedy)]
        case ForeignDatabase():
            return [problem("database", str(error), "Correct `database.url`.")]
        case StoreError():
            words = str(error)
        case _:
            # The library's words hold statements; the driver's own are short.
            words = f"it cannot be used: {getattr(error, 'orig', None) or type(error).__name__}"
    remedy = "See whether it runs, and whether `database.url` is right from here."
    return [problem("database", words, remedy)]


def _owner(config: Config, owner: stored.Owner) -> Finding:
    facts = (
        ("homeserver.server_name", config.homeserver.server_name, owner.server_name),
        ("appservice.id", config.appservice.id, owner.appservice_id),
    )
    for key, configured, theirs in facts:
        if theirs is not None and theirs != configured:
            return problem(
                "database owner",
                f"the database was made for {key} {theirs}, the configuration says {configured}",
                f"Put `{key}: {theirs}` back, or name a new, empty database in `database.url`.",
            )
    return ok("database owner", "the database is this installation's")

"""What the doctor says of the database and of the work in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from openmeet_appservice import wiring
from openmeet_appservice.config import Config
from openmeet_appservice.intake.gap_repair import RepairSettings
from openmeet_appservice.ops.doctor import Finding, Level, standing, stored
from openmeet_appservice.ops.doctor.storage import check_database
from openmeet_appservice.reconciler.full_check import FullCheckSettings
from openmeet_appservice.store import full_check, repair, schema, service, tables
from openmeet_appservice.store.database import Database, open_database

Configure = Callable[..., Config]
Of = Callable[[list[Finding], str], Finding]

NOW = 1_795_377_600_000
DAY = 24 * 3_600_000
WEEKLY = FullCheckSettings(period=7 * DAY, rate=0.5)


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> Config:
    return configure(tmp_path)


async def examined(config: Config) -> tuple[list[Finding], bool]:
    database = wiring.open_database(config)
    try:
        return await check_database(config, database)
    finally:
        await database.close()


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.name: finding.level for finding in findings}


async def test_a_database_in_use_is_in_order(config: Config, migrated: Database, tmp_path: Path) -> None:
    (tmp_path / "openmeet-appservice.db").chmod(0o600)
    findings, usable = await examined(config)
    assert usable
    assert levels(findings) == dict.fromkeys(
        ("database file", "database", "schema", "database owner"), Level.OK
    )


async def test_messages_that_others_can_read(
    config: Config, migrated: Database, tmp_path: Path, of: Of
) -> None:
    (tmp_path / "openmeet-appservice.db").chmod(0o644)
    findings, _ = await examined(config)
    assert of(findings, "database file").level is Level.WARNING


async def test_a_database_that_is_not_there_is_not_made(
    config: Config, configure: Configure, tmp_path: Path
) -> None:
    findings, usable = await examined(config)
    assert (levels(findings), usable) == ({"database": Level.INFO}, False)
    by_hand = configure(tmp_path, database__auto_migrate="false")
    findings, usable = await examined(by_hand)
    assert (levels(findings), usable) == ({"database": Level.PROBLEM}, False)
    assert "openmeet-appservice migrate" in str(findings[0].remedy)
    assert not (tmp_path / "openmeet-appservice.db").exists()


@pytest.mark.parametrize(("automatic", "level"), [("true", Level.WARNING), ("false", Level.PROBLEM)])
async def test_an_old_schema(
    database_url: str, configure: Configure, tmp_path: Path, of: Of, automatic: str, level: Level
) -> None:
    await _do(database_url, lambda connection: None)
    config = configure(tmp_path, database__url=database_url, database__auto_migrate=automatic)
    findings, usable = await examined(config)
    assert not usable
    assert of(findings, "schema").level is level


async def test_a_newer_schema(database_url: str, configure: Configure, tmp_path: Path, of: Of) -> None:
    def newer(connection: Connection) -> None:
        schema.migrate(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await _do(database_url, newer)
    findings, usable = await examined(configure(tmp_path, database__url=database_url))
    assert not usable
    found = of(findings, "schema")
    assert (found.level, found.remedy) == (
        Level.PROBLEM,
        "Run the release that wrote it, or restore the backup of before.",
    )


async def test_another_programs_database(
    database_url: str, configure: Configure, tmp_path: Path, of: Of
) -> None:
    def other(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE state_groups (id integer)"))

    await _do(database_url, other)
    findings, usable = await examined(configure(tmp_path, database__url=database_url))
    assert not usable
    assert "state_groups" in of(findings, "database").what


@pytest.mark.parametrize(
    ("name", "key"), [("server_name", "homeserver.server_name"), ("appservice_id", "appservice.id")]
)
async def test_a_database_made_for_another(
    database_url: str, configure: Configure, tmp_path: Path, of: Of, name: str, key: str
) -> None:
    def claim(connection: Connection) -> None:
        schema.migrate(connection)
        service.put(connection, name, "former")

    await _do(database_url, claim)
    findings, usable = await examined(configure(tmp_path, database__url=database_url))
    assert not usable
    found = of(findings, "database owner")
    assert found.level is Level.PROBLEM
    assert str(found.remedy).startswith(f"Put `{key}: former` back")


async def test_a_file_that_is_no_database(config: Config, tmp_path: Path, of: Of) -> None:
    (tmp_path / "openmeet-appservice.db").write_bytes(b"something else entirely" * 100)
    findings, usable = await examined(config)
    assert not usable
    assert of(findings, "database").level is Level.PROBLEM


async def test_a_server_that_does_not_answer(configure: Configure, tmp_path: Path) -> None:
    url = "postgresql://me:hush@127.0.0.1:1/none"
    findings, usable = await examined(configure(tmp_path, database__url=url))
    assert (levels(findings), usable) == ({"database": Level.PROBLEM}, False)
    assert "hush" not in str(findings)


async def test_what_is_stored_is_counted_across_tenants(
    database: Database, configure: Configure, tmp_path: Path
) -> None:
    await database.write(_fill)
    targets = await database.read(stored.targets)
    assert [(one.tenant_id, one.name, one.parked, one.path) for one in targets] == [
        ("T1", "main", 2, "/v1/tenants/T1/webhooks/main"),
        ("t2", "main", 0, "/v1/tenants/t2/webhooks/main"),
    ]
    backlog = await database.read(stored.backlog)
    assert (backlog.parked, backlog.oldest) == (2, NOW - 3_600_000)
    failing = await database.read(stored.failing)
    assert failing == stored.Failing(
        2, 1, ("T1 event ball (M_FORBIDDEN)", "t2 event ball (M_FORBIDDEN)", "T1 user Ada (unreachable)")
    )
    assert await database.read(stored.aside) == stored.Aside(3, 2, 1, "no event_id")
    settings = wiring.room_settings(configure(tmp_path))
    assert await database.read(stored.newest_plain_rooms, 1, defaults=settings) == ["!new"]
    assert await database.read(stored.newest_plain_rooms, 5, defaults=settings) == ["!new", "!old"]
    assert await database.read(stored.control_room) == "!control"


async def test_an_empty_database_has_nothing_to_tell(database: Database) -> None:
    backlog, targets = await database.read(stored.backlog), await database.read(stored.targets)
    findings = [
        standing.check_delivery(backlog, targets, NOW),
        standing.check_reconciler(await database.read(stored.failing)),
        standing.check_full_check(await database.read(full_check.standing), WEEKLY, NOW),
        standing.check_repair(await database.read(repair.standing), RepairSettings(DAY), NOW),
        *standing.check_aside(await database.read(stored.aside)),
    ]
    assert {finding.level for finding in findings} == {Level.OK}


async def test_how_the_work_stands_in_words(database: Database, of: Of) -> None:
    await database.write(_fill)
    backlog, targets = await database.read(stored.backlog), await database.read(stored.targets)
    parked = standing.check_delivery(backlog, targets, NOW)
    assert parked.level is Level.PROBLEM
    assert parked.what == "2 rooms parked after the last retry (T1/main 2)"
    assert "`POST /v1/tenants/T1/webhooks/main/resume`" in str(parked.remedy)
    waiting = standing.check_delivery(type(backlog)(waiting=4, parked=0, oldest=backlog.oldest), targets, NOW)
    assert (waiting.level, waiting.what) == (Level.WARNING, "4 rooms waiting, the longest for 60 min")
    soon = standing.check_delivery(type(backlog)(waiting=4, parked=0, oldest=NOW - 1000), targets, NOW)
    assert soon.level is Level.OK
    failing = standing.check_reconciler(await database.read(stored.failing))
    assert failing.level is Level.WARNING
    assert failing.what.startswith("2 rooms and 1 user not as OpenMeet wants: T1 event ball")
    aside = standing.check_aside(await database.read(stored.aside))
    assert of(aside, "held events").level is Level.INFO
    assert of(aside, "quarantine").level is Level.WARNING


@pytest.mark.parametrize(
    ("stands", "settings", "level", "words"),
    [
        (full_check.Standing(3, NOW - DAY), WEEKLY, Level.OK, "3 rooms, each compared with what"),
        (full_check.Standing(100_000, NOW), WEEKLY, Level.OK, "100000 rooms"),
        (
            full_check.Standing(120_000, NOW),
            WEEKLY,
            Level.WARNING,
            "longer than `reconciler.full_check` (7d)",
        ),
        (full_check.Standing(3, NOW - 8 * DAY), WEEKLY, Level.WARNING, "what OpenMeet wants 8d ago"),
        (full_check.Standing(3, NOW - 8 * DAY), None, Level.INFO, "off"),
    ],
)
def test_how_the_full_check_stands(
    stands: full_check.Standing, settings: FullCheckSettings | None, level: Level, words: str
) -> None:
    finding = standing.check_full_check(stands, settings, NOW)
    assert finding.level is level
    assert words in finding.what


@pytest.mark.parametrize(
    ("stands", "level", "words"),
    [
        (repair.Standing(3, NOW - DAY, 0), Level.OK, "3 rooms, each compared with its history within 1d"),
        (repair.Standing(129_600, NOW, 0), Level.OK, "129600 rooms"),
        (repair.Standing(150_000, NOW, 0), Level.WARNING, "takes 1667m, longer than `repair.max_age` (1d)"),
        (repair.Standing(3, NOW - DAY - 3_600_000, 0), Level.WARNING, "with its history 25h ago"),
        (repair.Standing(3, NOW, 1), Level.WARNING, "1 of 3 rooms cannot be read"),
    ],
)
def test_how_gap_repair_stands(stands: repair.Standing, level: Level, words: str) -> None:
    finding = standing.check_repair(stands, RepairSettings(DAY), NOW)
    assert finding.level is level
    assert words in finding.what


async def _do(url: str, write: Callable[[Connection], None]) -> None:
    database = open_database(url)
    try:
        await database.write(write)
    finally:
        await database.close()


def _fill(connection: Connection) -> None:
    """Two tenants, of which the first has trouble; the second has some of the same names."""
    service.put(connection, "control_room", "!control")
    common = {"revision": 1, "created_at": NOW, "updated_at": NOW}
    for tenant_id in ("T1", "t2"):
        tenant = tenant_id.lower()
        _add(
            connection,
            "tenants",
            tenant=tenant,
            tenant_id=tenant_id,
            name="",
            settings="{}",
            last_position=0,
            **common,
        )
        _add(
            connection,
            "endpoints",
            tenant=tenant,
            id="e",
            name="main",
            url="https://x.test",
            secret="s",
            **common,
        )
        for slug in ("ball", "!old", "!new", "!gone"):
            _add(
                connection,
                "entities",
                tenant=tenant,
                id=slug,
                kind="event",
                slug=slug,
                slug_key=slug,
                alias=f"#{tenant}-{slug}",
                spec="{}",
                members_revision=1,
                removals_confirmed=0,
                **common,
            )
        _sync(connection, tenant, "entity", "ball", '{"code":"M_FORBIDDEN","detail":"no","at":1}')
    _add(
        connection,
        "users",
        tenant="t1",
        id="u",
        slug="Ada",
        slug_key="ada",
        placeholder=False,
        spec="{}",
        user_id="@a",
        **common,
    )
    _sync(connection, "t1", "user", "u", '{"code":"unreachable","detail":"no","at":1}')
    _sync(connection, "t1", "entity", "fine", None)
    for room, parked_at in (("r1", NOW), ("r2", NOW), ("r3", None)):
        _add(
            connection,
            "lanes",
            tenant="t1",
            endpoint_ref="e",
            room_ref=room,
            owner="t1",
            began_after=0,
            acked_sequence=0,
            attempts=0,
            lease_epoch=0,
            parked_at=parked_at,
            waiting_since=NOW - 3_600_000 if parked_at else None,
        )
    for room, state, age in (("!old", "open", 2), ("!new", "open", 1), ("!gone", "former", 0)):
        _add(
            connection,
            "rooms",
            tenant="t1",
            id=room,
            entity_ref=room,
            state=state,
            claim=room,
            lock_alias="#l",
            room_id=room,
            log_id=room,
            last_sequence=0,
            created_at=NOW - age,
        )
    for room, event in (("!a", "$1"), ("!a", "$2"), ("!b", "$3")):
        _add(connection, "held_events", room_id=room, event_id=event, received_at=NOW, body="{}")
    _add(connection, "quarantine", received_at=NOW, reason="no event_id", body="null")


def _sync(connection: Connection, tenant: str, subject: str, ref: str, error: str | None) -> None:
    _add(
        connection,
        "sync",
        tenant=tenant,
        subject=subject,
        ref=ref,
        generation=1,
        observed_generation=0,
        attempts=1,
        error=error,
        lease_epoch=0,
    )


def _add(connection: Connection, table: str, **values: Any) -> None:
    connection.execute(insert(tables.metadata.tables[table]).values(**values))

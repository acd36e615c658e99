"""`room resync`: what it asks for, what it waits for, and what it says of the outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, sync
from openmeet_appservice.store.sync import Lease, SyncError

from .conftest import Cli
from .test_admin_commands import add_event, in_database

LONG = 20.0
"""Seconds after which something has certainly not happened."""


def _given(cli: Cli) -> None:
    cli("tenant", "add", "t1")
    in_database(cli, add_event)


def _standing(connection: Connection) -> tuple[entities.Entity, sync.SyncStatus]:
    entity = entities.find(connection, "t1", EntityKind.EVENT, "board-games")
    assert entity is not None
    status = sync.status(connection, "t1", "entity", entity.ref)
    assert status is not None
    return entity, status


def _reconciled_by(cli: Cli, do: Callable[[Connection, Lease], object]) -> threading.Thread:
    """Do what a running service would once the second generation is wanted."""

    def work(connection: Connection) -> bool:
        _, status = _standing(connection)
        if status.generation < 2:
            return False
        (lease,) = sync.claim_due(connection, now=time.time_ns() // 1_000_000, lease=1000, limit=1)
        do(connection, lease)
        return True

    def run() -> None:
        end = time.monotonic() + LONG
        while not in_database(cli, work):
            assert time.monotonic() < end
            time.sleep(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_it_only_asks_where_nobody_wants_to_wait(migrated: Cli) -> None:
    _given(migrated)
    ran = migrated("room", "resync", "T1", "event", "BOARD-games", "--wait", "0")
    assert (ran.code, ran.err) == (0, "")
    assert "pending" in ran.out
    entity, status = in_database(migrated, _standing)
    assert (status.generation, status.due_at is not None, entity.removals_confirmed) == (2, True, 0)
    migrated("room", "resync", "t1", "event", "board-games", "--wait", "0", "--confirm-removals")
    entity, status = in_database(migrated, _standing)
    assert entity.removals_confirmed == status.generation == 3


def test_it_waits_until_the_service_has_failed_or_time_is_up(migrated: Cli) -> None:
    _given(migrated)

    def fail(connection: Connection, lease: Lease) -> None:
        now = time.time_ns() // 1_000_000
        error = SyncError("mass_removal_held", "24 of 25 would go.", now)
        sync.fail(connection, lease, error, retry_at=now + 1000)

    thread = _reconciled_by(migrated, fail)
    ran = migrated("room", "resync", "t1", "event", "board-games", "--wait", str(LONG), "--json")
    thread.join()
    assert (ran.code, ran.json["phase"]) == (1, "degraded")
    assert ran.json["last_error"]["code"] == "mass_removal_held"
    # That fault is old now: it says nothing about the next attempt.
    again = migrated("room", "resync", "t1", "event", "board-games", "--wait", "0.1")
    assert again.code == 1


def test_it_tells_when_synapse_agrees(migrated: Cli) -> None:
    _given(migrated)

    def agree(connection: Connection, lease: Lease) -> None:
        entity, _ = _standing(connection)
        entities.archive(connection, entity, as_of=None, now=1)
        sync.finish(connection, lease, observed=lease.generation)

    thread = _reconciled_by(migrated, agree)
    ran = migrated("room", "resync", "t1", "event", "board-games", "--wait", str(LONG))
    thread.join()
    assert (ran.code, ran.out) == (0, "archived: Synapse agrees with what is wanted.\n")


def test_a_wait_that_is_no_time_is_refused(migrated: Cli) -> None:
    for wrong in ("soon", "-1", "nan", "3601"):
        assert migrated("room", "resync", "t1", "event", "e1", "--wait", wrong).code == 2

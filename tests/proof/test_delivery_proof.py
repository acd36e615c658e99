"""The delivery proof itself, short for every run and long for some."""

from __future__ import annotations

import pytest

from benchmarks.delivery_proof.__main__ import table
from benchmarks.delivery_proof.blows import Blow, plan_blows
from benchmarks.delivery_proof.faults import LAST, TAKEN, Kind, treat
from benchmarks.delivery_proof.proof import Options, Outcome, prove
from benchmarks.delivery_proof.scenario import Scale, make_rooms, transactions

SEED = 20261125

SQLITE = Options(
    seed=SEED, database="sqlite", replicas=1, scale=Scale(3, 12, 2000), kills=6, restarts=0, outages=0
)
POSTGRESQL = Options(
    seed=SEED, database="postgresql", replicas=3, scale=Scale(3, 12, 1000), kills=4, restarts=2, outages=0
)


async def proved(options: Options) -> Outcome:
    outcome = await prove(options)
    # Shown when it fails.
    print(table(outcome))
    assert outcome.holds
    verdict = outcome.verdict
    assert verdict.arrived == verdict.events == 2 * options.scale.events
    # Nothing would be proved by a run in which nothing went wrong.
    assert outcome.fell[Blow.KILL] == options.kills
    assert outcome.fell[Blow.RESTART] == options.restarts
    assert verdict.repeats
    assert outcome.treated.total() - outcome.treated[Kind.TAKEN] > 20
    return outcome


async def test_one_process_on_sqlite() -> None:
    await proved(SQLITE)


async def test_three_processes_on_postgresql() -> None:
    await proved(POSTGRESQL)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_long(database: str) -> None:
    is_sqlite = database == "sqlite"
    await proved(
        Options(
            seed=SEED,
            database=database,
            replicas=1 if is_sqlite else 3,
            scale=Scale(5, 200, 100_000),
            kills=100,
            restarts=0 if is_sqlite else 10,
            outages=2,
        )
    )


def test_the_seed_chooses_what_is_said() -> None:
    scale = Scale(2, 7, 500)
    first, second, other = make_rooms(scale), make_rooms(scale), make_rooms(scale)
    said = list(transactions(1, scale, first))
    assert said == list(transactions(1, scale, second))
    assert first == second
    assert said != list(transactions(2, scale, other))
    assert sum(len(room.events) for room in first.values()) == scale.events


def test_events_come_twice_and_transaction_ids_begin_again() -> None:
    scale = Scale(2, 7, 10_000)
    said = list(transactions(1, scale, make_rooms(scale)))
    ids = [event["event_id"] for each in said for event in each.events]
    assert len(ids) > len(set(ids)) == scale.events
    assert [each.txn_id for each in said].count("1") > 1


def test_the_seed_chooses_the_misfortunes_and_each_passes() -> None:
    def all_of(seed: int) -> list[list[object]]:
        return [
            [treat(seed, "a", "!a", first, 5, tries, timeout=2) for tries in range(LAST + 1)]
            for first in range(1000)
        ]

    treated = all_of(1)
    assert treated == all_of(1)
    assert treated != all_of(2)
    assert all(tries[LAST] == TAKEN for tries in treated)


def test_a_single_event_is_never_called_too_large() -> None:
    treated = [treat(1, "a", "!a", first, 1, 0, timeout=2).kind for first in range(5000)]
    assert Kind.TOO_LARGE not in treated
    assert set(treated) == set(Kind) - {Kind.TOO_LARGE}


def test_the_seed_chooses_the_blows() -> None:
    planned = plan_blows(1, kills=100, restarts=10, outages=2)
    assert planned == plan_blows(1, kills=100, restarts=10, outages=2)
    assert planned != plan_blows(2, kills=100, restarts=10, outages=2)
    assert [each.blow for each in planned].count(Blow.KILL) == 100
    assert {each.mode for each in planned if each.blow is Blow.RESTART} == {"fast", "immediate"}
    assert all(0 <= each.at < 1 for each in planned)

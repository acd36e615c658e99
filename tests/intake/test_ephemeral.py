"""What of a transaction is handed on as ephemeral, and that it never decides what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openmeet_appservice.domain.arrival import Transaction, read_transaction
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.store.database import Database

from .conftest import BASE, StartIntake

NEW, OLD = "ephemeral", "de.sorunome.msc2409.ephemeral"
TYPING = {"type": "m.typing", "room_id": "!a", "content": {"user_ids": ["@a:x"]}}
LONG_NUMBER = 10**30
"""What holds such a number is read the exact way."""


@pytest.mark.parametrize("exactly", [False, True])
@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, []),
        ({NEW: []}, []),
        ({NEW: [TYPING]}, [TYPING]),
        ({OLD: [TYPING]}, [TYPING]),
        ({NEW: [TYPING], OLD: [TYPING, TYPING]}, [TYPING]),
        ({NEW: [], OLD: [TYPING]}, [TYPING]),
        ({NEW: 7, OLD: [TYPING]}, [TYPING]),
        ({NEW: {"a": 1}, OLD: "x"}, []),
        ({NEW: [None, 7, TYPING]}, [None, 7, TYPING]),
    ],
)
def test_the_elements_are_read_under_either_name(
    named: dict[str, Any], expected: list[Any], exactly: bool
) -> None:
    more = {"number": LONG_NUMBER} if exactly else {}
    body = json.dumps({"events": [], **named, **more}).encode()
    assert read_transaction(body) == Transaction([], expected)


def test_elements_that_cannot_be_taken_apart_spoil_nothing() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    body = f'{{"ephemeral": [{deep}], "events": [{{"event_id": "$1", "room_id": "!a"}}]}}'.encode()
    found = read_transaction(body)
    assert found is not None
    assert len(found.elements) == 1
    assert found.ephemeral == []


async def test_they_are_handed_on_once_the_events_are_stored(
    start_intake: StartIntake, database: Database
) -> None:
    intake = await start_intake(database)
    body = {"events": [{"event_id": "$1", "room_id": "!a", "type": "m.x"}], NEW: [TYPING], OLD: [TYPING]}
    assert await intake.request("PUT", f"{BASE}/transactions/1", json=body) == (200, {})
    assert intake.ephemeral == [[TYPING]]


@pytest.mark.parametrize("named", [{}, {NEW: []}, {NEW: [], OLD: []}])
async def test_nothing_is_handed_on_where_there_is_nothing(
    start_intake: StartIntake, database: Database, named: dict[str, Any]
) -> None:
    intake = await start_intake(database)
    assert await intake.request("PUT", f"{BASE}/transactions/1", json={"events": [], **named}) == (200, {})
    assert intake.ephemeral == []


async def test_a_fault_of_who_takes_them_does_not_reach_synapse(
    start_intake: StartIntake, database: Database
) -> None:
    intake = await start_intake(database, ephemeral_fails=True)
    body = {"events": [], NEW: [TYPING]}
    for number in (1, 2):
        answered = await intake.request("PUT", f"{BASE}/transactions/{number}", json=body)
        assert answered == (200, {})


async def test_what_could_not_be_stored_hands_on_nothing(
    start_intake: StartIntake, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(database, "write_promptly", write)
    intake = await start_intake(database)
    body = {"events": [{"event_id": "$1", "room_id": "!a", "type": "m.x"}], NEW: [TYPING]}
    status, _ = await intake.request("PUT", f"{BASE}/transactions/1", json=body)
    assert status == 503
    assert intake.ephemeral == []

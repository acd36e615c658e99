"""What a new room says of the one whose place it takes."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Connection

from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.arrival import Arrival, read_transaction
from openmeet_appservice.reconciler.making import predecessor
from openmeet_appservice.store import event_log, rooms, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.rooms import Room

BOT = "@bot:hs.test"


def _claim(connection: Connection, claim: str) -> Room:
    return rooms.claim(connection, "t1", "e1", claim=claim, lock_alias="#x:hs.test", now=1, new_id=new_id)


def _replaced(connection: Connection, events: int) -> Room:
    """Return a claim in the place of a room in which so much was said."""
    tenants.create(connection, "t1", name="One", settings={}, now=1)
    old = _claim(connection, "c" * 16)
    event_log.record_room_id(connection, "t1", old.ref, "!old", "11", now=1, bot=BOT)
    said = [
        {"type": "m.room.message", "sender": BOT, "room_id": "!old", "content": {}, "event_id": f"${number}"}
        for number in range(events)
    ]
    read = read_transaction(json.dumps({"events": said}).encode())
    assert read is not None
    arrivals = [element for element in read.elements if isinstance(element, Arrival)]
    event_log.append(connection, arrivals, now=2, bot=BOT)
    found = rooms.get(connection, "t1", old.ref)
    assert found is not None
    assert rooms.replace(connection, found)
    return _claim(connection, "d" * 16)


@pytest.mark.parametrize(
    ("version", "events", "expected"),
    [
        ("11", 3, {"room_id": "!old", "event_id": "$2"}),
        ("11", 0, {"room_id": "!old"}),
        ("12", 3, {"room_id": "!old"}),
    ],
)
async def test_before_version_12_it_names_the_last_event_too(
    database: Database, version: str, events: int, expected: dict[str, str]
) -> None:
    claimed = await database.write(_replaced, events)
    asked = CreateRoom(None, {"room_version": version})
    assert await database.read(predecessor, claimed, asked) == expected


async def test_a_first_room_has_none(database: Database) -> None:
    claimed = await database.write(_claim, "c" * 16)
    asked = CreateRoom(None, {"room_version": "11"})
    assert await database.read(predecessor, claimed, asked) is None

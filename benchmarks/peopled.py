"""A database full of events whose rooms are as OpenMeet wants them, and the homeserver that says so.

Both follow from the numbers of the rooms alone, so neither has to be told of the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, insert

from benchmarks.pushing import BOT, SERVER, TENANT
from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import DesiredMember, DesiredRoom
from openmeet_appservice.store.tables import entities, members, rooms, sync, tenants, users

MEMBERS = 10
"""How many people are in each room; the first is its host."""

DAY_MS = 24 * 3600 * 1000
AT_ONCE = 5000
"""How many rows are inserted with one statement."""


def slug(room: int) -> str:
    """Return the slug of an event."""
    return f"event{room}"


def alias(room: int) -> str:
    """Return its alias."""
    return f"#event-{slug(room)}-{TENANT}:{SERVER}"


def room_id(room: int) -> str:
    """Return the id of its room."""
    return f"!{room}".ljust(44, "r")


def number_of(room_id: str) -> int:
    """Return which room that is."""
    return int(room_id[1:].rstrip("r"))


def person(number: int) -> str:
    """Return the user id of somebody's puppet."""
    return f"@openmeet_{TENANT}_person{number}:{SERVER}"


def people_in(room: int, people: int) -> list[int]:
    """Return who is in a room, of so many *people* in all."""
    return [(room * 7 + place * (people // MEMBERS) + place) % people for place in range(MEMBERS)]


def state_of(room: int, people: int) -> list[dict[str, Any]]:
    """Return the state of a room, exactly as it is wanted."""
    inside = people_in(room, people)
    desired = DesiredRoom(
        wanted=Wanted.OPEN,
        bot=BOT,
        name=f"Event {room}",
        listed=True,
        alias=alias(room),
        members=tuple(DesiredMember(person(one), 100 if one == inside[0] else 0) for one in inside),
    )
    [action] = plan(desired, None).actions
    assert isinstance(action, CreateRoom)
    body = action.content
    state = {event["type"]: event["content"] for event in body["initial_state"]}
    state["m.room.create"] = {"room_version": "12"}
    state["m.room.name"] = {"name": body["name"]}
    state["m.room.canonical_alias"] = {"alias": alias(room)}
    state["m.room.power_levels"] = body["power_level_content_override"]
    events = [{"type": kind, "state_key": "", "content": content} for kind, content in state.items()]
    joined = {"membership": "join"}
    people_ids = [BOT, *map(person, inside)]
    events += [{"type": "m.room.member", "state_key": user, "content": joined} for user in people_ids]
    return [{**event, "sender": BOT} for event in events]


@dataclass(frozen=True, slots=True)
class Peopled:
    """So many events, with `MEMBERS` each out of so many people."""

    rooms: int
    people: int

    def into(self, connection: Connection) -> None:
        """Write it into an empty database."""
        now = time.time_ns() // 1_000_000
        connection.execute(
            insert(tenants).values(
                tenant=TENANT,
                tenant_id=TENANT,
                name=TENANT,
                settings="{}",
                revision=1,
                last_position=0,
                created_at=0,
                updated_at=0,
            )
        )
        _insert(connection, users, map(_user, range(self.people)))
        _insert(connection, entities, map(_entity, range(self.rooms)))
        _insert(connection, rooms, (self._room(room, now) for room in range(self.rooms)))
        _insert(connection, members, self._members())
        _insert(connection, sync, (_synced("user", f"user_{one}") for one in range(self.people)))
        _insert(connection, sync, (_synced("entity", f"entity_{one}") for one in range(self.rooms)))

    def _room(self, room: int, now: int) -> dict[str, Any]:
        return {
            "tenant": TENANT,
            "id": f"room_{room}",
            "entity_ref": f"entity_{room}",
            "state": "open",
            "claim": f"claim{room}".ljust(32, "0"),
            "lock_alias": alias(room),
            "alias": alias(room),
            "room_id": room_id(room),
            "room_version": "12",
            "log_id": f"log_{room}",
            "last_sequence": 0,
            # As long after a start: gap repair has looked at every room, and goes on in its slow round.
            "checked_at": now + DAY_MS,
            "created_at": 0,
        }

    def _members(self) -> Iterator[dict[str, Any]]:
        for room in range(self.rooms):
            for place, one in enumerate(people_in(room, self.people)):
                yield {
                    "tenant": TENANT,
                    "entity_ref": f"entity_{room}",
                    "user_ref": f"user_{one}",
                    "role": "participant" if place else "host",
                    "status": "confirmed",
                    "banned": False,
                    "muted": False,
                }


def _insert(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    while some := list(islice(rows, AT_ONCE)):
        connection.execute(insert(table), some)


def _user(number: int) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "id": f"user_{number}",
        "slug": f"person{number}",
        "slug_key": f"person{number}",
        "placeholder": False,
        "spec": f'{{"display_name":"Person {number}"}}',
        "revision": 1,
        "user_id": person(number),
        "registered_at": 0,
        "profile_name": f"Person {number}",
        "created_at": 0,
        "updated_at": 0,
    }


def _entity(room: int) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "id": f"entity_{room}",
        "kind": "event",
        "slug": slug(room),
        "slug_key": slug(room),
        "alias": alias(room),
        "spec": f'{{"name":"Event {room}","visibility":"public","status":"published"}}',
        "revision": 1,
        "members_revision": 1,
        "removals_confirmed": 0,
        "created_at": 0,
        "updated_at": 0,
    }


def _synced(subject: str, ref: str) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "subject": subject,
        "ref": ref,
        "generation": 1,
        "observed_generation": 1,
        "attempts": 0,
        "lease_epoch": 1,
    }

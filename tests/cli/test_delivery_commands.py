"""`delivery`: what it shows, what it leaves in the database, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from openmeet_appservice import wiring
from openmeet_appservice.domain.arrival import read_event
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import attempts, dead_letters, endpoints, entities, event_log
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import lanes, replays, rooms

from .conftest import Cli
from .test_admin_commands import in_database

HOUR = 3_600_000


@dataclass(frozen=True)
class Outgoing:
    """The command line, and what it works on: two endpoints, two rooms, their events."""

    cli: Cli

    def __call__(self, *arguments: str) -> Any:
        return self.cli("delivery", *arguments)

    def lane(self, room: str = "room_chess", owner: str = "t1") -> Any:
        query = select(lanes).where(lanes.c.room_ref == room, lanes.c.owner == owner)
        return in_database(self.cli, lambda connection: connection.execute(query).one())

    def replays(self) -> list[tuple[str, int, int]]:
        query = select(replays.c.room_ref, replays.c.next_sequence, replays.c.last_sequence).order_by(
            replays.c.room_ref, replays.c.next_sequence
        )
        return in_database(self.cli, lambda connection: [tuple(row) for row in connection.execute(query)])

    def endpoint(self, owner: str = "t1", name: str = "main") -> Any:
        return in_database(self.cli, lambda connection: endpoints.get(connection, owner, name))


def fill(connection: Connection) -> None:
    """Tenant ``T1`` with endpoint ``main``, the platform's ``all``; room ``chess`` has 3 events, ``go`` 2."""
    now = wiring.now()
    endpoints.put(
        connection,
        "",
        "all",
        Wanted("https://platform.example/w"),
        secret_encrypted="",
        fresh_secret_encrypted="",
        now=now,
        new_id=new_id,
    )
    for slug in ("chess", "go"):
        entity = entities.create(
            connection,
            "t1",
            EntityKind.EVENT,
            slug,
            alias=f"#{slug}:example.org",
            spec={"name": slug},
            external_id=None,
            as_of=None,
            now=now,
            new_id=new_id,
        )
        assert entity is not None
        connection.execute(
            insert(rooms).values(
                tenant="t1",
                id=f"room_{slug}",
                entity_ref=entity.ref,
                state="open",
                claim=slug,
                lock_alias="",
                room_id=f"!{slug}:example.org",
                room_version="12",
                log_id="log",
                last_sequence=0,
                created_at=now,
            )
        )
    for room, number, ago in (("chess", 3, 3 * HOUR), ("go", 2, HOUR)):
        events = [
            read_event({"event_id": f"${room}{n}", "room_id": f"!{room}:example.org", "type": "m.x"})
            for n in range(number)
        ]
        event_log.append(connection, events, now=now - ago, bot="@b:example.org")  # type: ignore[arg-type]


@pytest.fixture
def outgoing(migrated: Cli) -> Outgoing:
    assert migrated("tenant", "add", "T1", "--webhook-url", "https://openmeet.example/w").code == 0
    in_database(migrated, fill)
    return Outgoing(migrated)


def pass_all(outgoing: Outgoing) -> None:
    """Have both endpoints taken everything."""

    def take(connection: Connection) -> None:
        for room, last in (("room_chess", 3), ("room_go", 2)):
            connection.execute(
                update(lanes)
                .where(lanes.c.room_ref == room)
                .values(acked_sequence=last, due_at=None, waiting_since=None)
            )

    in_database(outgoing.cli, take)


def give_up(outgoing: Outgoing, first: int, last: int, room: str = "room_chess") -> None:
    main = outgoing.endpoint()
    letter = DeadLetter(
        "t1", main.ref, wiring.now(), new_id("letter"), "t1", room, first, last, Reason.EXHAUSTED, "a 500"
    )
    in_database(outgoing.cli, lambda connection: dead_letters.record(connection, letter, new_id=new_id))


def test_stats_of_every_endpoint(outgoing: Outgoing) -> None:
    main = outgoing.endpoint()
    attempt = Attempt(
        "t1", main.ref, 1_000, "a1", "t1", "msg", "room.events", None, None, None, "5xx", 503, 7, "hush"
    )

    def record(connection: Connection) -> None:
        for n in range(7):
            attempts.record(connection, replace(attempt, at=1_000 + n, id=f"a{n}"))

    in_database(outgoing.cli, record)
    give_up(outgoing, 1, 1)
    assert outgoing("park", "main", "--tenant", "t1", "--room", "event/go").code == 0
    platform, own = outgoing("stats", "--json").json
    assert (platform["tenant"], platform["endpoint"], platform["waiting_events"]) == (None, "all", 5)
    assert (own["tenant"], own["endpoint"], own["state"]) == ("T1", "main", "active")
    assert own["breaker"] == {"state": "closed", "failures": 0, "until": None}
    assert (own["waiting_rooms"], own["waiting_events"], own["parked_rooms"]) == (2, 5, 1)
    assert 3 * 3600 <= own["oldest_age_seconds"] < 3 * 3600 + 120
    assert (own["dead_letters"], own["replay_events"]) == (1, 0)
    assert [one["at"] for one in own["last_attempts"]] == [
        f"1970-01-01T00:00:01.00{n}Z" for n in (6, 5, 4, 3, 2)
    ]
    table = outgoing("stats")
    assert (table.code, table.err) == (0, "")
    head, first, second = table.out.splitlines()
    assert head.split()[:3] == ["ENDPOINT", "STATE", "ROOMS"]
    assert first.split() == ["platform/all", "active", "2", "5", "0", "3h", "0", "0", "-"]
    assert second.split()[:8] == ["T1/main", "active", "2", "5", "1", "3h", "1", "0"]
    assert "5xx" in second
    assert "hush" not in table.out


def test_stats_of_some(outgoing: Outgoing) -> None:
    def named(*arguments: str) -> list[str]:
        return [one["endpoint"] for one in outgoing("stats", *arguments, "--json").json]

    assert named("--tenant", "T1") == ["main"]
    assert named("all") == ["all"]
    assert named("main", "--tenant", "t1") == ["main"]


def test_stats_without_endpoints(migrated: Cli) -> None:
    assert migrated("delivery", "stats").out == "There is no webhook endpoint.\n"
    assert migrated("delivery", "stats", "--json").json == []


def test_dead_letters(outgoing: Outgoing) -> None:
    assert outgoing("dead-letters", "main", "--tenant", "t1").out == "There are no dead letters.\n"
    give_up(outgoing, 1, 2)
    give_up(outgoing, 3, 3)
    found = outgoing("dead-letters", "main", "--tenant", "t1", "--json").json
    assert {(one["first_sequence"], one["last_sequence"]) for one in found} == {(1, 2), (3, 3)}
    assert found[0]["room_id"] == "!chess:example.org"
    assert (found[0]["tenant"], found[0]["reason"], found[0]["detail"]) == ("T1", "exhausted", "a 500")
    assert len(outgoing("dead-letters", "main", "--tenant", "t1", "--limit", "1", "--json").json) == 1
    text = outgoing("dead-letters", "main", "--tenant", "t1").out
    assert "1-2" in text
    assert "exhausted" in text
    assert outgoing("dead-letters", "all", "--json").json == []


def test_an_endpoint_is_parked_and_resumed(outgoing: Outgoing) -> None:
    ran = outgoing("park", "main", "--tenant", "T1")
    assert (ran.code, ran.out) == (0, "Endpoint main is parked.\n")
    assert outgoing.endpoint().state == "paused"
    assert outgoing.endpoint("", "all").state == "active"
    ran = outgoing("resume", "main", "--tenant", "T1", "--json")
    assert ran.json == {"resumed": "main", "tenant": "T1", "room": None}
    assert outgoing.endpoint().state == "active"


def test_a_room_is_parked_and_resumed(outgoing: Outgoing) -> None:
    of_room = ("main", "--tenant", "t1", "--room", "event/CHESS")
    assert outgoing("park", *of_room).code == 0
    lane = outgoing.lane()
    assert lane.parked_at is not None
    assert lane.due_at is None
    assert outgoing.lane("room_go").parked_at is None
    assert outgoing.lane(owner="").parked_at is None
    assert outgoing("resume", *of_room).code == 0
    assert outgoing.lane().parked_at is None
    again = outgoing("resume", *of_room)
    assert (again.code, "not parked" in again.err) == (2, True)


def test_a_room_of_the_platforms_endpoint(outgoing: Outgoing) -> None:
    refused = outgoing("park", "all", "--room", "event/chess")
    assert (refused.code, "--of-tenant" in refused.err) == (2, True)
    assert outgoing("park", "all", "--room", "event/chess", "--of-tenant", "T1").code == 0
    assert outgoing.lane(owner="").parked_at is not None
    assert outgoing.lane().parked_at is None


def test_redrive_sends_dead_letters_again(outgoing: Outgoing) -> None:
    pass_all(outgoing)
    give_up(outgoing, 2, 3)
    give_up(outgoing, 1, 1, "room_go")
    ran = outgoing("redrive", "main", "--tenant", "t1", "--dry-run")
    assert ran.out == "3 events of 2 rooms would be queued to be sent again.\n"
    assert (ran.err, outgoing.replays()) == ("", [])
    ran = outgoing("redrive", "main", "--tenant", "t1", "--room", "event/chess", "--json")
    assert ran.json == {"rooms": 1, "events": 2, "dry_run": False}
    assert outgoing.replays() == [("room_chess", 2, 3)]
    assert len(outgoing("dead-letters", "main", "--tenant", "t1", "--json").json) == 1
    assert outgoing("redrive", "main", "--tenant", "t1").code == 0
    assert outgoing.replays() == [("room_chess", 2, 3), ("room_go", 1, 1)]
    assert outgoing("stats", "main", "--tenant", "t1", "--json").json[0]["replay_events"] == 3


@pytest.mark.parametrize(
    ("arguments", "queued"),
    [
        (["--only", "all"], [("room_chess", 1, 3), ("room_go", 1, 2)]),
        (["--only", "all", "--since", "2h"], [("room_go", 1, 2)]),
        (["--only", "all", "--until", "2h"], [("room_chess", 1, 3)]),
        (["--only", "all", "--since", "2000-01-01T00:00:00Z", "--room", "event/go"], [("room_go", 1, 2)]),
        (["--only", "all", "--room", "event/chess", "--from-sequence", "3"], [("room_chess", 3, 3)]),
        (["--only", "failed"], [("room_chess", 2, 2)]),
        (["--only", "missing"], [("room_chess", 2, 2)]),
    ],
)
def test_replay(outgoing: Outgoing, arguments: list[str], queued: list[tuple[str, int, int]]) -> None:
    pass_all(outgoing)
    give_up(outgoing, 2, 2)
    counted = outgoing("replay", "main", "--tenant", "t1", *arguments, "--dry-run", "--json").json
    assert counted == {
        "rooms": len(queued),
        "events": sum(last - first + 1 for _, first, last in queued),
        "dry_run": True,
    }
    assert outgoing.replays() == []
    ran = outgoing("replay", "main", "--tenant", "t1", *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert outgoing.replays() == queued
    assert outgoing.lane(queued[0][0]).due_at is not None


def test_replay_to_the_platforms_endpoint(outgoing: Outgoing) -> None:
    pass_all(outgoing)
    outgoing.cli("tenant", "add", "t2")
    assert outgoing("replay", "all", "--only", "all", "--of-tenant", "t2", "--json").json["events"] == 0
    assert outgoing("replay", "all", "--only", "all", "--of-tenant", "t1", "--json").json["events"] == 5


def test_a_bar_for_those_who_look(outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_all(outgoing)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ran = outgoing("replay", "main", "--tenant", "t1", "--only", "all")
    assert ran.err.startswith("\r[####################] 2/2 rooms looked at, 5 events of 2")
    assert ran.err.endswith("\n")
    assert outgoing("replay", "main", "--tenant", "t1", "--only", "all", "--json").err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stats", "--tenant", "nobody"], "nobody"),
        (["stats", "nothing"], "nothing"),
        (["dead-letters", "main"], "--tenant"),
        (["dead-letters", "all", "--limit", "0"], "--limit"),
        (["dead-letters", "all", "--limit", "x"], "--limit"),
        (["park", "nothing", "--tenant", "t1"], "nothing"),
        (["park", "main", "--tenant", "t1", "--room", "event/nothing"], "nothing"),
        (["park", "main", "--tenant", "t1", "--room", "chess"], "KIND/SLUG"),
        (["park", "all", "--of-tenant", "t1"], "--room"),
        (["resume", "main", "--tenant", "t1", "--room", "event/go"], "not parked"),
        (["redrive", "nothing"], "nothing"),
        (["redrive", "main", "--tenant", "t1", "--of-tenant", "t2"], "t2"),
        (["replay", "all"], "--only"),
        (["replay", "all", "--only", "some"], "--only"),
        (["replay", "all", "--only", "all", "--since", "yesterday"], "--since"),
        (["replay", "all", "--only", "all", "--since", "1h", "--until", "2h"], "--until"),
        (["replay", "all", "--only", "all", "--from-sequence", "2"], "--room"),
        (["replay", "all", "--only", "all", "--room", "event/go"], "--of-tenant"),
    ],
)
def test_what_is_refused(outgoing: Outgoing, arguments: list[str], words: str) -> None:
    ran = outgoing(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert outgoing.replays() == []


def test_an_endpoint_that_takes_no_events(outgoing: Outgoing) -> None:
    in_database(
        outgoing.cli,
        lambda connection: endpoints.put(
            connection,
            "",
            "all",
            Wanted("https://platform.example/w", types=("room.ready",)),
            secret_encrypted=None,
            fresh_secret_encrypted="",
            now=wiring.now(),
            new_id=new_id,
        ),
    )
    ran = outgoing("replay", "all", "--only", "all")
    assert (ran.code, "room.events" in ran.err) == (2, True)


@pytest.mark.parametrize("command", ["stats", "dead-letters", "redrive", "replay", "park", "resume"])
def test_before_the_database_is_made(installed: Cli, command: str) -> None:
    more = ["--only", "all"] if command == "replay" else []
    ran = installed("delivery", command, "main", *more)
    assert (ran.code, ran.out) == (1, "")
    assert "migrate" in ran.err

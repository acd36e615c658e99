"""Replay and redrive."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.store import dead_letters, endpoints, event_log
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import endpoints as endpoint_rows
from openmeet_appservice.store.tables import lanes, replays, rooms

from .conftest import BOT, START, Api, Clock

HOOK = "/tenants/t1/webhooks/main"
PLATFORM = "/webhooks/main"
URL = "https://api.openmeet.net/hook"
SPEC = {"name": "Games", "visibility": "public", "status": "published"}
events = itertools.count()


async def room(api: Api, slug: str, count: int, tenant: str = "t1") -> str:
    """Make an event with a room in which *count* things happen, and return the room's id."""
    await api.put(f"/tenants/{tenant}/events/{slug}", SPEC)
    await api.settle()
    room_id = str((await api.get(f"/tenants/{tenant}/events/{slug}")).json["matrix"]["room_id"])
    await happen(api, room_id, count)
    return room_id


async def happen(api: Api, room_id: str, count: int) -> None:
    arrivals = []
    for _ in range(count):
        arrival = read_event({"event_id": f"$replay{next(events)}", "room_id": room_id})
        assert isinstance(arrival, Arrival)
        arrivals.append(arrival)
    await api.database.write(event_log.append, arrivals, now=api.clock.ms, bot=BOT)


async def all_taken(api: Api) -> None:
    newest = (
        select(rooms.c.last_sequence)
        .where(rooms.c.tenant == lanes.c.tenant, rooms.c.id == lanes.c.room_ref)
        .scalar_subquery()
    )

    def take(connection: Connection) -> None:
        connection.execute(update(lanes).values(acked_sequence=newest, due_at=None, waiting_since=None))
        connection.execute(replays.delete())

    await api.database.write(take)


async def bury(api: Api, room_id: str, first: int, last: int) -> str:
    letter = f"letter_{next(events)}"

    def record(connection: Connection) -> None:
        endpoint = endpoints.get(connection, "t1", "main")
        assert endpoint is not None
        ref = connection.execute(select(rooms.c.id).where(rooms.c.room_id == room_id)).scalar_one()
        dead_letters.record(
            connection,
            DeadLetter("t1", endpoint.ref, 5, letter, "t1", ref, first, last, Reason.REFUSED, "413"),
            new_id=new_id,
        )

    await api.database.write(record)
    return letter


async def queued(api: Api) -> list[tuple[int, int]]:
    columns = (replays.c.next_sequence, replays.c.last_sequence)
    query = select(*columns).order_by(*columns)
    return [(row[0], row[1]) for row in await api.database.read(lambda c: c.execute(query).all())]


async def test_a_replay_is_counted_dry_and_queued(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    await room(api, "games", 5)
    await all_taken(api)
    woken = api.parts.wakeups.ticket("deliver")
    dry = await api.post(f"{HOOK}/replay", {"only": "all", "dry_run": True})
    assert (dry.status, dry.json) == (200, {"rooms": 1, "events": 5})
    assert await queued(api) == []
    assert api.parts.wakeups.ticket("deliver") == woken
    done = await api.post(f"{HOOK}/replay", {"only": "all"})
    assert (done.status, done.json) == (200, {"rooms": 1, "events": 5})
    assert api.parts.wakeups.ticket("deliver") > woken
    backlog = (await api.get(HOOK)).json["backlog"]
    assert backlog == {
        "rooms": 1,
        "parked_rooms": 0,
        "events": 0,
        "replay_events": 5,
        "notices": 0,
        "oldest_at": "2026-11-22T19:00:00.000Z",
    }
    assert (await api.post(f"{HOOK}/replay", {"only": "all"})).json == {"rooms": 0, "events": 0}


async def test_missing_is_what_came_before_the_endpoint(api: Api) -> None:
    room_id = await room(api, "games", 3)
    await api.put(HOOK, {"url": URL})
    await happen(api, room_id, 2)
    await all_taken(api)
    assert (await api.post(f"{HOOK}/replay", {"only": "missing"})).json == {"rooms": 1, "events": 3}
    assert await queued(api) == [(1, 3)]


async def test_it_goes_by_time_and_sequence_and_room(api: Api, clock: Clock) -> None:
    await api.put(HOOK, {"url": URL})
    games = await room(api, "Games", 3)
    clock.ms += 1000
    await happen(api, games, 2)
    chess = await room(api, "chess", 4)
    await all_taken(api)
    for asked, meant in (
        ({"since": to_rfc3339(START + 1000)}, [(1, 4), (4, 5)]),
        ({"until": "2026-11-22T20:00:01.000+01:00"}, [(1, 3)]),
        ({"room": {"kind": "event", "slug": "GAMES"}}, [(1, 5)]),
        ({"room": {"room_id": chess}, "from_sequence": 3}, [(3, 4)]),
        ({"room": {"room_id": games}, "from_sequence": 9}, []),
    ):
        answer = await api.post(f"{HOOK}/replay", {"only": "all", **asked})
        assert answer.status == 200, answer.json
        assert await queued(api) == meant
        assert answer.json["events"] == sum(last - first + 1 for first, last in meant)
        await all_taken(api)


async def test_the_room_of_something_archived_is_its_last_one(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    await room(api, "games", 2)
    await api.delete("/tenants/t1/events/games")
    await all_taken(api)
    asked = {"only": "all", "room": {"kind": "event", "slug": "games"}}
    assert (await api.post(f"{HOOK}/replay", asked)).json == {"rooms": 1, "events": 2}


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["/only"]),
    ({"only": "some"}, ["/only"]),
    ({"only": "all", "since": "yesterday"}, ["/since"]),
    ({"only": "all", "until": "2026-11-22T19:00:00"}, ["/until"]),
    ({"only": "all", "since": "2026-11-22T19:00:00Z", "until": "2026-11-22T19:00:00Z"}, ["/until"]),
    ({"only": "all", "from_sequence": 0, "room": {"room_id": "!a"}}, ["/from_sequence"]),
    ({"only": "all", "from_sequence": 2}, ["/from_sequence"]),
    ({"only": "all", "room": {}}, ["/room"]),
    ({"only": "all", "room": {"kind": "event"}}, ["/room"]),
    ({"only": "all", "room": {"kind": "event", "slug": "games", "room_id": "!a"}}, ["/room"]),
    ({"only": "all", "room": {"kind": "cinema", "slug": "games"}}, ["/room/kind"]),
    ({"only": "all", "room": {"kind": "event", "slug": "-"}}, ["/room/slug"]),
    ({"only": "all", "room": {"kind": "event", "slug": "nothing"}}, ["/room"]),
    ({"only": "all", "room": {"room_id": "!nowhere"}}, ["/room"]),
    ({"only": "all", "tenant": "t1"}, ["/tenant"]),
]


@pytest.mark.parametrize(("body", "pointers"), WRONG)
async def test_what_is_wrong_is_named(api: Api, body: dict[str, Any], pointers: list[str]) -> None:
    await api.put(HOOK, {"url": URL})
    wrong = await api.post(f"{HOOK}/replay", body)
    assert (wrong.status, wrong.pointers) == (422, pointers)


async def test_dead_letters_go_again_all_or_some(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    games, chess = await room(api, "games", 9), await room(api, "chess", 9)
    await all_taken(api)
    one, two = await bury(api, games, 2, 3), await bury(api, games, 5, 5)
    three = await bury(api, chess, 7, 9)
    assert (await api.post(f"{HOOK}/redrive", {"ids": []})).pointers == ["/ids"]
    assert (await api.post(f"{HOOK}/redrive", {"dry_run": True})).json == {"rooms": 2, "events": 6}
    assert (await api.post(f"{HOOK}/redrive", {"ids": [two, "unknown"]})).json == {"rooms": 1, "events": 1}
    assert [letter["id"] for letter in await api.all(f"{HOOK}/dead-letters", 10)] == [three, one]
    assert (await api.post(f"{HOOK}/redrive", {"room": {"room_id": chess}})).json == {
        "rooms": 1,
        "events": 3,
    }
    assert (await api.post(f"{HOOK}/redrive", {})).json == {"rooms": 1, "events": 2}
    assert await api.all(f"{HOOK}/dead-letters", 10) == []
    assert (await api.post(f"{HOOK}/redrive", {})).json == {"rooms": 0, "events": 0}
    assert await queued(api) == [(2, 3), (5, 5), (7, 9)]


async def test_a_repeated_key_queues_once_and_answers_the_same(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    await room(api, "games", 2)
    await all_taken(api)
    first = await api.post(f"{HOOK}/replay", {"only": "all"}, Idempotency_Key="r")
    await all_taken(api)
    again = await api.post(f"{HOOK}/replay", {"only": "all"}, Idempotency_Key="r")
    assert (again.json, again.headers["Idempotency-Replayed"]) == (first.json, "true")
    assert await queued(api) == []


async def test_an_endpoint_that_takes_no_events_cannot_be_sent_any(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    types = update(endpoint_rows).values(types='["endpoint.disabled"]', takes_events=False)
    await api.database.write(lambda connection: connection.execute(types))
    for action, body in (("replay", {"only": "all"}), ("redrive", {})):
        answer = await api.post(f"{HOOK}/{action}", body)
        assert (answer.status, answer.code) == (409, "takes_no_room_events")
        assert (await api.post(f"/tenants/t1/webhooks/none/{action}", body)).code == "webhook_not_found"


async def test_a_tenant_reaches_neither_anothers_endpoint_nor_its_rooms(api: Api, admin: Api) -> None:
    await admin.put("/tenants/t2", {"name": "Two"})
    await admin.put("/tenants/t2/webhooks/main", {"url": URL})
    await api.put(HOOK, {"url": URL})
    theirs = await room(admin, "secret", 3, "t2")
    await all_taken(api)
    for action, body in (("replay", {"only": "all"}), ("redrive", {})):
        assert (await api.post(f"/tenants/t2/webhooks/main/{action}", body)).status == 404
        assert (await api.post(f"{PLATFORM}/{action}", body)).status == 403
    for asked in ({"room_id": theirs}, {"kind": "event", "slug": "secret"}):
        refused = await api.post(f"{HOOK}/replay", {"only": "all", "room": asked})
        assert (refused.status, refused.pointers) == (422, ["/room"])
    assert (await api.post(f"{HOOK}/replay", {"only": "all"})).json == {"rooms": 0, "events": 0}
    assert await queued(api) == []


async def test_the_platforms_replay_covers_its_tenants_or_one(api: Api, admin: Api) -> None:
    await admin.put("/tenants/Two", {"name": "Two"})
    await admin.put(PLATFORM, {"url": URL})
    await admin.put("/webhooks/some", {"url": URL, "tenants": ["two"]})
    ours, theirs = await room(admin, "games", 2), await room(admin, "games", 3, "two")
    await all_taken(admin)
    slug = {"kind": "event", "slug": "games"}
    rights: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({"dry_run": True}, (2, 5)),
        ({"tenant": "TWO", "dry_run": True}, (1, 3)),
        ({"tenant": "t1", "room": slug, "dry_run": True}, (1, 2)),
        ({"room": {"room_id": theirs}, "dry_run": True}, (1, 3)),
        ({}, (2, 5)),
    ]
    for asked, counts in rights:
        answer = await admin.post(f"{PLATFORM}/replay", {"only": "all", **asked})
        assert (answer.status, tuple(answer.json.values())) == (200, counts), asked
    assert (await admin.post("/webhooks/some/replay", {"only": "all"})).json == {"rooms": 1, "events": 3}
    wrongs: list[tuple[str, dict[str, Any], str]] = [
        (PLATFORM, {"tenant": "nobody"}, "/tenant"),
        (PLATFORM, {"room": slug}, "/tenant"),
        (PLATFORM, {"tenant": "t1", "room": {"room_id": theirs}}, "/room"),
        ("/webhooks/some", {"tenant": "t1"}, "/tenant"),
        ("/webhooks/some", {"room": {"room_id": ours}}, "/room"),
    ]
    for path, asked, pointer in wrongs:
        wrong = await admin.post(f"{path}/replay", {"only": "all", **asked})
        assert (wrong.status, wrong.pointers) == (422, [pointer]), asked
    assert (await admin.post(f"{PLATFORM}/redrive", {"tenant": "two"})).json == {"rooms": 0, "events": 0}

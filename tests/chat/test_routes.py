"""``POST …/messages`` over HTTP: who may speak where, and once for each ``Idempotency-Key``."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, update

from openmeet_appservice.chat.routes import MAX_CONTENT_BYTES
from openmeet_appservice.domain.arrival import MARK, dumps
from openmeet_appservice.store import entities, rooms
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.tables import tenants

from .conftest import ADA, ALAN, ROOM, Api, Refusal

HELLO = {"sender": "ada", "body": "Hello"}
pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
"""What differs between databases is tested in `test_sending.py`."""


async def test_a_message_is_answered_with_its_event_id(api: Api) -> None:
    answer = await api.post({"sender": "ADA", "body": "Héllo 👋\n"})
    assert (answer.status, answer.json) == (201, {"event_id": "$event1"})
    assert api.world.synapse.said == [(ADA, "Héllo 👋\n")]


async def test_without_a_key_each_request_is_a_message(api: Api) -> None:
    for _ in range(2):
        assert (await api.post(HELLO)).status == 201
    marks = {event["content"][MARK] for event in api.world.synapse.history}
    assert len(marks) == 2
    assert len(set(api.world.synapse.transactions)) == 2


async def test_with_a_key_it_is_sent_once(api: Api) -> None:
    first = await api.post(HELLO, "k1")
    again = await api.post(HELLO, "k1")
    assert (again.status, again.json) == (first.status, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api.post(HELLO, "k2")
    assert other.json != first.json
    assert len(api.world.synapse.history) == 2


async def test_the_same_key_with_another_message_is_refused(api: Api) -> None:
    assert (await api.post(HELLO, "k1")).status == 201
    answer = await api.post({"sender": "ada", "body": "Something else"}, "k1")
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert api.world.synapse.said == [(ADA, "Hello")]


async def test_the_same_key_after_an_outage_sends_once(api: Api) -> None:
    synapse = api.world.synapse
    synapse.faults = ["lost", "unheard", "unheard"]
    synapse.history_faults = ["away"] * 2
    answer = await api.post(HELLO, "k1")
    assert (answer.status, answer.json["code"]) == (503, "homeserver_unreachable")
    assert answer.json["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0
    synapse.restart()
    synapse.faults = []
    answer = await api.post(HELLO, "k1")
    assert (answer.status, answer.json) == (201, {"event_id": "$event1"})
    assert synapse.said == [(ADA, "Hello")]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_process_that_dies_leaves_the_message_to_the_next(api: Api, moment: str) -> None:
    """It dies between the commit and the request to Synapse, or between Synapse's act and its answer."""
    world = api.world
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await never.wait()

    world.synapse.on_send = hang
    asked = asyncio.create_task(api.post(HELLO, "k1"))
    async with asyncio.timeout(10):
        await reached.wait()
    (row,) = await world.rows()
    assert row.event_id is None
    if moment == "after":
        world.synapse.add(ROOM, ADA, {"msgtype": "m.text", "body": "Hello", MARK: row.id})
    # What is left when a process dies: the key that runs, the row without an event id, a silent client.
    world.synapse.on_send = None
    second = await api.post(HELLO, "k1")
    assert (second.status, second.json) == (201, {"event_id": "$event1"})
    assert world.synapse.said == [(ADA, "Hello")]
    assert set(world.synapse.transactions) <= {row.transaction_id}
    asked.cancel()
    never.set()
    await asyncio.gather(asked, return_exceptions=True)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"sender": "nobody", "body": "Hello"}, "/sender", "unknown_user"),
        ({"sender": "no such slug!", "body": "Hello"}, "/sender", None),
        ({"sender": "ada", "body": ""}, "/body", None),
        ({"sender": "ada"}, "/body", None),
        ({"sender": "ada", "body": 3}, "/body", None),
        ({"sender": "ada", "body": "NUL: \x00"}, "/body", None),
        ({"sender": "ada", "body": "Hello", "html": "<b>Hello</b>"}, "/html", None),
        ({"sender": "ada", "body": "é" * (MAX_CONTENT_BYTES // 2)}, "/body", "too_long"),
    ],
)
async def test_what_cannot_be_sent(api: Api, body: dict[str, object], pointer: str, code: str | None) -> None:
    answer = await api.post(body)
    assert answer.status == 422, answer.json
    (fault,) = answer.json["errors"]
    assert fault["pointer"] == pointer
    assert code is None or fault["code"] == code
    assert api.world.synapse.transactions == []
    assert await api.world.rows() == []


async def test_the_longest_message_is_sent(api: Api) -> None:
    longest = MAX_CONTENT_BYTES - len(b'{"msgtype":"m.text","body":""}')
    assert (await api.post({"sender": "ada", "body": "x" * longest})).status == 201
    assert (await api.post({"sender": "ada", "body": "x" * (longest + 1)})).status == 422


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tenants/t1/events/other/messages",
        "/v1/tenants/t1/groups/board-games/messages",
        "/v1/tenants/t2/events/board-games/messages",
    ],
)
async def test_where_nothing_is(api: Api, path: str) -> None:
    answer = await api.post(HELLO, path=path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_an_archived_event_has_no_room_to_speak_in(api: Api) -> None:
    world = api.world
    await world.database.write(entities.archive, world.entity, as_of=None, now=world.clock())
    assert (await api.post(HELLO)).status == 404


async def test_only_members_who_may_chat_can_be_spoken_for(api: Api) -> None:
    async def refused() -> bool:
        answer = await api.post({"sender": "alan", "body": "Hello"})
        return (answer.status, answer.json.get("code")) == (409, "sender_may_not_chat")

    assert await refused()
    await api.world.join("alan", "participant", "pending")
    assert await refused()
    await api.world.join("alan", "participant", "attended")
    assert not await refused()
    assert api.world.synapse.said == [(ALAN, "Hello")]


@pytest.mark.parametrize("silenced", [{"banned": True}, {"muted": True}])
async def test_nobody_speaks_for_who_is_banned_or_muted(api: Api, silenced: dict[str, bool]) -> None:
    await api.world.join("alan", "participant", "confirmed", **silenced)
    answer = await api.post({"sender": "alan", "body": "Hello"})
    assert (answer.status, answer.json.get("code")) == (409, "sender_may_not_chat")


async def test_a_tenant_says_who_may_chat(api: Api) -> None:
    settings = dumps({"rooms": {"chat_statuses": ["pending"]}})

    def choose(connection: Connection) -> None:
        connection.execute(update(tenants).where(tenants.c.tenant == "t1").values(settings=settings))

    await api.world.database.write(choose)
    await api.world.join("alan", "participant", "pending")
    assert (await api.post({"sender": "alan", "body": "Hello"})).status == 201
    assert (await api.post(HELLO)).json["code"] == "sender_may_not_chat"


async def test_before_there_is_a_room(api: Api) -> None:
    world = api.world
    await world.database.write(rooms.set_state, "t1", world.room_ref, "former")
    answer = await api.post(HELLO)
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (503, "room_not_ready", True)
    await world.database.write(
        rooms.claim,
        "t1",
        world.entity.ref,
        claim="c2",
        lock_alias="#lock:x",
        now=world.clock(),
        new_id=new_id,
    )
    answer = await api.post(HELLO)
    assert (answer.status, answer.json["code"]) == (503, "room_not_ready")
    assert world.synapse.transactions == []


async def test_what_synapse_says_is_passed_on(api: Api) -> None:
    api.world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    answer = await api.post(HELLO, "k1")
    assert (answer.status, answer.json["code"]) == (409, "refused_by_homeserver")
    assert answer.json["matrix"] == {
        "errcode": "M_FORBIDDEN",
        "error": "in Synapse's own words",
        "status": 403,
    }
    assert await api.world.rows() == []
    assert (await api.post(HELLO, "k1")).status == 201, "a refusal leaves the key free"


async def test_a_sender_who_is_not_in_the_room_yet(api: Api) -> None:
    await api.world.touch()
    api.world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    answer = await api.post(HELLO, "k1")
    assert (answer.status, answer.json["code"]) == (503, "room_not_ready")
    assert (await api.post(HELLO, "k1")).status == 201
    assert api.world.synapse.said == [(ADA, "Hello")]


async def test_nobody_without_a_key_speaks(api: Api) -> None:
    answer = await Api(api.client, "omk_tenant_" + "0" * 64, api.world).post(HELLO)
    assert answer.status == 401
    assert api.world.synapse.transactions == []

"""Messages in direct rooms: only of the two, and once also where the bot sees nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from openmeet_appservice.domain.direct import MEMBER
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, event_log, members, rooms, sync, users
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing

from .conftest import ADA, ALAN, BOT, SERVER, START, Api

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
PAIR = "/v1/tenants/t1/direct/alan/ADA/messages"
ROOM = f"!pair:{SERVER}"
HELLO = {"sender": "ada", "body": "Hello"}


def _make(connection: Connection) -> None:
    entity = entities.create(
        connection,
        "t1",
        EntityKind.DIRECT,
        "Ada~alan",
        alias=None,
        spec={"encrypted": None},
        external_id=None,
        as_of=None,
        now=START,
        new_id=new_id,
    )
    assert entity is not None
    refs = users.refs(connection, "t1", ["ada", "alan"])
    members.replace(connection, entity, dict.fromkeys(refs.values(), Standing(MEMBER)))
    sync.touch(connection, "t1", "entity", entity.ref, now=START)
    claimed = rooms.claim(
        connection, "t1", entity.ref, claim="c2", lock_alias="#lock2:x", now=START, new_id=new_id
    )
    event_log.record_room_id(connection, "t1", claimed.ref, ROOM, "12", now=START, bot=BOT)


@pytest.fixture
async def pair(api: Api) -> Api:
    """The API, with a direct room of Ada and Alan, and somebody else."""
    await api.world.database.write(_make)
    api.world.synapse.without_bot.add(ROOM)

    def add(connection: Connection) -> None:
        users.create(
            connection,
            "t1",
            "eve",
            user_id=f"@openmeet_t1_eve:{SERVER}",
            spec={},
            external_id=None,
            as_of=None,
            now=START,
            new_id=new_id,
        )

    await api.world.database.write(add)
    return api


async def test_both_speak_whatever_the_order_in_the_path(pair: Api) -> None:
    for path in (PAIR, "/v1/tenants/t1/direct/ada/alan/messages"):
        for sender in ("ada", "alan"):
            answer = await pair.post({"sender": sender, "body": "Hello"}, path=path)
            assert answer.status == 201, answer.json
    assert pair.world.synapse.said == [(ADA, "Hello"), (ALAN, "Hello")] * 2
    assert {event["room_id"] for event in pair.world.synapse.history} == {ROOM}


async def test_nobody_else_speaks_there(pair: Api) -> None:
    answer = await pair.post({"sender": "eve", "body": "Hello"}, path=PAIR)
    assert (answer.status, answer.json["code"]) == (409, "sender_may_not_chat")
    answer = await pair.post(HELLO, path="/v1/tenants/t1/direct/ada/eve/messages")
    assert answer.status == 404
    assert pair.world.synapse.transactions == []


async def test_the_same_key_in_either_order_sends_once(pair: Api) -> None:
    """What was sent is found in the history, which only the two can read."""
    synapse = pair.world.synapse
    synapse.faults = ["lost"]
    answer = await pair.post(HELLO, "k1", path=PAIR)
    assert (answer.status, answer.json) == (201, {"event_id": "$event1"})
    assert synapse.pages == 1
    assert synapse.said == [(ADA, "Hello")]
    synapse.restart()
    again = await pair.post(HELLO, "k1", path=PAIR)
    assert again.json == answer.json
    other = await pair.post(HELLO, "k1", path="/v1/tenants/t1/direct/ada/alan/messages")
    assert other.json == answer.json
    assert synapse.said == [(ADA, "Hello")]

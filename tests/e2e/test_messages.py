"""A message is sent once, whoever loses the answer, and whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import ClientError

from .conftest import Stage
from .gate import Gate
from .kept import waiting_events
from .openmeet import Answer, OpenMeet, event
from .service import Installation, Process
from .waiting import until, until_true

EVENT = "/events/games"


async def furnish(stage: Stage, **overrides: str) -> tuple[Installation, Process, Gate, OpenMeet, str]:
    """Start a service behind a gate, with one room in which Ada may speak."""
    gate = await stage.gate_to_synapse()
    installation = stage.install(HOMESERVER__URL=gate.url, **overrides)
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.user("ada")
    await openmeet.put(EVENT, event("Games", {"ada": "host"}))
    room_id = (await openmeet.ready(EVENT))["matrix"]["room_id"]
    return installation, service, gate, openmeet, room_id


async def until_answered(openmeet: OpenMeet) -> Answer:
    """Repeat the request as long as it is to be repeated, and return the answer."""

    async def repeat() -> Answer | None:
        answer = await openmeet.say(EVENT, "ada", "Once", key="k1")
        assert answer.status == 201 or answer.body["retryable"], answer
        return answer if answer.status == 201 else None

    return await until(repeat, "the repeated message is answered")


async def check(
    stage: Stage,
    installation: Installation,
    openmeet: OpenMeet,
    room_id: str,
    texts: Sequence[str] = ("Once",),
) -> None:
    """Fail unless the message is in the room once, before others, and the repeated request says so."""
    answer = await until_answered(openmeet)
    in_room = [event["event_id"] for event in await stage.homeserver(installation).messages(room_id)]
    assert len(in_room) == len(texts)
    assert in_room[0] == answer.body["event_id"]
    repeated = await openmeet.say(EVENT, "ada", "Once", key="k1")
    assert (repeated.status, repeated.body) == (201, answer.body)
    other = await openmeet.say(EVENT, "ada", "Something else", key="k1")
    assert other.status == 422
    await stage.receiver.has(in_room)
    assert stage.receiver.texts(room_id) == list(texts)
    stage.receiver.check()


@pytest.mark.parametrize(
    ("after", "restarted"),
    [(False, False), (True, False), (True, True)],
    ids=["before it is sent", "when it is sent", "when it is sent, and Synapse restarted"],
)
async def test_killed_while_sending(stage: Stage, after: bool, restarted: bool) -> None:
    installation, service, gate, openmeet, room_id = await furnish(stage)
    hold = gate.hold("PUT", "/send/m.room.message/", after=after, lost=True)
    speaking = asyncio.create_task(openmeet.say(EVENT, "ada", "Once", key="k1"))
    await hold.reached()
    service.kill()
    with pytest.raises(ClientError):
        await speaking
    if restarted:
        # What Synapse still held in memory it would forget, and no webhook could tell of it.
        [sent] = await stage.homeserver(installation).messages(room_id)
        await until_true(
            lambda: sent["event_id"] in waiting_events(stage), "Synapse keeps what it could not push"
        )
        await stage.synapse.stop()
        await stage.synapse.start()
    gate.open()
    await stage.start(installation)
    await check(stage, installation, openmeet, room_id)


async def test_the_answer_is_lost_but_the_message_comes_back(stage: Stage) -> None:
    installation, _, gate, openmeet, room_id = await furnish(stage)
    hold = gate.hold("PUT", "/send/m.room.message/", after=True, lost=True)
    speaking = asyncio.create_task(openmeet.say(EVENT, "ada", "Once", key="k1"))
    await hold.reached()
    # Synapse cannot be asked what became of it, but pushes it.
    gate.shut = True
    await until_true(lambda: stage.receiver.texts(room_id), "the message comes back")
    hold.let_go()
    assert (await speaking).status == 201
    gate.open()
    await check(stage, installation, openmeet, room_id)


async def test_nobody_tells_what_became_of_it(stage: Stage) -> None:
    to_service = await stage.gate_to_service()
    installation, _, gate, openmeet, room_id = await furnish(stage, APPSERVICE__LISTEN=stage.behind)
    to_service.shut = True
    hold = gate.hold("PUT", "/send/m.room.message/", after=True, lost=True)
    speaking = asyncio.create_task(openmeet.say(EVENT, "ada", "Once", key="k1"))
    await hold.reached()
    gate.shut = True
    hold.let_go()
    first = await speaking
    assert first.status == 503, first
    assert first.body["retryable"] is True
    # Now Synapse has forgotten the transaction id as well.
    await stage.synapse.stop()
    await stage.synapse.start()
    gate.open()
    to_service.open()
    answer = await until_answered(openmeet)
    in_room = [event["event_id"] for event in await stage.homeserver(installation).messages(room_id)]
    assert in_room == [answer.body["event_id"]]
    # Another event makes Synapse send what it could not.
    following = await openmeet.say(EVENT, "ada", "Then")
    await stage.receiver.has([*in_room, following.body["event_id"]])
    await check(stage, installation, openmeet, room_id, ["Once", "Then"])

"""Two people's own room: made, spoken in, told of, repaired and closed, without the bot."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import pytest

from openmeet_appservice.errors import HomeserverRefused

from .conftest import BOT, Stage

PAIR = "/direct/bob/ada"


@pytest.mark.parametrize("version", ["11", "12"])
async def test_two_users_talk_and_openmeet_hears_all_of_it(stage: Stage, version: str) -> None:
    installation = stage.install(ROOMS__VERSION=version)
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.user("ada", "Ada")
    made = await openmeet.call("PUT", f"{PAIR}?wait=25", {"external_id": "d1"})
    assert made.status == 201, made
    room_id = made.body["matrix"]["room_id"]
    assert made.body["matrix"] == {"room_id": room_id, "alias": None, "room_version": version}
    ready = await stage.receiver.told("room.ready")
    room = ready["room"]
    assert (room["kind"], room["slug"], room["alias"]) == ("direct", "ada~bob", None)
    assert (room["room_id"], room["external_id"]) == (room_id, "d1")
    assert room_id not in await stage.homeserver(installation).bots_rooms()

    sent = []
    for path, sender in ((PAIR, "ada"), ("/direct/ada/bob", "bob")):
        said = await openmeet.say(path, sender, f"Hello from {sender}", key=sender)
        assert said.status == 201, said
        sent.append(said.body["event_id"])
    await openmeet.user("eve", "Eve")
    refused = await openmeet.say(PAIR, "eve", "Hello?")
    assert (refused.status, refused.body["code"]) == (409, "sender_may_not_chat")

    await stage.receiver.has(sent)
    stage.receiver.check()
    assert stage.receiver.texts(room_id) == ["Hello from ada", "Hello from bob"]
    told = [one for one in stage.receiver.events() if one["event"]["room_id"] == room_id]
    assert {one["origin"] for one in told} == {"openmeet"}
    assert {one["sender"]["kind"] for one in told} == {"puppet"}
    types = {one["event"]["type"] for one in told}
    assert types.isdisjoint({"m.room.name", "m.room.topic"})
    assert BOT not in {one["event"]["sender"] for one in told}
    with pytest.raises(HomeserverRefused):
        await (await stage.person()).join(room_id)

    assert (await openmeet.call("DELETE", PAIR)).status == 202
    archived = await stage.receiver.told("room.archived")
    assert archived["room"]["room_id"] == room_id
    again = await openmeet.call("PUT", f"{PAIR}?wait=25", {})
    assert again.body["matrix"]["room_id"] != room_id


async def test_what_synapse_forgot_is_found_though_the_bot_sees_nothing(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.put(PAIR, {})
    made = await openmeet.ready(PAIR)
    room_id = made["matrix"]["room_id"]
    first = await openmeet.say(PAIR, "ada", "First", key="k1")
    await stage.receiver.has([first.body["event_id"]])
    ada = (await openmeet.get("/users/ada"))["matrix"]["user_id"]
    assert service.popen is not None
    service.popen.send_signal(signal.SIGSTOP)
    homeserver = stage.homeserver(installation)
    said = [await homeserver.say_as(ada, room_id, f"number {number}") for number in range(6)]
    stage.synapse.kill()
    await stage.synapse.start()
    service.popen.send_signal(signal.SIGCONT)
    await stage.receiver.has(said, limit=120)
    assert any(one.get("repaired") for one in stage.receiver.events("m.room.message"))
    stage.receiver.check()


@pytest.mark.parametrize("policy", ["accept", "decline"])
async def test_somebody_on_matrix_invites_a_puppet(stage: Stage, policy: str) -> None:
    installation = stage.install(USERS__DIRECT_INVITATIONS=policy)
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    user_id = (await openmeet.user("ada", "Ada"))["matrix"]["user_id"]
    await openmeet.ready("/users/ada")
    person = await stage.person()
    for direct in (True, False):
        room_id = await person.invite(user_id, direct=direct)
        told = await stage.receiver.told("user.invited", partial(_in_room, room_id))
        accepted = direct and policy == "accept"
        assert told == {
            "tenant": stage.tenant,
            "user": {"user": "ada", "external_id": None, "user_id": user_id},
            "room_id": room_id,
            "inviter": {"user_id": person.user_id, "user": None, "external_id": None},
            "direct": direct,
            "accepted": accepted,
        }
        membership = (await person.state(room_id))["m.room.member", user_id]["membership"]
        assert membership == ("join" if accepted else "leave")
    stage.receiver.check()


def _in_room(room_id: str, data: Any) -> bool:
    return bool(data["room_id"] == room_id)

"""Members in a whole service: the lazy come when they speak, and who comes unasked goes again."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from openmeet_appservice.dev.person import call

from .conftest import BOT, Stage
from .openmeet import event
from .service import Installation
from .waiting import until

EVENT = "/events/fair"


async def join_by_itself(stage: Stage, installation: Installation, room_id: str, user_id: str) -> None:
    """Let a puppet join, as its user would who holds a session."""
    url = f"{stage.synapse.url}/_matrix/client/v3/rooms/{quote(room_id, safe='')}/join"
    token = installation.config().appservice.as_token.get_secret_value()
    await call(stage.session, "POST", url, body={}, query={"user_id": user_id}, token=token)


async def test_a_lazy_member_is_let_in_when_it_speaks(stage: Stage) -> None:
    installation = stage.install(ROOMS__JOIN="lazy")
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.user("ada")
    await openmeet.put(EVENT, event("Fair", {"ada": "host", "bob": "participant", "cyd": "participant"}))
    room_id = (await openmeet.ready(EVENT))["matrix"]["room_id"]
    homeserver = stage.homeserver(installation)
    ada = (await openmeet.get("/users/ada"))["matrix"]["user_id"]
    bob = (await openmeet.get("/users/bob"))["matrix"]["user_id"]
    assert await homeserver.joined(room_id) - {BOT} == {ada}
    before = await openmeet.get(f"{EVENT}/members/bob/explain")
    assert (before["entitled"], before["joins"], before["membership"]["state"]) == (
        True,
        "when_speaking",
        "none",
    )
    said = await openmeet.say(EVENT, "bob", "Hello", key="k1")
    assert said.status == 201, said
    assert (await openmeet.say(EVENT, "bob", "Hello", key="k1")).body == said.body
    assert await homeserver.joined(room_id) - {BOT} == {ada, bob}
    assert (await openmeet.get(f"{EVENT}/members/bob/explain"))["membership"]["state"] == "join"
    await stage.receiver.has([said.body["event_id"]])
    assert stage.receiver.texts(room_id) == ["Hello"]
    explained = installation.run("explain", openmeet.tenant, "event", "fair", "cyd")
    assert explained.returncode == 0, explained
    assert "with the first message" in explained.stdout


async def test_who_comes_back_unasked_is_removed_and_reported(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.user("ada")
    await openmeet.user("bob")
    await openmeet.put(EVENT, event("Fair", {"ada": "host", "bob": "participant"}, access="anyone"))
    room_id = (await openmeet.ready(EVENT))["matrix"]["room_id"]
    homeserver = stage.homeserver(installation)
    bob = (await openmeet.get("/users/bob"))["matrix"]["user_id"]

    async def bob_is(membership: str) -> bool:
        state = await homeserver.state(room_id)
        return bool(state["m.room.member", bob]["membership"] == membership)

    assert (await openmeet.call("DELETE", f"{EVENT}/members/bob")).status == 202
    await until(partial(bob_is, "leave"), "he is removed")
    for expected in ("leave", "leave", "ban"):
        await join_by_itself(stage, installation, room_id, bob)
        await until(partial(bob_is, expected), f"he has come back, and then: {expected}")
    denied = await stage.receiver.told("member.denied", lambda data: "again and again" in data["reason"])
    assert denied["member"] == {"user_id": bob, "user": "bob", "external_id": None}
    await openmeet.put(f"{EVENT}/members/bob", {"role": "participant"})
    await until(partial(bob_is, "join"), "he is a member again")

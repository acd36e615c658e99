"""What OpenMeet is told besides what is said: how its wishes fare, who types, who has read, who is gone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .conftest import Stage
from .openmeet import event


def names(user: str, data: Mapping[str, Any]) -> bool:
    return bool(data["user"]["user"] == user)


async def test_openmeet_is_told_what_became_of_its_wishes(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    told = stage.receiver.told
    await openmeet.user("ada", "Ada")
    await openmeet.put("/events/picnic", event("Picnic", {"ada": "host", "bob": "guest"}, access="anyone"))
    ready = await told("room.ready")
    made = await openmeet.ready("/events/picnic")
    room_id = made["matrix"]["room_id"]
    assert (ready["tenant"], ready["room"]["slug"]) == (stage.tenant, "picnic")
    assert (ready["room"]["room_id"], ready["room"]["alias"]) == (room_id, made["matrix"]["alias"])
    assert ready["room_version"] == made["matrix"]["room_version"]
    for user in ("ada", "bob"):
        found = await told("user.ready", partial(names, user))
        assert found["user"]["user_id"] == (await openmeet.get(f"/users/{user}"))["matrix"]["user_id"]

    person = await stage.person()
    await person.join(made["matrix"]["alias"])
    said = await openmeet.say("/events/picnic", "ada", "Who brings cake?", key="k1")
    assert said.status == 201, said
    await person.start_typing(room_id)
    await person.mark_read(room_id, said.body["event_id"])
    sender = {"user_id": person.user_id, "kind": "other", "user": None, "external_id": None}
    typing = await told("room.ephemeral", lambda data: data.get("typing"))
    assert typing["room"] == ready["room"]
    assert typing["typing"] == {"users": [sender]}
    read = await told("room.ephemeral", lambda data: data.get("receipts"))
    [receipt] = read["receipts"]
    assert (receipt["event_id"], receipt["receipt_type"]) == (said.body["event_id"], "m.read")
    assert receipt["sender"] == sender

    # Another endpoint that is gone: this one hears of it, and it is called no more.
    gone = {"url": stage.receiver.gone_url, "types": ["room.events"]}
    await openmeet.put("/webhooks/gone", gone)
    await person.send_text(room_id, "I do")
    disabled = await told("endpoint.disabled")
    assert disabled["endpoint"] == {"name": "gone", "url": stage.receiver.gone_url, "platform": False}
    assert (await openmeet.get("/webhooks/gone"))["state"] == "disabled"

    assert (await openmeet.call("DELETE", "/events/picnic")).status == 202
    archived = await told("room.archived")
    assert archived["room"]["room_id"] == room_id
    stage.receiver.check()
    kinds = [other.type for other in stage.receiver.others if other.type != "room.ephemeral"]
    assert sorted(kinds) == [
        "endpoint.disabled",
        "room.archived",
        "room.ready",
        "user.ready",
        "user.ready",
    ]
    ids = [other.webhook_id for other in stage.receiver.others]
    assert len(ids) == len(set(ids))

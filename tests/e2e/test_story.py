"""The main job, end to end: from OpenMeet's wish to the room, from the room to OpenMeet."""

from __future__ import annotations

import pytest

from .conftest import SERVER_NAME, Stage
from .openmeet import WAIT, event


@pytest.mark.parametrize(
    ("version", "host_level", "database_url"),
    [("12", 100, "sqlite"), ("11", 99, "postgresql")],
    indirect=["database_url"],
)
async def test_what_openmeet_wants_appears_and_what_people_say_comes_back(
    stage: Stage, version: str, host_level: int, database_url: str
) -> None:
    installation = stage.install(database_url, ROOMS__VERSION=version)
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    users = {"Ada-1": "Ada Lovelace", "grace-2": "Grace Hopper", "alan-3": "Alan Turing"}
    for slug, name in users.items():
        user = await openmeet.put(f"/users/{slug}?wait={WAIT}", {"display_name": name})
        assert user["sync"]["phase"] == "ready", user
    group = await openmeet.put(
        f"/groups/chess?wait={WAIT}", event("Chess Club", {"Ada-1": "owner", "grace-2": "member"})
    )
    assert group["sync"]["phase"] == "ready", group
    made = await openmeet.put(
        f"/events/Games-k3v9?wait={WAIT}",
        event(
            "Board games",
            {"Ada-1": "host", "grace-2": "moderator", "alan-3": "participant"},
            topic="Bring one",
            access="anyone",
        ),
    )
    assert made["sync"]["phase"] == "ready", made
    room_id, alias = made["matrix"]["room_id"], made["matrix"]["alias"]
    assert made["matrix"]["room_version"] == version
    assert alias == f"#event-games-k3v9-{stage.tenant}:{SERVER_NAME}"

    said = await openmeet.say("/events/games-K3V9", "ada-1", "Who brings the board?", key="k1")
    assert said.status == 201, said
    person = await stage.person()
    assert await person.join(alias) == room_id
    answered = await person.send_text(room_id, "I do")

    state = await person.state(room_id)
    assert state["m.room.name", ""]["name"] == "Board games"
    assert state["m.room.topic", ""]["topic"] == "Bring one"
    assert state["m.room.join_rules", ""]["join_rule"] == "public"
    assert state["m.room.history_visibility", ""]["history_visibility"] == "shared"
    assert state["m.room.guest_access", ""]["guest_access"] == "forbidden"
    assert state["m.room.canonical_alias", ""]["alias"] == alias
    shown = await person.joined_members(room_id)
    assert set(users.values()) <= set(shown.values())
    puppets = {name: user_id for user_id, name in shown.items()}
    powers = state["m.room.power_levels", ""]
    assert powers["users"][puppets["Ada Lovelace"]] == host_level
    assert powers["users"][puppets["Grace Hopper"]] == 50
    assert puppets["Alan Turing"] not in powers["users"]
    assert room_id in {room["room_id"] for room in await person.public_rooms()}

    await stage.receiver.has([said.body["event_id"], answered])
    arrived = {each["event"]["event_id"]: each for each in stage.receiver.events("m.room.message")}
    first, second = arrived[said.body["event_id"]], arrived[answered]
    assert first["origin"] == "openmeet"
    assert first["sender"]["kind"] == "puppet"
    assert first["sender"]["user"] == "Ada-1"
    assert first["event"]["content"]["body"] == "Who brings the board?"
    assert second["origin"] == "matrix"
    assert second["sender"] == {
        "user_id": person.user_id,
        "kind": "other",
        "user": None,
        "external_id": None,
    }
    assert second["event"]["content"]["body"] == "I do"
    assert second["sequence"] > first["sequence"]
    rooms = {batch.data["room"]["room_id"]: batch.data["room"] for batch in stage.receiver.batches}
    assert {rooms[room_id][name] for name in ("kind", "slug", "alias")} == {"event", "Games-k3v9", alias}
    stage.receiver.check()
    found = await openmeet.get(f"/resolve?event_id={answered}".replace("$", "%24"))
    assert (found["kind"], found["slug"]) == ("event", "Games-k3v9")
    assert await service.terminate() == 0

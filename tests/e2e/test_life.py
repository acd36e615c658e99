"""The life of an event, from the API to Synapse and back: renamed, recreated, deleted for good."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from openmeet_appservice.errors import HomeserverRefused

from .conftest import SERVER_NAME, Stage
from .openmeet import OpenMeet, event
from .service import Installation
from .waiting import until

WHO = {"ada": "host", "bob": "participant"}


def _alias(stage: Stage, slug: str) -> str:
    return f"#event-{slug}-{stage.tenant}:{SERVER_NAME}"


async def _post(openmeet: OpenMeet, path: str, body: object = None) -> dict[str, object]:
    answer = await openmeet.call("POST", path, body)
    assert answer.status in (200, 202), answer
    return answer.body


async def test_renamed_and_recreated_people_and_history_stay_where_they_belong(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet, homeserver = await stage.openmeet(installation), stage.homeserver(installation)
    await openmeet.put("/events/games", event("Games", WHO, access="anyone"))
    old = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    person = await stage.person()
    await person.join(_alias(stage, "games"))
    await stage.receiver.has([await person.send_text(old, "before")])

    await _post(openmeet, "/events/games/rename?wait=25", {"slug": "cards"})
    assert (await openmeet.call("GET", "/events/games")).status == 404
    for slug in ("games", "cards"):
        assert await homeserver.resolve(_alias(stage, slug)) == old
    # A webhook names it by its new slug.
    said = await person.send_text(old, "renamed")
    await stage.receiver.has([said])
    batch = next(
        batch
        for batch in stage.receiver.batches
        if said in [each["event"]["event_id"] for each in batch.data["events"]]
    )
    assert (batch.data["room"]["slug"], batch.data["room"]["alias"]) == ("cards", _alias(stage, "cards"))

    # Something else takes the old slug: a fresh room, without what was said in the old one.
    await openmeet.put("/events/games", event("Games again", WHO, access="anyone"))
    fresh = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    assert fresh != old

    async def is_fresh() -> bool:
        return bool(await homeserver.resolve(_alias(stage, "games")) == fresh)

    await until(is_fresh, "the old alias leads to the newcomer")
    assert await homeserver.messages(fresh) == []

    await _post(openmeet, "/events/cards/recreate", {"encrypted": True})
    recreated = await openmeet.ready("/events/cards")
    new = recreated["matrix"]["room_id"]
    assert (new == old, recreated["spec"]["encrypted"]) == (False, True)
    replaced = await stage.receiver.told("room.replaced")
    assert (replaced["room"]["room_id"], replaced["replaced"]["room_id"]) == (new, old)
    state = await homeserver.state(new)
    assert state["m.room.create", ""]["predecessor"]["room_id"] == old
    assert ("m.room.encryption", "") in state
    assert (await homeserver.state(old))["m.room.tombstone", ""]["replacement_room"] == new
    with pytest.raises(HomeserverRefused) as caught:
        await person.send_text(old, "too late")
    assert caught.value.status == 403
    assert await person.join(_alias(stage, "cards")) == new
    stage.receiver.check()


async def test_a_resync_puts_right_what_somebody_changed(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet, homeserver = await stage.openmeet(installation), stage.homeserver(installation)
    await openmeet.put("/events/drift", event("Drift", WHO))
    room_id = (await openmeet.ready("/events/drift"))["matrix"]["room_id"]
    token = installation.config().appservice.as_token.get_secret_value()
    url = f"{stage.synapse.url}/_matrix/client/v3/rooms/{room_id}/state/m.room.name"
    async with stage.session.put(
        url, json={"name": "Another"}, headers={"Authorization": f"Bearer {token}"}
    ) as answer:
        assert answer.status == 200
    config = str(installation.config_file)
    ran = installation.run("room", "resync", stage.tenant, "event", "drift", "-c", config)
    assert (ran.returncode, ran.stdout) == (0, "ready: Synapse agrees with what is wanted.\n"), ran.stderr
    assert (await homeserver.state(room_id))["m.room.name", ""]["name"] == "Drift"


def _stored(installation: Installation) -> str:
    """Return the whole database as text."""
    with closing(sqlite3.connect(installation.folder / "openmeet-appservice.db")) as found:
        return "\n".join(found.iterdump())


async def test_nothing_is_left_of_what_is_deleted_for_good(stage: Stage, tmp_path: Path) -> None:
    admin = await stage.synapse.register_user(f"root-{stage.tenant}", "correct horse", admin=True)
    (tmp_path / "admin").write_text(admin.access_token)
    installation = stage.install(HOMESERVER__ADMIN_TOKEN_FILE=str(tmp_path / "admin"))
    await stage.start(installation)
    openmeet, homeserver = await stage.openmeet(installation), stage.homeserver(installation)
    await openmeet.put("/events/secret", event("Hush hush", WHO, access="anyone"))
    room_id = (await openmeet.ready("/events/secret"))["matrix"]["room_id"]
    person = await stage.person()
    await person.join(_alias(stage, "secret"))
    await stage.receiver.has([await person.send_text(room_id, "Sesame")])
    # A webhook that OpenMeet does not take holds nothing up.
    stage.receiver.mood = "fails"
    await person.send_text(room_id, "Open sesame")

    async def is_stored() -> bool:
        return "Open sesame" in _stored(installation)

    await until(is_stored, "it is in the log")
    asked = await openmeet.call("DELETE", "/events/secret?purge=true&wait=25")
    assert asked.status == 202, asked

    async def is_gone() -> bool:
        return (await openmeet.call("GET", "/events/secret")).status == 404

    await until(is_gone, "it is 404")
    stage.receiver.go_on()
    assert await homeserver.resolve(_alias(stage, "secret")) is None
    with pytest.raises(HomeserverRefused):
        await person.join(room_id)
    left = _stored(installation)
    for word in ("Sesame", "Open sesame"):
        assert word not in left
    told = await stage.receiver.told("room.archived")
    assert told["room"]["room_id"] == room_id
    # The slug is free, and what comes has a history of its own.
    await openmeet.put("/events/secret", event("Anew", WHO))
    assert (await openmeet.ready("/events/secret"))["matrix"]["room_id"] != room_id
    stage.receiver.check()

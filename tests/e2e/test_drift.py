"""Changes that people make in a room, from their client to what Synapse has in the end, through all of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from openmeet_appservice.errors import HomeserverRefused

from .conftest import Stage
from .homeserver import Homeserver, Json
from .openmeet import OpenMeet, event
from .service import Installation
from .waiting import until, until_true


async def put_state(
    stage: Stage, homeserver: Homeserver, room_id: str, kind: str, content: Json, who: str
) -> None:
    """Write a state event as the puppet *who*, past the service, as its user's client does."""
    async with stage.session.put(
        f"{homeserver.url}/_matrix/client/v3/rooms/{room_id}/state/{kind}/",
        params={"user_id": who},
        json=content,
        headers={"Authorization": f"Bearer {homeserver.as_token}"},
    ) as answer:
        body = await answer.json()
        if answer.status != 200:
            raise HomeserverRefused(answer.status, body["errcode"], body["error"])


async def metric(stage: Stage, installation: Installation, line: str) -> float:
    """Return the value of the sample that *line* begins, 0 where there is none."""
    async with stage.session.get(f"{installation.ops_url}/metrics") as answer:
        text = await answer.text()
    values = [one.rpartition(" ")[2] for one in text.splitlines() if one.startswith(line)]
    return float(values[0]) if values else 0.0


async def shown(homeserver: Homeserver, room_id: str) -> tuple[Any, Any]:
    """Return name and topic."""
    state = await homeserver.state(room_id)
    return state["m.room.name", ""].get("name"), state["m.room.topic", ""].get("topic")


async def until_shown(homeserver: Homeserver, room_id: str, name: str, topic: str) -> None:
    async def look() -> bool:
        return await shown(homeserver, room_id) == (name, topic)

    await until(look, f"the room is {name!r}, {topic!r}")


async def open_room(openmeet: OpenMeet, homeserver: Homeserver, **fields: Any) -> tuple[str, dict[str, str]]:
    """Have a group with an owner and an admin; return its room and their user ids."""
    for user in ("ada", "ben"):
        await openmeet.user(user)
    spec = {**event("Club", {"ada": "owner", "ben": "admin"}, **fields), "topic": "Bring dice"}
    await openmeet.put("/groups/club", spec)
    room_id = (await openmeet.ready("/groups/club"))["matrix"]["room_id"]
    users = {user: (await openmeet.get(f"/users/{user}"))["matrix"]["user_id"] for user in ("ada", "ben")}
    return room_id, users


def is_idle(installation: Installation) -> bool:
    """Tell whether the reconciler has nothing to do."""
    with closing(sqlite3.connect(installation.folder / "openmeet-appservice.db")) as database:
        return bool(database.execute("SELECT count(*) FROM sync WHERE due_at IS NOT NULL").fetchone() == (0,))


@pytest.mark.parametrize("version", ["11", "12"])
async def test_42_47_59_what_people_change_is_set_right_without_a_script(stage: Stage, version: str) -> None:
    """OpenMeet's own service never looks after a name once it is set, and only scripts by hand mend a room.

    Here a host renames the room and an admin of level 75 changes the topic; both are as OpenMeet wants
    soon after, nobody having called anything, and what was done is counted.
    """
    gate = await stage.gate_to_synapse()
    installation = stage.install(HOMESERVER__URL=gate.url, ROOMS__VERSION=version)
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    homeserver = stage.homeserver(installation)
    room_id, users = await open_room(openmeet, homeserver)
    levels = (await homeserver.state(room_id))["m.room.power_levels", ""]["users"]
    assert levels[users["ada"]] == (100 if version == "12" else 99)
    assert levels[users["ben"]] == 75
    await until_true(lambda: is_idle(installation), "the room is made")

    await put_state(stage, homeserver, room_id, "m.room.name", {"name": "Party"}, users["ada"])
    await put_state(stage, homeserver, room_id, "m.room.topic", {"topic": "Bring beer"}, users["ben"])
    await until_shown(homeserver, room_id, "Club", "Bring dice")
    for field in ("name", "topic"):
        noticed = f'openmeet_as_drift_noticed_total{{field="{field}"}}'
        assert await metric(stage, installation, noticed) == 1
        done = f'openmeet_as_drift_total{{field="{field}",outcome="corrected"}}'

        async def is_counted(line: str = done) -> bool:
            return await metric(stage, installation, line) == 1

        await until(is_counted, f"{field} is counted")

    # Our own two writes come back to us as well. They lead to nothing: no run, and no request that writes.
    await until_true(lambda: is_idle(installation), "it is done")
    read, written = (gate.count(method, f"/rooms/{room_id}/state") for method in ("GET", "PUT"))
    said = await openmeet.say("/groups/club", "ada", "hello")
    await stage.receiver.has([said.body["event_id"]])
    assert is_idle(installation)
    assert gate.count("GET", f"/rooms/{room_id}/state") == read
    plan = await openmeet.get("/groups/club/plan")
    assert plan == {"actions": [], "accepted": [], "held": None, "notes": []}
    assert is_idle(installation)
    assert gate.count("PUT", f"/rooms/{room_id}/state") == written

    # A host cannot change powers, in either version.
    powers = (await homeserver.state(room_id))["m.room.power_levels", ""]
    with pytest.raises(HomeserverRefused):
        await put_state(stage, homeserver, room_id, "m.room.power_levels", {**powers, "ban": 0}, users["ada"])


async def test_what_a_host_may_decide_stays_until_openmeet_says_something_new(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    admin = stage.admin(installation)
    homeserver = stage.homeserver(installation)
    settings = {"rooms": {"drift": {"name": "accept"}}}
    await admin.put(f"/v1/tenants/{stage.tenant}", {"name": stage.tenant, "settings": settings})
    room_id, users = await open_room(openmeet, homeserver)
    await put_state(stage, homeserver, room_id, "m.room.name", {"name": "Party"}, users["ada"])
    accepted = 'openmeet_as_drift_total{field="name",outcome="accepted"}'

    async def is_accepted() -> bool:
        return await metric(stage, installation, accepted) == 1

    await until(is_accepted, "the name is accepted")
    why = "accepted by rooms.drift.name: name differs: 'Party' on Matrix, 'Club' wanted by OpenMeet"
    plan = await openmeet.get("/groups/club/plan")
    assert plan["accepted"] == [{"field": "name", "reason": why}]
    assert plan["actions"] == []
    ran = installation.run("room", "plan", stage.tenant, "group", "club")
    assert (ran.returncode, ran.stdout) == (0, f"left as it is: {why}\n")
    side_by_side = installation.run("room", "show", stage.tenant, "group", "club")
    assert "  name: Club\n" in side_by_side.stdout
    assert "  name: Party\n" in side_by_side.stdout

    patched = await openmeet.call("PATCH", "/groups/club", {"topic": "Bring cards"})
    assert patched.status in (200, 202), patched
    await until_shown(homeserver, room_id, "Party", "Bring cards")
    await openmeet.call("PATCH", "/groups/club", {"name": "Card club"})
    await until_shown(homeserver, room_id, "Card club", "Bring cards")


async def test_a_ban_by_a_moderator_is_kept_and_reported(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    homeserver = stage.homeserver(installation)
    room_id, users = await open_room(openmeet, homeserver)
    async with stage.session.post(
        f"{homeserver.url}/_matrix/client/v3/rooms/{room_id}/ban",
        params={"user_id": users["ada"]},
        json={"user_id": users["ben"]},
        headers={"Authorization": f"Bearer {homeserver.as_token}"},
    ) as answer:
        assert answer.status == 200, await answer.text()

    async def is_reported() -> Json | None:
        error: Json | None = (await openmeet.get("/groups/club"))["sync"]["last_error"]
        return error if error and error["code"] == "member_banned" else None

    error = await until(is_reported, "the ban is reported")
    assert users["ben"] in error["detail"]
    assert (await homeserver.state(room_id))["m.room.member", users["ben"]]["membership"] == "ban"


async def test_a_stranger_whom_a_host_invites_is_removed_and_one_who_may_be_there_is_not(
    stage: Stage,
) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    homeserver = stage.homeserver(installation)
    room_id, users = await open_room(openmeet, homeserver)
    person = await stage.person()
    async with stage.session.post(
        f"{homeserver.url}/_matrix/client/v3/rooms/{room_id}/invite",
        params={"user_id": users["ada"]},
        json={"user_id": person.user_id},
        headers={"Authorization": f"Bearer {homeserver.as_token}"},
    ) as answer:
        assert answer.status == 200, await answer.text()

    async def is_out() -> bool:
        member = (await homeserver.state(room_id)).get(("m.room.member", person.user_id), {})
        return member.get("membership") == "leave"

    await until(is_out, "the stranger is no longer invited")
    assert users["ben"] in await homeserver.joined(room_id)


async def test_a_change_while_nobody_ran_is_found_when_gap_repair_or_the_full_check_comes_by(
    stage: Stage,
) -> None:
    installation = stage.install(RECONCILER__FULL_CHECK="4s", RECONCILER__MAX_RATE="50/s")
    process = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    homeserver = stage.homeserver(installation)
    room_id, users = await open_room(openmeet, homeserver)
    assert await process.terminate() == 0
    await put_state(stage, homeserver, room_id, "m.room.name", {"name": "Party"}, users["ada"])
    await stage.start(installation)
    await until_shown(homeserver, room_id, "Club", "Bring dice")

"""Synapse away while OpenMeet provisions: nothing is refused, nothing forgotten."""

from __future__ import annotations

from .conftest import Stage
from .openmeet import Json, OpenMeet, event
from .waiting import until

MEMBERS = {"ada": "host", "grace": "participant"}


async def says_why_it_waits(openmeet: OpenMeet, path: str) -> Json:
    """Return the resource once its `sync` names Synapse's absence."""

    async def look() -> Json | None:
        found = await openmeet.get(path)
        error = found["sync"]["last_error"]
        return found if error and error["code"] == "homeserver_unreachable" else None

    return await until(look, f"the sync of {path} says why it waits")


async def test_everything_is_there_soon_after_synapse_returns(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    before = await stage.homeserver(installation).bots_rooms()
    await stage.synapse.stop()
    wanted: list[tuple[str, Json]] = [
        ("/users/ada", {"display_name": "Ada"}),
        ("/groups/chess", event("Chess", {"ada": "owner"})),
        ("/events/open", event("Open", MEMBERS)),
        ("/events/secret", event("Secret", MEMBERS, visibility="private")),
    ]
    for path, spec in wanted:
        answer = await openmeet.call("PUT", path, spec)
        assert answer.status == 202, answer
        assert answer.body["sync"]["phase"] in ("pending", "degraded")
    for path, _ in wanted:
        waiting = await says_why_it_waits(openmeet, path)
        assert waiting["sync"]["phase"] == "degraded"
        assert waiting["sync"]["last_error"]["next_attempt_at"]
    # What is wanted may still change.
    answer = await openmeet.call("PATCH", "/events/open", {"name": "Open to all"})
    assert answer.status == 202, answer

    await stage.synapse.start()
    # The longest pause between two probes is 15 s.
    for path, _ in wanted:
        await openmeet.ready(path, limit=40)
    made = await stage.homeserver(installation).made_since(before)
    names = sorted(state["m.room.name", ""]["name"] for state in made.values())
    assert names == ["Chess", "Open to all", "Secret"]


async def test_a_room_whose_making_is_cut_off_by_the_outage(stage: Stage) -> None:
    gate = await stage.gate_to_synapse()
    installation = stage.install(HOMESERVER__URL=gate.url)
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    hold = gate.hold("POST", "/createRoom", after=True, lost=True)
    for path, visibility in (("/events/open", "public"), ("/events/secret", "private")):
        await openmeet.put(path, event(path, MEMBERS, visibility=visibility))
    await hold.reached()
    gate.shut = True
    hold.let_go()
    await says_why_it_waits(openmeet, "/events/open")
    gate.open()
    entities = [await openmeet.ready(path) for path in ("/events/open", "/events/secret")]
    made = await homeserver.made_since(before)
    assert set(made) == {entity["matrix"]["room_id"] for entity in entities}

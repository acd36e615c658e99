"""OpenMeet away, in every way it can be: afterwards it gets everything, in order."""

from __future__ import annotations

from functools import partial

from .conftest import Stage
from .openmeet import event
from .receiver import Mood
from .waiting import until_true


async def test_everything_arrives_once_openmeet_is_back(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    person = await stage.person()
    rooms = []
    for slug in ("one", "two"):
        await openmeet.put(f"/events/{slug}", event(slug, {}, access="anyone"))
        made = await openmeet.ready(f"/events/{slug}")
        rooms.append(await person.join(made["matrix"]["alias"]))
    said: dict[str, list[str]] = {room_id: [] for room_id in rooms}
    event_ids: list[str] = []

    def several_tries(number: int) -> bool:
        return len(stage.receiver.batches) >= number

    async def say(text: str) -> None:
        for room_id in rooms:
            event_ids.append(await person.send_text(room_id, text))
            said[room_id].append(text)

    await say("while all is well")
    await stage.receiver.has(event_ids)

    async def resume() -> None:
        # Having failed in both rooms it is left alone for a while; nobody who has mended it waits for that.
        [endpoint] = (await openmeet.get("/webhooks"))["items"]
        path = f"/v1/tenants/{openmeet.tenant}/webhooks/{endpoint['name']}/resume"
        assert (await openmeet.call("POST", path)).status == 200

    moods: list[Mood] = ["fails", "breaks"]
    for mood in moods:
        stage.receiver.mood = mood
        refused = len(stage.receiver.batches) + 4
        await say(f"while it {mood}")
        await resume()
        await until_true(partial(several_tries, refused), "several tries are made")
    await stage.receiver.down()
    await say("while it is down")
    service.kill()
    await say("while we are down as well")
    await stage.start(installation)
    await say("while it is still down")
    await stage.receiver.up()
    await resume()
    await stage.receiver.has(event_ids)
    for room_id in rooms:
        assert stage.receiver.texts(room_id) == said[room_id]
    stage.receiver.check()
    assert any(not batch.taken for batch in stage.receiver.batches)

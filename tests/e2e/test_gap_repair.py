"""What Synapse forgets when it is restarted, and what gap repair makes of that."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from openmeet_appservice.dev.person import Person

from .conftest import Stage
from .openmeet import event
from .service import Installation, Process
from .waiting import until_true

MESSAGES = 15
Ending = Literal["killed", "in order"]


@dataclass(slots=True)
class Scene:
    """A room in which an ordinary person speaks, everything of which has arrived so far."""

    stage: Stage
    installation: Installation
    service: Process
    person: Person
    room_id: str

    async def say(self, *texts: str) -> list[str]:
        """Speak."""
        return [await self.person.send_text(self.room_id, text) for text in texts]

    async def restart_synapse(self, ending: Ending) -> None:
        """End Synapse, and start it again."""
        if ending == "killed":
            self.stage.synapse.kill()
        else:
            await self.stage.synapse.stop()
        await self.stage.synapse.start()

    def logged(self) -> dict[str, str | None]:
        """Return what the room's log has, by event id in its order: what each was repaired after."""
        file = self.stage.folder / "log.db"
        query = (
            "SELECT room_events.event_id, room_events.repaired_after FROM room_events JOIN rooms "
            "ON rooms.tenant = room_events.tenant AND rooms.id = room_events.room_ref "
            "WHERE rooms.room_id = ? ORDER BY room_events.sequence"
        )
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return dict(database.execute(query, (self.room_id,)).fetchall())

    def repaired(self) -> dict[str, Any]:
        """Return what the receiver took as repaired: what each comes after, by event id in its order."""
        return {
            each["event"]["event_id"]: each["after_event_id"]
            for each in self.stage.receiver.events("m.room.message")
            if each.get("repaired")
        }

    def has_settled(self) -> bool:
        """Tell whether gap repair has nothing left to look at since the service was started."""
        return "looking for events" in self.service.output() and not self._is_looking()

    def _is_looking(self) -> bool:
        query = (
            "SELECT 1 FROM rooms WHERE state = 'open' AND (check_lease_until IS NOT NULL OR "
            "checked_at < (SELECT CAST(value AS INTEGER) FROM service WHERE name = 'repair_suspicion'))"
        )
        with closing(sqlite3.connect(f"file:{self.stage.folder / 'log.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchone() is not None


async def set_the_scene(stage: Stage, **overrides: str) -> Scene:
    installation = stage.install(f"sqlite:///{stage.folder / 'log.db'}", **overrides)
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.put("/events/games", event("Games", {}, access="anyone"))
    made = await openmeet.ready("/events/games")
    person = await stage.person()
    room_id = await person.join(made["matrix"]["alias"])
    scene = Scene(stage, installation, service, person, room_id)
    await stage.receiver.has(await scene.say("all is well"))
    # The look at the start is over: what is found from now on is found for another reason.
    await until_true(scene.has_settled, "gap repair rests")
    return scene


async def arrives(scene: Scene, said: list[str], before: str) -> list[str]:
    """Fail unless all that was said behind *before* arrives, and return what of it gap repair had to add.

    That comes in its order, once, and marked with what it comes after. Synapse itself can bring the first,
    which it was about to push, and the last ones, which it had not yet begun to think about.
    """
    receiver = scene.stage.receiver
    await receiver.has(said, limit=120)
    marks = scene.logged()
    added = [event_id for event_id in said if marks[event_id] is not None]
    first = said.index(added[0])
    assert first <= 1
    assert added == said[first : first + len(added)]
    assert len(added) >= MESSAGES - 3
    assert scene.repaired() == dict(zip(added, [before, *said][first:], strict=False))
    assert [event_id for event_id in marks if event_id in added] == added
    assert list(scene.repaired()) == added
    receiver.check()
    return added


@pytest.mark.parametrize("ending", ["killed", pytest.param("in order", marks=pytest.mark.long)])
async def test_what_synapse_forgets_while_we_hang_is_found(stage: Stage, ending: Ending) -> None:
    """The whole service stands still in the midst of a transaction, as when its disk hangs."""
    scene = await set_the_scene(stage)
    [before] = await scene.say("the last that arrives")
    await stage.receiver.has([before])
    assert scene.service.popen is not None
    scene.service.popen.send_signal(signal.SIGSTOP)
    said = await scene.say(*(f"number {number}" for number in range(MESSAGES)))
    await scene.restart_synapse(ending)
    assert not scene.logged().keys() & set(said)
    scene.service.popen.send_signal(signal.SIGCONT)
    # The first one stands in the connection that Synapse has left behind, if it got that far.
    assert await arrives(scene, said, before) in (said, said[1:])


@pytest.mark.parametrize("ending", ["killed", "in order"])
async def test_what_synapse_forgets_while_nobody_reaches_us_is_found(stage: Stage, ending: Ending) -> None:
    """Something in between swallows a transaction: we see nothing but that the next one is not the next."""
    gate = await stage.gate_to_service()
    scene = await set_the_scene(stage, APPSERVICE__LISTEN=stage.behind)
    [before] = await scene.say("the last that arrives")
    await stage.receiver.has([before])
    hold = gate.hold("PUT", "/transactions/", lost=True)
    said = await scene.say(*(f"number {number}" for number in range(MESSAGES)))
    await hold.reached()
    await scene.restart_synapse(ending)
    gate.open()
    assert not scene.logged().keys() & set(said)
    [after] = await scene.say("the next that arrives")
    await stage.receiver.has([after])
    forgotten = await arrives(scene, said, before)
    # When the next one was stored, the log lacked them: nothing but gap repair brought them.
    assert [each for each in scene.logged() if each in (after, *forgotten)] == [after, *forgotten]


async def test_what_was_forgotten_before_we_were_there_is_found(stage: Stage) -> None:
    """Killed while Synapse forgets: nobody is left who could have noticed anything."""
    gate = await stage.gate_to_service()
    scene = await set_the_scene(stage, APPSERVICE__LISTEN=stage.behind)
    [before] = await scene.say("the last that arrives")
    await stage.receiver.has([before])
    hold = gate.hold("PUT", "/transactions/", lost=True)
    # More than the first page of a look holds.
    said = await scene.say(*(f"number {number}" for number in range(2 * MESSAGES)))
    await hold.reached()
    scene.service.kill()
    await scene.restart_synapse("killed")
    gate.open()
    assert not scene.logged().keys() & set(said)
    await stage.start(scene.installation)
    await arrives(scene, said, before)

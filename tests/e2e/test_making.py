"""Killed anywhere while rooms are made: afterwards there is one room in use for each, and it is whole."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .conftest import BOT, SERVER_NAME, Stage
from .gate import Gate, Hold
from .homeserver import Homeserver
from .kept import has_caught_up
from .openmeet import Json, OpenMeet, event
from .service import Installation, Process
from .waiting import until, until_true

MEMBERS = {"ada": "host", "grace": "moderator", "alan": "participant", "mary": "guest"}
PATHS = ("/events/open", "/events/secret")
"""One with a public alias and one without."""


@dataclass(slots=True)
class Workshop:
    """A service between two gates, about to make its rooms."""

    stage: Stage
    installation: Installation
    service: Process
    openmeet: OpenMeet
    homeserver: Homeserver
    to_synapse: Gate
    to_service: Gate
    before: set[str]

    async def want_rooms(self) -> None:
        """Want both rooms; neither is there yet."""
        for path, visibility in zip(PATHS, ("public", "private"), strict=True):
            answer = await self.openmeet.call(
                "PUT", path, event(self._name(path), MEMBERS, visibility=visibility)
            )
            assert answer.status == 202, answer

    async def known_ids(self) -> list[str | None]:
        """Return the room ids that the service has recorded."""
        return [(await self.openmeet.get(path))["matrix"]["room_id"] for path in PATHS]

    async def kill_and_start(self, *, untold: bool = False) -> None:
        """Kill the service, open the gates and start it again.

        While it is *untold*, it has to find out by itself: Synapse still cannot push anything.
        """
        self.service.kill()
        self.to_synapse.open()
        self.to_service.open()
        self.to_service.shut = untold
        self.service = await self.stage.start(self.installation)

    async def check(self) -> None:
        """Fail unless there is one whole room for each event, and no other."""
        entities = [await self.openmeet.ready(path) for path in PATHS]
        made = await self.homeserver.made_since(self.before)
        assert set(made) == {entity["matrix"]["room_id"] for entity in entities}
        for path, entity in zip(PATHS, entities, strict=True):
            await self._check_room(path, entity, made[entity["matrix"]["room_id"]])

    async def _check_room(self, path: str, entity: Json, state: dict[tuple[str, str], Json]) -> None:
        room_id = entity["matrix"]["room_id"]
        puppets = {user: f"@openmeet_{self.stage.tenant}_{user}:{SERVER_NAME}" for user in MEMBERS}
        assert await self.homeserver.joined(room_id) == {BOT, *puppets.values()}
        assert state["m.room.name", ""]["name"] == self._name(path)
        assert state["m.room.join_rules", ""]["join_rule"] == "invite"
        assert state["m.room.history_visibility", ""]["history_visibility"] == "shared"
        assert state["m.room.guest_access", ""]["guest_access"] == "forbidden"
        powers = state["m.room.power_levels", ""]
        assert powers["users"] == {puppets["ada"]: 100, puppets["grace"]: 50}
        is_open = path == PATHS[0]
        alias = f"#event-{path.rpartition('/')[2]}-{self.stage.tenant}:{SERVER_NAME}"
        assert entity["matrix"]["alias"] == (alias if is_open else None)
        assert await self.homeserver.resolve(alias) == (room_id if is_open else None)
        assert await self.homeserver.aliases(room_id) == ({alias} if is_open else set())
        canonical = state["m.room.canonical_alias", ""].get("alias")
        assert canonical == (alias if is_open else None)

    def _name(self, path: str) -> str:
        return f"{path} of {self.stage.tenant}"


async def open_workshop(stage: Stage, database_url: str | None = None) -> Workshop:
    """Start a service between two gates and wait until it has nothing to do."""
    to_synapse, to_service = await stage.gate_to_synapse(), await stage.gate_to_service()
    installation = stage.install(
        database_url, HOMESERVER__URL=to_synapse.url, APPSERVICE__LISTEN=stage.behind
    )
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    for user in MEMBERS:
        await openmeet.user(user)
    for user in MEMBERS:
        await openmeet.ready(f"/users/{user}")
    # The control room is made by then, so whatever is made later is ours.
    await until_true(lambda: to_synapse.count("PUT", "net.openmeet.wake"), "the control room is used")
    await until_true(lambda: has_caught_up(stage), "Synapse has pushed what it had kept")
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    return Workshop(stage, installation, service, openmeet, homeserver, to_synapse, to_service, before)


async def all_stopped(hold: Hold, number: int = len(PATHS)) -> None:
    """Return once so many requests are held."""
    await until_true(lambda: hold.stopped >= number, f"{number} requests stop at {hold.method} {hold.part}")


async def killed_with_rooms_nobody_knows(workshop: Workshop) -> None:
    hold = workshop.to_synapse.hold("POST", "/createRoom", after=True)
    workshop.to_service.hold("PUT", "/transactions/")
    await workshop.want_rooms()
    await all_stopped(hold)
    assert await workshop.known_ids() == [None, None]
    assert len(await workshop.homeserver.made_since(workshop.before)) == 2
    await workshop.kill_and_start(untold=True)
    await workshop.check()


async def test_killed_when_the_rooms_are_made_and_nobody_knows(stage: Stage) -> None:
    await killed_with_rooms_nobody_knows(await open_workshop(stage))


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_killed_when_nobody_knows_on_postgresql(stage: Stage, database_url: str) -> None:
    # Long, because a dead process's work waits there until its lease ends.
    await killed_with_rooms_nobody_knows(await open_workshop(stage, database_url))


async def test_killed_when_only_the_push_has_told_of_the_rooms(stage: Stage) -> None:
    workshop = await open_workshop(stage)
    hold = workshop.to_synapse.hold("POST", "/createRoom", after=True)
    await workshop.want_rooms()
    await all_stopped(hold)

    async def recorded() -> bool:
        return all(await workshop.known_ids())

    await until(recorded, "both rooms are recorded")
    await workshop.kill_and_start()
    await workshop.check()


async def test_killed_before_synapse_was_asked(stage: Stage) -> None:
    workshop = await open_workshop(stage)
    hold = workshop.to_synapse.hold("POST", "/createRoom")
    await workshop.want_rooms()
    await all_stopped(hold)
    workshop.service.kill()
    # Not even now does Synapse hear of it.
    workshop.to_synapse.shut = True
    hold.lost = True
    await workshop.kill_and_start()
    await workshop.check()


@pytest.mark.parametrize(
    ("method", "part", "number"),
    [
        ("GET", "/state", 2),
        ("DELETE", "/directory/room/", 1),
    ],
    ids=["comparing", "freeing the lock"],
)
async def test_killed_between_recording_and_finishing(
    stage: Stage, method: str, part: str, number: int
) -> None:
    workshop = await open_workshop(stage)
    hold = workshop.to_synapse.hold(method, part)
    await workshop.want_rooms()
    await all_stopped(hold, number)
    assert any(await workshop.known_ids())
    await workshop.kill_and_start()
    await workshop.check()


async def test_killed_in_the_middle_of_joins(stage: Stage) -> None:
    workshop = await open_workshop(stage)
    hold = workshop.to_synapse.hold("POST", "/join", skip=3)
    await workshop.want_rooms()
    await hold.reached()
    rooms = list(await workshop.homeserver.made_since(workshop.before))

    async def three_are_inside() -> bool:
        inside = [len(await workshop.homeserver.joined(room_id) - {BOT}) for room_id in rooms]
        return sum(inside) == 3

    await until(three_are_inside, "three of eight members are inside")
    await workshop.kill_and_start()
    await workshop.check()

"""The decision tables on a real Synapse, as an outsider, a member and the mightiest member see it.

All rows in room version 12, and one of each table in 10 and 11. Many cells share a room, so that it is quick.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from openmeet_appservice.dev.person import call
from openmeet_appservice.domain.kinds import Access, EntityKind
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.members import Standing

from .conftest import BOT, TOKEN, Service, World, make_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOLDER = Path(__file__).parents[1] / "domain" / "tables"
HELLO = "Hello, whoever comes later"


def table(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((FOLDER / f"{name}.yaml").read_text())


def row_of(name: str, row: str) -> dict[str, Any]:
    """Return one row of a table by column."""
    read = table(name)
    return dict(zip(read["columns"], read["rows"][row], strict=True))


@dataclass(slots=True)
class Houses:
    """Services on one Synapse, by the settings of their rooms."""

    world: World
    folder: Path
    built: dict[tuple[str, str, bool], Service]

    async def service(self, version: str, access: str = "members", private_alias: bool = False) -> Service:
        key = version, access, private_alias
        if key not in self.built:
            database = open_database(f"sqlite:///{self.folder / f'{len(self.built)}.db'}")
            await database.write(schema.migrate)
            made = await make_service(self.world, database, version)
            rooms = replace(made.settings.rooms, access=Access(access), private_alias=private_alias)
            made.settings = replace(made.settings, rooms=rooms)
            await made.start()
            self.built[key] = made
        return self.built[key]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def houses(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Houses]:
    made = Houses(world, tmp_path_factory.mktemp("tables"), {})
    yield made
    for service in made.built.values():
        await service.stop()
        await service.proxy.stop()
        await service.database.close()


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who tries things: with a token, and as a puppet where *user_id* is given."""

    world: World
    token: str
    user_id: str | None = None

    async def ask(self, method: str, *path: str, body: Any = None, **query: str) -> dict[str, Any]:
        parts = "/".join(quote(part, safe="") for part in path)
        url = f"{self.world.synapse.url}/_matrix/client/v3/{parts}"
        if self.user_id is not None:
            query["user_id"] = self.user_id
        return await call(self.world.session, method, url, body=body, query=query, token=self.token)

    async def may(self, method: str, *path: str, body: Any = None) -> bool:
        """Tell whether Synapse does it; False only where it says no."""
        try:
            await self.ask(method, *path, body=body)
        except HomeserverRefused as error:
            if error.status not in (403, 404):
                raise
            return False
        return True

    async def reads(self, room_id: str) -> bool:
        try:
            page = await self.ask("GET", "rooms", room_id, "messages", dir="b", limit="50")
        except HomeserverRefused as error:
            if error.status != 403:
                raise
            return False
        return any(event["content"].get("body") == HELLO for event in page["chunk"])

    async def speaks(self, room_id: str, text: str = "Hi") -> bool:
        content = {"msgtype": "m.text", "body": text}
        return await self.may(
            "PUT", "rooms", room_id, "send", "m.room.message", uuid.uuid4().hex, body=content
        )

    async def decides(self, room_id: str) -> bool:
        """Tell whether any of what decides who may be inside can be changed."""
        tried = {
            "m.room.join_rules": {"join_rule": "knock"},
            "m.room.history_visibility": {"history_visibility": "joined"},
            "m.room.guest_access": {"guest_access": "can_join"},
            "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
            "m.room.power_levels": {"users_default": 50},
            "m.room.canonical_alias": {},
            "m.room.server_acl": {"allow": ["*"]},
            "m.room.tombstone": {"body": "", "replacement_room": "!elsewhere:hs.test"},
        }
        may = [
            await self.may("PUT", "rooms", room_id, "state", name, "", body=content)
            for name, content in tried.items()
        ]
        return any(may)


async def seen(viewer: Viewer, service: Service, room_id: str, alias: str, wanted: Mapping[str, Any]) -> Any:
    """Return what the viewer can do of what the table speaks of."""
    found: dict[str, bool] = {}
    if "finds" in wanted:
        listed = await viewer.ask("GET", "publicRooms")
        found["finds"] = any(room["room_id"] == room_id for room in listed["chunk"])
        found["resolves"] = await viewer.may("GET", "directory", "room", alias)
        found["enters"] = await viewer.may("POST", "rooms", room_id, "join", body={})
    guest = f"{service.user_id('guest')}"
    return found | {
        "reads": await viewer.reads(room_id),
        "speaks": await viewer.speaks(room_id),
        "invites": await viewer.may("POST", "rooms", room_id, "invite", body={"user_id": guest}),
        "renames": await viewer.may(
            "PUT", "rooms", room_id, "state", "m.room.name", "", body={"name": "Another"}
        ),
        "decides": await viewer.decides(room_id),
    }


INSIDE = table("inside")["rows"]
PUBLIC_FOR_MEMBERS = INSIDE[1]


@pytest.mark.parametrize(
    ("row", "version"),
    [*((row, "12") for row in INSIDE), (PUBLIC_FOR_MEMBERS, "11"), (PUBLIC_FOR_MEMBERS, "10")],
    ids=lambda value: value if isinstance(value, str) else f"{value['visibility']}-{value['access']}",
)
async def test_inside(houses: Houses, world: World, row: Mapping[str, Any], version: str) -> None:
    service = await houses.service(version, row["access"], row.get("private_alias", False))
    await service.settled(await service.put_user("guest", "Guest"), "user")
    name = f"{row['visibility']}-{row['access']}"
    event = await service.put(
        name, visibility=row["visibility"], who={"hostess": "host", "member": "participant"}
    )
    await service.settled(event)
    room_id = await service.room_id(event)
    state = await service.state(room_id)
    assert {
        "join_rule": state["m.room.join_rules"]["join_rule"],
        "listed": await service.homeserver.room_visibility(room_id) == "public",
        "alias": bool(await service.homeserver.room_aliases(room_id)),
    } == row["room"]
    member = Viewer(world, TOKEN, service.user_id("member"))
    assert await member.speaks(room_id, HELLO)
    viewers = {
        "outsider": Viewer(world, world.person.account.access_token),
        "member": member,
        "admin": Viewer(world, TOKEN, service.user_id("hostess")),
    }
    for who, viewer in viewers.items():
        found = await seen(viewer, service, room_id, service.alias(name), row[who])
        assert found == row[who], f"{who} of {name} in version {version}"


@pytest.mark.parametrize(
    ("version", "rows"),
    [("12", list(table("event_status")["rows"])), ("11", ["published"]), ("10", ["published"])],
)
async def test_event_status(houses: Houses, version: str, rows: list[str]) -> None:
    service = await houses.service(version)
    cells = [
        (row, after, expected) for row in rows for after, expected in row_of("event_status", row).items()
    ]
    events: dict[tuple[str, str], Entity] = {}
    for before, after, _ in cells:
        events[before, after] = await service.put(
            f"{before}-{after}", status=before, who={"ada": "participant"}
        )
    for event in events.values():
        await service.settled(event)
    for before, after in events:
        if after == "deleted":
            await service.archive(f"{before}-{after}")
        else:
            await service.put(f"{before}-{after}", status=after, topic="Bring dice")
    for before, after, expected in cells:
        event = events[before, after]
        await service.settled(event)
        assert await _standing(service, event) == expected, f"{before} to {after}"


async def _standing(service: Service, event: Entity) -> str:
    """Say in the words of the table how the room stands, having seen that all of it fits."""
    rooms = await service.rooms(event)
    if not rooms:
        return "none"
    room_id = await service.room_id(event)
    state = await service.state(room_id)
    is_open = bool(await service.inside(room_id))
    levels = state["m.room.power_levels"]
    assert await service.homeserver.room_visibility(room_id) == ("public" if is_open else "private")
    assert bool(await service.homeserver.room_aliases(room_id)) == is_open
    assert (levels["events_default"] == 0) == is_open
    if not is_open:
        return "closed"
    return {"Bring dice": "open", "Cancelled. Bring dice": "cancelled"}[state["m.room.topic"]["topic"]]


@pytest.mark.parametrize(
    ("version", "rows"),
    [("12", list(table("attendee_status")["rows"])), ("11", ["confirmed"]), ("10", ["confirmed"])],
)
async def test_attendee_status(houses: Houses, version: str, rows: list[str]) -> None:
    service = await houses.service(version)
    cells = [(row, *cell) for row in rows for cell in row_of("attendee_status", row).items()]
    event = await service.put(
        "attendees", who={f"{row}-{after}": Standing("participant", row) for row, after, _ in cells}
    )
    await service.settled(event)
    room_id = await service.room_id(event)
    was = await service.inside(room_id)
    await service.put(
        "attendees", who={f"{row}-{after}": Standing("participant", after) for row, after, _ in cells}
    )
    await service.settled(event)
    inside = await service.inside(room_id)
    words = {(False, False): "outside", (False, True): "comes", (True, True): "stays", (True, False): "goes"}
    for before, after, expected in cells:
        user = service.user_id(f"{before}-{after}")
        assert words[user in was, user in inside] == expected, f"{before} to {after}"


@pytest.mark.parametrize("kind", [EntityKind.EVENT, EntityKind.GROUP])
@pytest.mark.parametrize(("version", "number"), [("12", 5), ("11", 1), ("10", 1)])
async def test_roles(houses: Houses, version: str, kind: EntityKind, number: int) -> None:
    service = await houses.service(version)
    name = f"{kind.value}_roles"
    rows = list(table(name)["rows"])[:number]
    cells = [(row, *cell) for row in rows for cell in row_of(name, row).items()]
    thing = await service.put("roles", kind=kind, who={f"{row}-{after}": row for row, after, _ in cells})
    await service.settled(thing)
    await service.put("roles", kind=kind, who={f"{row}-{after}": after for row, after, _ in cells})
    await service.settled(thing)
    room_id = await service.room_id(thing)
    inside = await service.inside(room_id)
    levels = (await service.state(room_id))["m.room.power_levels"]["users"]
    for before, after, expected in cells:
        user = service.user_id(f"{before}-{after}")
        level = 99 if expected == 100 and version != "12" else expected
        found = levels.get(user, 0) if user in inside else "outside"
        assert found == level, f"{before} to {after} in version {version}"
    assert levels.keys() - {BOT} <= inside


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_powers(houses: Houses, version: str) -> None:
    service = await houses.service(version)
    contents = []
    for visibility in ("public", "private"):
        event = await service.put(f"powers-{visibility}", visibility=visibility, who={"ada": "host"})
        await service.settled(event)
        state = await service.state(await service.room_id(event))
        assert state["m.room.create"]["room_version"] == version
        contents.append(state["m.room.power_levels"])
    public, private = contents
    found = {
        "bot is listed": BOT in public["users"],
        "host": public["users"][service.user_id("ada")],
        "invite into a private room": private["invite"],
        **public["events"],
        **public,
    }
    read = table("powers")
    column = read["columns"].index(version)
    expected = {what: values[column] for what, values in read["rows"].items()}
    assert {what: found[what] for what in expected} == expected

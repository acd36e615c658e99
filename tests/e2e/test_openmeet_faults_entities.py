"""What OpenMeet's own chat code got wrong about rooms, each by its number there: none of it lives on here."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from openmeet_appservice.dev.person import Person
from openmeet_appservice.errors import HomeserverRefused

from .conftest import BOT, SERVER_NAME, Stage, World
from .homeserver import Homeserver
from .openmeet import Json, OpenMeet, event
from .receiver import Receiver
from .waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class House:
    """One running service for all tests here, and those who look at it."""

    openmeet: OpenMeet
    homeserver: Homeserver
    outsider: Person
    pictures: str

    def user(self, slug: str) -> str:
        """Return the user id of a puppet."""
        return f"@openmeet_{self.openmeet.tenant}_{slug}:{SERVER_NAME}"

    def alias(self, slug: str, kind: str = "event") -> str:
        """Return the alias of an event or group."""
        return f"#{kind}-{slug}-{self.openmeet.tenant}:{SERVER_NAME}"

    async def room(self, path: str) -> str:
        """Return the id of the room, once it is as wanted."""
        found: str = (await self.openmeet.ready(path))["matrix"]["room_id"]
        return found

    async def state(self, room_id: str) -> dict[str, Json]:
        """Return the room's state without its members."""
        found = await self.homeserver.state(room_id)
        return {kind: content for (kind, state_key), content in found.items() if not state_key}

    async def levels(self, room_id: str) -> dict[str, int]:
        """Return the power of all who have some, the bot aside."""
        users = (await self.state(room_id))["m.room.power_levels"]["users"]
        return {user: level for user, level in users.items() if user != BOT}

    async def is_refused(self, *path: str) -> bool:
        """Tell whether the outsider is refused what *path* stands for: join, messages or state."""
        calls: dict[str, Any] = {
            "join": self.outsider.join,
            "messages": self.outsider.messages,
            "state": self.outsider.state,
            "resolve": self.outsider.resolve_alias,
        }
        try:
            await calls[path[0]](path[1])
        except HomeserverRefused as error:
            if error.status not in (403, 404):
                raise
            return True
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(
    world: World, tmp_path_factory: pytest.TempPathFactory, certificate: Path, server_tls: ssl.SSLContext
) -> AsyncIterator[House]:
    await world.synapse.start()
    receiver = Receiver(world.ports.receiver)
    app = web.Application()
    app.router.add_get("/{name:.*}", _picture)
    pictures = TestServer(app)
    await pictures.start_server(ssl=server_tls)
    async with ClientSession(timeout=ClientTimeout(total=90)) as session:
        tenant = f"t{secrets.token_hex(4)}"
        stage = Stage(world, session, tmp_path_factory.mktemp("faults"), receiver, tenant)
        await receiver.up()
        installation = stage.install()
        installation.environment["SSL_CERT_FILE"] = str(certificate)
        service = await stage.start(installation)
        try:
            openmeet = await stage.openmeet(installation)
            outsider = await stage.person()
            url = str(pictures.make_url("/"))
            yield House(openmeet, stage.homeserver(installation), outsider, url)
        finally:
            service.kill()
            print(installation.logs())
            await receiver.down()
            await pictures.close()


async def _picture(request: web.Request) -> web.Response:
    return web.Response(body=PNG + request.match_info["name"].encode(), content_type="image/png")


@pytest.mark.parametrize("visibility", ["private", "unlisted"])
@pytest.mark.parametrize(("kind", "leader"), [("event", "host"), ("group", "owner")])
async def test_fault_22_what_is_not_public_is_in_no_directory_and_open_to_nobody(
    house: House, visibility: str, kind: str, leader: str
) -> None:
    path = f"/{kind}s/{visibility}"
    await house.openmeet.put(path, event("Board of trustees", {"ada": leader}, visibility=visibility))
    room_id = await house.room(path)
    assert (await house.openmeet.say(path, "ada", "Between us")).status == 201
    assert room_id not in {room["room_id"] for room in await house.outsider.public_rooms()}
    for what in ("join", "messages", "state"):
        assert await house.is_refused(what, room_id), what
    assert await house.is_refused("resolve", house.alias(visibility, kind)) == (visibility == "private")
    if visibility == "unlisted":
        assert await house.is_refused("join", house.alias(visibility, kind))
    assert await house.homeserver.joined(room_id) == {BOT, house.user("ada")}


async def test_fault_28_an_alias_makes_no_room_of_a_draft_and_betrays_nothing_private(house: House) -> None:
    for status in ("draft", "pending"):
        await house.openmeet.put(f"/events/{status}", event("Soon", {"ada": "host"}, status=status))
    await house.openmeet.put("/events/secret", event("Secret", {"ada": "host"}, visibility="private"))
    await house.room("/events/secret")
    before = await house.homeserver.bots_rooms()
    answers = []
    for slug in ("draft", "pending", "secret", "nosuchevent"):
        for ask in (house.outsider.resolve_alias, house.outsider.join):
            with pytest.raises(HomeserverRefused) as caught:
                await ask(house.alias(slug))
            said = str(caught.value).replace(house.alias(slug), "#…")
            answers.append((ask.__name__, caught.value.status, caught.value.errcode, said))
    assert len(set(answers)) == 2, "what is hidden answers like what does not exist"
    assert await house.homeserver.bots_rooms() == before
    for slug in ("draft", "pending"):
        assert (await house.openmeet.get(f"/events/{slug}"))["matrix"]["room_id"] is None


async def test_fault_29_a_host_can_be_lowered_and_removed(house: House) -> None:
    await house.openmeet.put("/events/power", event("Power", {"ada": "host", "bob": "host"}))
    room_id = await house.room("/events/power")
    assert await house.levels(room_id) == {house.user("ada"): 100, house.user("bob"): 100}
    await house.openmeet.put("/events/power", event("Power", {"ada": "host", "bob": "participant"}))
    await house.room("/events/power")
    assert await house.levels(room_id) == {house.user("ada"): 100}
    await house.openmeet.put("/events/power", event("Power", {"bob": "participant"}))
    await house.room("/events/power")
    assert await house.levels(room_id) == {}
    assert await house.homeserver.joined(room_id) == {BOT, house.user("bob")}


async def test_fault_32_a_deleted_room_is_closed_and_its_slug_gets_no_old_history(house: House) -> None:
    await house.openmeet.put("/events/annual", event("Party", {"ada": "host"}, access="anyone"))
    old = await house.room("/events/annual")
    await house.outsider.join(house.alias("annual"))
    assert (await house.openmeet.say("/events/annual", "ada", "Last year's")).status == 201
    answer = await house.openmeet.call("DELETE", "/events/annual")
    assert answer.status == 202

    async def is_archived() -> bool:
        found = (await house.openmeet.get("/events/annual"))["sync"]
        return found["phase"] == "archived" and found["last_error"] is None

    await until(is_archived, "it is archived")
    assert await house.homeserver.resolve(house.alias("annual")) is None
    assert await house.homeserver.joined(old) == {BOT}
    assert await house.is_refused("join", old)
    await house.openmeet.put("/events/annual", event("Party", {"bob": "host"}, access="anyone"))
    new = await house.room("/events/annual")
    assert new != old
    assert await house.outsider.join(house.alias("annual")) == new
    assert await house.outsider.texts(new) == []
    assert await house.homeserver.joined(old) == {BOT}


async def test_fault_39_a_role_changes_the_power_without_anybody_joining(house: House) -> None:
    await house.openmeet.put("/groups/club", event("Club", {"ada": "owner", "bob": "member"}))
    room_id = await house.room("/groups/club")
    for role, level in (("admin", 75), ("moderator", 50)):
        changed = await house.openmeet.put("/groups/club/members/bob", {"role": role})
        assert changed
        await house.room("/groups/club")
        assert await house.levels(room_id) == {house.user("ada"): 100, house.user("bob"): level}
    joins = [
        content["membership"]
        for (kind, user), content in (await house.homeserver.state(room_id)).items()
        if kind == "m.room.member" and user == house.user("bob")
    ]
    assert joins == ["join"]


async def test_fault_40_who_leaves_loses_the_power_for_good(house: House) -> None:
    await house.openmeet.put("/events/staff", event("Staff", {"ada": "host", "bob": "moderator"}))
    room_id = await house.room("/events/staff")
    assert house.user("bob") in await house.levels(room_id)
    await house.openmeet.put("/events/staff", event("Staff", {"ada": "host"}))
    await house.room("/events/staff")
    assert await house.levels(room_id) == {house.user("ada"): 100}
    await house.openmeet.put("/events/staff", event("Staff", {"ada": "host", "bob": "participant"}))
    await house.room("/events/staff")
    assert await house.levels(room_id) == {house.user("ada"): 100}


async def test_fault_41_a_room_is_the_same_whatever_way_it_came_to_be(house: House) -> None:
    rooms = {}
    for slug in ("direct", "later", "looked-up"):
        status = "draft" if slug == "later" else "published"
        await house.openmeet.put(f"/events/{slug}", event("Same", {"ada": "host"}, status=status))
    # The first client that looks the alias up comes before the room, or after it; and one was a draft.
    await house.homeserver.resolve(house.alias("looked-up"))
    await house.openmeet.put("/events/later", event("Same", {"ada": "host"}))
    for slug in ("direct", "later", "looked-up"):
        state = await house.state(await house.room(f"/events/{slug}"))
        # These name the one room and are right so.
        for own in ("m.room.create", "m.room.canonical_alias"):
            state.pop(own)
        rooms[slug] = state
    assert rooms["direct"] == rooms["later"] == rooms["looked-up"]


async def test_fault_42_everything_said_of_an_event_follows_it_ever_after(house: House) -> None:
    await house.openmeet.user("ada", "Ada")
    first = event(
        "Games",
        {"ada": "host"},
        description="We play",
        url="https://openmeet.net/events/all",
        image_url=f"{house.pictures}first.png",
        starts_at="2026-11-27T18:00:00Z",
        time_zone="Europe/Berlin",
    )
    await house.openmeet.put("/events/all", first)
    room_id = await house.room("/events/all")
    state = await house.state(room_id)
    assert state["m.room.topic"]["topic"] == (
        "Fri, 27 Nov 2026, 19:00 (Europe/Berlin)\nWe play\nhttps://openmeet.net/events/all"
    )
    avatar = state["m.room.avatar"]["url"]
    changes: list[tuple[Json, str, Any]] = [
        ({"name": "Chess"}, "m.room.name", {"name": "Chess"}),
        ({"description": "We think"}, "m.room.topic", "We think"),
        ({"starts_at": "2026-12-04T18:00:00Z"}, "m.room.topic", "Fri, 4 Dec 2026, 19:00"),
        ({"topic": "Bring a clock"}, "m.room.topic", "Bring a clock"),
        ({"status": "cancelled"}, "m.room.topic", "Cancelled. Bring a clock"),
        ({"access": "anyone"}, "m.room.join_rules", {"join_rule": "public"}),
        ({"visibility": "unlisted"}, "m.room.join_rules", {"join_rule": "public"}),
        ({"image_url": f"{house.pictures}second.png"}, "m.room.avatar", "mxc://"),
    ]
    for change, kind, expected in changes:
        answer = await house.openmeet.call("PATCH", "/events/all", change)
        assert answer.status == 202, answer
        await house.room("/events/all")
        content = (await house.state(room_id))[kind]
        if isinstance(expected, str):
            assert expected in str(content), change
        else:
            assert content == expected, change
    assert (await house.state(room_id))["m.room.avatar"]["url"] != avatar
    assert room_id not in {room["room_id"] for room in await house.outsider.public_rooms()}
    await house.openmeet.user("ada", "Ada Lovelace")
    await house.openmeet.ready("/users/ada")

    async def is_renamed() -> bool:
        member = (await house.homeserver.state(room_id))["m.room.member", house.user("ada")]
        return bool(member["displayname"] == "Ada Lovelace")

    await until(is_renamed, "the room shows her new name")


async def test_fault_51_each_occurrence_of_a_series_has_its_own_room(house: House) -> None:
    slugs = ("weekly-1", "weekly-2")
    picture = f"{house.pictures}weekly.png"
    for slug in slugs:
        await house.openmeet.put(f"/events/{slug}", event("Weekly", {"ada": "host"}, image_url=picture))
    first, second = [await house.room(f"/events/{slug}") for slug in slugs]
    assert first != second
    assert [await house.homeserver.resolve(house.alias(slug)) for slug in slugs] == [first, second]
    await house.openmeet.say("/events/weekly-1", "ada", "This week only")
    assert [len(await house.homeserver.messages(room)) for room in (first, second)] == [1, 0]
    avatars = {(await house.state(room))["m.room.avatar"]["url"] for room in (first, second)}
    assert len(avatars) == 1, "one picture is uploaded once"

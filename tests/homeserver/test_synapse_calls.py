"""Every call against a real Synapse."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver import Homeserver, MatrixApi, new_txn_id

from .conftest import BOT, SERVER_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="session")
both_versions = pytest.mark.parametrize("room_version", ["11", "12"])


async def puppet(homeserver: Homeserver) -> str:
    localpart = f"om_{secrets.token_hex(4)}"
    assert await homeserver.register(localpart)
    return f"@{localpart}:{SERVER_NAME}"


def alias_of(name: str) -> str:
    return f"#om_{name}_{secrets.token_hex(4)}:{SERVER_NAME}"


async def room_of(homeserver: Homeserver, room_version: str, **content: Any) -> str:
    return await homeserver.create_room({"room_version": room_version, **content})


async def test_the_server_tells_about_itself(homeserver: Homeserver) -> None:
    versions = await homeserver.versions()
    assert "v1.11" in versions.versions
    assert all(isinstance(name, str) for name in versions.unstable_features)
    capabilities = await homeserver.capabilities()
    assert capabilities.default_room_version in capabilities.room_versions
    assert capabilities.room_versions["12"] == "stable"


async def test_who_we_are(homeserver: Homeserver) -> None:
    assert await homeserver.whoami() == BOT
    ada = await puppet(homeserver)
    assert await homeserver.whoami(as_user=ada) == ada
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.whoami(as_user=f"@somebody:{SERVER_NAME}")
    assert caught.value.errcode == "M_FORBIDDEN"


async def test_a_ping_that_works(homeserver: Homeserver) -> None:
    assert await homeserver.ping(new_txn_id()) >= 0


@pytest.mark.parametrize(
    ("appservice_id", "errcode"),
    [
        ("nowhere", "M_URL_NOT_SET"),
        ("deaf", "M_CONNECTION_FAILED"),
        ("angry", "M_BAD_STATUS"),
    ],
)
async def test_a_ping_that_fails_says_why(world: World, appservice_id: str, errcode: str) -> None:
    with pytest.raises(HomeserverRefused) as caught:
        await world.homeserver(appservice_id).ping(new_txn_id())
    assert caught.value.errcode == errcode


async def test_a_ping_under_another_id_is_forbidden(world: World) -> None:
    api = MatrixApi(world.synapse.url, [world.as_tokens["openmeet"]], world.session)
    with pytest.raises(HomeserverRefused) as caught:
        await Homeserver(api, "nowhere").ping(new_txn_id())
    assert caught.value.errcode == "M_FORBIDDEN"


async def test_registering_twice_is_no_error(homeserver: Homeserver) -> None:
    localpart = f"om_{secrets.token_hex(4)}"
    assert await homeserver.register(localpart) is True
    assert await homeserver.register(localpart) is False
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.register("somebody_else")
    assert caught.value.errcode == "M_EXCLUSIVE"


async def test_display_names(homeserver: Homeserver) -> None:
    ada = await puppet(homeserver)
    await homeserver.set_display_name(ada, "Ada ☂ Lovelace")
    assert await homeserver.display_name(ada) == "Ada ☂ Lovelace"
    await homeserver.set_display_name(ada, "")
    assert await homeserver.display_name(ada) is None
    assert await homeserver.display_name(f"@om_nobody:{SERVER_NAME}") is None


async def test_account_data_is_each_user_s_own(homeserver: Homeserver) -> None:
    ada, bob = await puppet(homeserver), await puppet(homeserver)
    assert await homeserver.account_data(ada, "m.direct") is None
    marks = {bob: ["!dm:x"], "odd/☂": ["!a"]}
    await homeserver.set_account_data(ada, "m.direct", marks)
    assert await homeserver.account_data(ada, "m.direct") == marks
    assert await homeserver.account_data(bob, "m.direct") is None


@both_versions
async def test_aliases(homeserver: Homeserver, room_version: str) -> None:
    first, second = alias_of("a/b"), alias_of("Zwölf~")
    room = await room_of(homeserver, room_version, room_alias_name=first[1:].partition(":")[0])
    assert await homeserver.resolve_alias(first) == room
    assert await homeserver.resolve_alias(second) is None
    await homeserver.put_alias(second, room)
    await homeserver.put_alias(second, room)
    assert await homeserver.room_aliases(room) == {first, second}
    other = await room_of(homeserver, room_version)
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.put_alias(second, other)
    assert caught.value.status == 409
    await homeserver.delete_alias(first)
    await homeserver.delete_alias(first)
    assert await homeserver.resolve_alias(first) is None


@both_versions
async def test_the_room_directory(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version, visibility="public")
    assert await homeserver.room_visibility(room) == "public"
    await homeserver.set_room_visibility(room, "private")
    assert await homeserver.room_visibility(room) == "private"


@both_versions
async def test_state(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version, name="Games")
    assert await homeserver.state_event(room, "m.room.name") == {"name": "Games"}
    assert await homeserver.state_event(room, "m.room.topic") is None
    first = await homeserver.set_state(room, "m.room.topic", {"topic": "x"})
    assert await homeserver.set_state(room, "m.room.topic", {"topic": "x"}) == first
    create = {event["type"]: event["content"] for event in await homeserver.room_state(room)}["m.room.create"]
    assert create["room_version"] == room_version


@both_versions
@pytest.mark.parametrize("state_key", ["", "a/b?c#d%20", "..", ".", "ü"])
async def test_any_state_key_reaches_its_event(
    homeserver: Homeserver, room_version: str, state_key: str
) -> None:
    room = await room_of(homeserver, room_version)
    await homeserver.set_state(room, "net.example.odd", {"k": 1}, state_key)
    assert await homeserver.state_event(room, "net.example.odd", state_key) == {"k": 1}
    keys = {
        event["state_key"]
        for event in await homeserver.room_state(room)
        if event["type"] == "net.example.odd"
    }
    assert keys == {state_key}


@both_versions
async def test_membership(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version, preset="private_chat")
    ada = await puppet(homeserver)
    with pytest.raises(HomeserverRefused):
        await homeserver.join(room, as_user=ada)
    await homeserver.invite(room, ada)
    await homeserver.invite(room, ada)
    await homeserver.join(room, as_user=ada)
    await homeserver.join(room, as_user=ada)
    assert await homeserver.joined_members(room) == {BOT, ada}
    assert await homeserver.joined_rooms(as_user=ada) == {room}
    await homeserver.kick(room, ada, "off the list")
    content = await homeserver.state_event(room, "m.room.member", ada)
    assert content is not None
    assert (content["membership"], content["reason"]) == ("leave", "off the list")
    with pytest.raises(HomeserverRefused):
        await homeserver.kick(room, ada)
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.leave(room, as_user=ada)
    assert caught.value.errcode == "M_FORBIDDEN"
    await homeserver.leave(room)
    await homeserver.leave(room)
    assert room not in await homeserver.joined_rooms()


@both_versions
async def test_messages(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version, preset="public_chat")
    ada = await puppet(homeserver)
    await homeserver.join(room, as_user=ada)
    txn_id = new_txn_id()
    content = {"msgtype": "m.text", "body": "hello 🎲"}
    sent = await homeserver.send(room, "m.room.message", txn_id, content, as_user=ada)
    again = await homeserver.send(room, "m.room.message", txn_id, content, as_user=ada)
    assert again == sent
    event = await homeserver.event(room, sent)
    assert (event["sender"], event["content"]) == (ada, content)
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.event(room, "$nothing")
    assert caught.value.errcode == "M_NOT_FOUND"


@both_versions
async def test_history_is_read_on_from_behind_an_event(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version)
    said = [
        await homeserver.send(
            room, "m.room.message", new_txn_id(), {"msgtype": "m.text", "body": str(number)}
        )
        for number in range(5)
    ]
    token = await homeserver.token_behind(room, said[1])
    page = await homeserver.messages(room, from_=token, direction="f", limit=2)
    assert [event["event_id"] for event in page.events] == said[2:4]
    assert all(event["room_id"] == room and event["unsigned"]["age"] >= 0 for event in page.events)
    page = await homeserver.messages(room, from_=page.end, direction="f", limit=2)
    assert [event["event_id"] for event in page.events] == said[4:]
    token = await homeserver.token_behind(room, said[-1])
    page = await homeserver.messages(room, from_=token, direction="f")
    assert (page.events, page.end) == ([], None)
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.token_behind(room, "$nothing")
    assert (caught.value.status, caught.value.errcode) == (404, "M_NOT_FOUND")


@both_versions
async def test_history_is_read_page_by_page(homeserver: Homeserver, room_version: str) -> None:
    room = await room_of(homeserver, room_version)
    for number in range(5):
        await homeserver.send(
            room, "m.room.message", new_txn_id(), {"msgtype": "m.text", "body": str(number)}
        )
    page = await homeserver.messages(room, direction="f", limit=3)
    events = list(page.events)
    while page.end is not None:
        page = await homeserver.messages(room, from_=page.end, direction="f", limit=3)
        events += page.events
    bodies = [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
    assert bodies == ["0", "1", "2", "3", "4"]
    assert events[0]["type"] == "m.room.create"
    newest = await homeserver.messages(room, limit=1)
    assert newest.events[0]["content"]["body"] == "4"


async def test_a_picture_is_uploaded_as_it_is(homeserver: Homeserver, world: World) -> None:
    content = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(2000)
    uri = await homeserver.upload(content, "image/png")
    assert uri.startswith(f"mxc://{SERVER_NAME}/")
    url = f"{world.synapse.url}/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
    headers = {"Authorization": f"Bearer {world.as_tokens['openmeet']}"}
    async with world.session.get(url, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert await answer.read() == content
    assert await homeserver.upload(content, "image/png") != uri, "so it has to be remembered"

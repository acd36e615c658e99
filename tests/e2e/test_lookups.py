"""What nobody has provisioned is asked about: when a client seeks it, and when OpenMeet hints at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .asked import Asked
from .conftest import SERVER_NAME, Stage
from .openmeet import Json, OpenMeet
from .service import Installation
from .waiting import until, until_true

SECRET = "whsec_" + "A" * 32
GAMES: Json = {"name": "Games", "visibility": "public", "status": "published", "access": "anyone"}


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    """OpenMeet's look-up endpoint."""
    endpoint = Asked(SECRET)
    await endpoint.up()
    yield endpoint
    await endpoint.down()


async def start(stage: Stage, asked: Asked, **more: str) -> tuple[Installation, OpenMeet]:
    """Start the service, which asks *asked*."""
    installation = stage.install(
        LOOKUP__URL=asked.url, LOOKUP__SECRETS=f'["{SECRET}"]', LOOKUP__ALIAS_TIMEOUT="20s", **more
    )
    await stage.start(installation)
    return installation, await stage.openmeet(installation)


async def test_a_client_joins_by_an_alias_that_nobody_has_provisioned(stage: Stage, asked: Asked) -> None:
    installation, openmeet = await start(stage, asked)
    alias = f"#event-games-{stage.tenant}:{SERVER_NAME}"
    asked.things[stage.tenant, "event", "games"] = {
        "spec": GAMES,
        "members": [{"user": "ada", "role": "host"}],
    }
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    people = [await stage.person() for _ in range(2)]
    # Both at once, and OpenMeet answers neither before both have asked.
    asked.held = asyncio.Event()
    joins = [asyncio.create_task(person.join(alias)) for person in people]
    await until_true(lambda: len(asked.requests) == 1, "OpenMeet is asked")
    asked.held.set()
    joined = set(await asyncio.gather(*joins))
    room_id = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    assert joined == {room_id}
    assert [one for one in await homeserver.made_since(before) if one != room_id] == []
    assert asked.requests == [{"tenant": stage.tenant, "kind": "event", "slug": "games"}]
    # Its host is in it as well.
    assert f"@openmeet_{stage.tenant}_ada:{SERVER_NAME}" in await homeserver.joined(room_id)


async def test_a_look_up_and_a_put_at_once_make_one_room(stage: Stage, asked: Asked) -> None:
    installation, openmeet = await start(stage, asked)
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    asked.things[stage.tenant, "event", "games"] = {"spec": GAMES, "members": []}
    asked.held = asyncio.Event()
    person = await stage.person()
    joining = asyncio.create_task(person.join(f"#event-games-{stage.tenant}:{SERVER_NAME}"))
    await until_true(lambda: bool(asked.requests), "OpenMeet is asked")
    await openmeet.put("/events/games", {**GAMES, "members": []})
    asked.held.set()
    room_id = await joining
    assert (await openmeet.ready("/events/games"))["matrix"]["room_id"] == room_id
    assert set(await homeserver.made_since(before)) == {room_id}


async def test_fault_28_what_is_hidden_is_not_found_by_its_alias(stage: Stage, asked: Asked) -> None:
    installation, openmeet = await start(stage, asked)
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    for slug, more in {
        "draft": {"status": "draft"},
        "pending": {"status": "pending"},
        "secret": {"visibility": "private", "access": "members"},
    }.items():
        asked.things[stage.tenant, "event", slug] = {"spec": {**GAMES, **more}}
    for slug in ("draft", "pending", "secret", "nothing"):
        assert await homeserver.resolve(f"#event-{slug}-{stage.tenant}:{SERVER_NAME}") is None
        assert (await openmeet.call("GET", f"/events/{slug}")).status == 404
    assert await homeserver.resolve(f"#event-draft-nosuchtenant:{SERVER_NAME}") is None
    assert [one["slug"] for one in asked.requests] == ["draft", "pending", "secret", "nothing"]
    assert await homeserver.made_since(before) == {}


async def test_a_hint_changes_the_room(stage: Stage, asked: Asked) -> None:
    installation, openmeet = await start(stage, asked)
    asked.things[stage.tenant, "event", "games"] = {
        "spec": GAMES,
        "members": [{"user": "ada", "role": "host"}],
    }
    hint: dict[str, Any] = {"kind": "event", "slug": "games"}
    assert (await openmeet.call("POST", "/changes", {"changes": [hint]})).status == 202

    async def made() -> Json | None:
        answer = await openmeet.call("GET", "/events/games")
        return answer.body if answer.status == 200 and answer.body["sync"]["phase"] == "ready" else None

    room_id = (await until(made, "the room is there"))["matrix"]["room_id"]
    homeserver = stage.homeserver(installation)
    bob = f"@openmeet_{stage.tenant}_bob:{SERVER_NAME}"
    thing = asked.things[stage.tenant, "event", "games"]
    asked.things[stage.tenant, "event", "games"] = {
        "spec": thing["spec"],
        "members": [{"user": "bob", "role": "participant"}],
    }
    await openmeet.call("POST", "/changes", {"changes": [{**hint, "user": "bob"}]})

    async def joined() -> bool:
        return bob in await homeserver.joined(room_id)

    await until(joined, "bob is in the room")
    del asked.things[stage.tenant, "event", "games"]
    await openmeet.call("POST", "/changes", {"changes": [{**hint, "deleted": True}]})

    async def archived() -> bool:
        return bool((await openmeet.get("/events/games"))["sync"]["phase"] == "archived")

    await until(archived, "the event is archived")
    assert await homeserver.resolve(f"#event-games-{stage.tenant}:{SERVER_NAME}") is None


async def test_a_hint_outlives_the_process(stage: Stage, asked: Asked) -> None:
    installation, openmeet = await start(stage, asked)
    asked.things[stage.tenant, "group", "chess"] = {"spec": GAMES, "members": []}
    asked.held = asyncio.Event()
    await openmeet.call("POST", "/changes", {"changes": [{"kind": "group", "slug": "chess"}]})
    await until_true(lambda: bool(asked.requests), "OpenMeet is asked")
    installation.processes[-1].kill()
    asked.held.set()
    asked.held = None
    await stage.start(installation)

    async def made() -> bool:
        return (await openmeet.call("GET", "/groups/chess")).status == 200

    await until(made, "the group is there")
    assert len(asked.requests) == 2

"""Looking aliases up: a room that is wanted is made, once; what is not ours costs nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from urllib.parse import quote

from .conftest import SERVER_NAME, Stage
from .openmeet import event
from .service import Installation
from .waiting import until_true


def everything_stored(installation: Installation) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with closing(sqlite3.connect(installation.folder / "openmeet-appservice.db")) as found:
        names = [row[0] for row in found.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: found.execute(f'SELECT * FROM "{name}"').fetchall() for name in sorted(names)}


async def test_two_clients_look_up_the_same_alias_at_once(stage: Stage) -> None:
    to_synapse, to_service = await stage.gate_to_synapse(), await stage.gate_to_service()
    installation = stage.install(HOMESERVER__URL=to_synapse.url, APPSERVICE__LISTEN=stage.behind)
    await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await until_true(lambda: to_synapse.count("PUT", "net.openmeet.wake"), "the control room is used")
    homeserver = stage.homeserver(installation)
    before = await homeserver.bots_rooms()
    making = to_synapse.hold("POST", "/createRoom")
    await openmeet.put("/events/games", event("Games", {}, access="anyone"))
    await making.reached()

    alias = f"#event-games-{stage.tenant}:{SERVER_NAME}"
    lookups = [asyncio.create_task(homeserver.resolve(alias)) for _ in range(2)]
    asking = to_service.hold("GET", f"/rooms/{alias}")
    await until_true(lambda: asking.stopped == 2, "Synapse asks for both clients")
    asking.let_go()
    making.let_go()
    found = set(await asyncio.gather(*lookups))
    room_id = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    assert found == {room_id}
    assert set(await homeserver.made_since(before)) == {room_id}
    # And joining by it, as a client does that was given a link.
    assert await (await stage.person()).join(alias) == room_id


async def test_an_alias_that_leads_nowhere_is_not_found_and_leaves_nothing(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.put("/events/draft", event("Draft", {}, status="draft"))
    await openmeet.put("/events/secret", event("Secret", {}, visibility="private"))
    await openmeet.ready("/events/secret")
    homeserver = stage.homeserver(installation)
    # Whatever Synapse still had to push is here when this is.
    said = await openmeet.put("/events/last", event("Last", {}, access="anyone"))
    assert said["slug"] == "last"
    last = (await openmeet.ready("/events/last"))["matrix"]["room_id"]
    person = await stage.person()
    await person.join(last)
    await stage.receiver.has([await person.send_text(last, "done")])

    token = installation.config().appservice.hs_token.get_secret_value()
    url = f"http://127.0.0.1:{stage.world.ports.appservice}/_matrix/app/v1/rooms/"
    before = everything_stored(installation)
    for alias in (
        f"#event-games-nosuchtenant:{SERVER_NAME}",
        f"#event-nosuchevent-{stage.tenant}:{SERVER_NAME}",
        f"#event-draft-{stage.tenant}:{SERVER_NAME}",
        f"#event-secret-{stage.tenant}:{SERVER_NAME}",
        f"#event-LAST-{stage.tenant}:{SERVER_NAME}",
        f"#group-games:{SERVER_NAME}",
        f"#event-last-{stage.tenant}:other.test",
        f"#event-last-{stage.tenant}",
        f"event-last-{stage.tenant}:{SERVER_NAME}",
        f"#:{SERVER_NAME}",
        "#",
        "\0",
        "#" + "x" * 300 + f":{SERVER_NAME}",
    ):
        async with stage.session.get(
            url + quote(alias, safe=""), headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            assert answer.status == 404, alias
            assert (await answer.json())["errcode"] == "M_NOT_FOUND", alias
    assert await homeserver.resolve(f"#event-games-nosuchtenant:{SERVER_NAME}") is None
    assert await homeserver.resolve(f"#event-draft-{stage.tenant}:{SERVER_NAME}") is None
    assert everything_stored(installation) == before
    assert service.is_running

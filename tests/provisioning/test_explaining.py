"""``…/members/{user}/explain``: what it answers, and what it asks the homeserver for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import DEFAULT_CHAT_STATUSES, DEFAULT_POWER_LEVELS, Access, EntityKind
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.errors import HomeserverRefused, HomeserverUnreachable
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.provisioning.explaining import Explaining
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import entities, member_errors

from .conftest import BOT, START, Api, ClientMaker, Clock, application

EVENT = "/tenants/t1/events/games"
ADA = "@openmeet_t1_ada:example.org"
DEFAULTS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)


@dataclass
class Rooms:
    """A homeserver that says what each user is in its one room."""

    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    fault: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def membership(self, room_id: str, user_id: str) -> Mapping[str, Any] | None:
        self.asked.append((room_id, user_id))
        if self.fault is not None:
            raise self.fault
        return self.events.get(user_id)

    def put(self, user_id: str, membership: str, **more: Any) -> None:
        self.events[user_id] = {
            "sender": more.pop("by", user_id),
            "origin_server_ts": START,
            "content": {"membership": membership, **more},
        }


@pytest.fixture
def homeserver() -> Rooms:
    return Rooms()


@pytest.fixture
async def event(api: Api, parts: Parts, clock: Clock, homeserver: Rooms, aiohttp_client: ClientMaker) -> Api:
    """The tenant's API with `explain`, and an event with its room."""
    explaining = Explaining(parts.database, cast(Homeserver, homeserver), DEFAULTS, BOT)
    client = await aiohttp_client(application(parts, [*api.routes, *explaining.routes()]))
    explained = Api(client, api.database, parts, clock, api.routes, api.key)
    members = [
        {"user": "Ada", "role": "host"},
        {"user": "bob", "role": "participant", "status": "waitlist"},
    ]
    await explained.put("/tenants/t1/users/ada", {"display_name": "Ada"})
    await explained.put(
        EVENT, {"name": "Games", "visibility": "public", "status": "published", "members": members}
    )
    await explained.settle()
    return explained


async def test_a_member_who_is_inside(event: Api, homeserver: Rooms) -> None:
    homeserver.put(ADA, "join")
    answer = await event.get(f"{EVENT}/members/ADA/explain")
    assert answer.status == 200
    shown = dict(answer.json)
    room_id = shown.pop("room_id")
    assert homeserver.asked == [(room_id, ADA)]
    assert shown == {
        "tenant": "t1",
        "kind": "event",
        "slug": "games",
        "user": "ada",
        "entitled": True,
        "reason": "member",
        "why": "ada is listed as host with the status confirmed, and may chat.",
        "joins": "at_once",
        "identity": {"kind": "puppet", "user_id": ADA, "registered": False},
        "membership": {"state": "join", "by": ADA, "at": "2026-11-22T19:00:00.000Z", "reason": None},
        "last_invitation": None,
        "last_error": None,
        "advice": [],
    }


async def test_who_may_not_chat_and_who_is_nobody(event: Api, homeserver: Rooms) -> None:
    bob = (await event.get(f"{EVENT}/members/bob/explain")).json
    assert (bob["entitled"], bob["reason"], bob["joins"]) == (False, "status_may_not_chat", None)
    assert bob["membership"]["state"] == "none"
    nobody = (await event.get(f"{EVENT}/members/nobody/explain")).json
    assert (nobody["entitled"], nobody["reason"], nobody["identity"]) == (False, "unknown_user", None)
    assert len(homeserver.asked) == 1, "nobody asks about somebody who has no user id"
    assert (await event.get("/tenants/t1/events/none/members/ada/explain")).code == "event_not_found"
    assert (await event.get("/tenants/t2/events/games/members/ada/explain")).status == 404


async def test_an_invitation_and_a_ban_are_told(event: Api, homeserver: Rooms) -> None:
    homeserver.put(ADA, "invite", by=BOT)
    shown = (await event.get(f"{EVENT}/members/ada/explain")).json
    assert shown["last_invitation"] == {"by": BOT, "at": "2026-11-22T19:00:00.000Z"}
    homeserver.put(ADA, "ban", by="@mod:example.org", reason="spam")
    shown = (await event.get(f"{EVENT}/members/ada/explain")).json
    assert (shown["membership"]["state"], shown["membership"]["reason"]) == ("ban", "spam")
    assert "@mod:example.org" in shown["advice"][0]


@pytest.mark.parametrize(
    "fault", [HomeserverUnreachable("away"), HomeserverRefused(403, "M_FORBIDDEN", "no"), None]
)
async def test_unknown_is_not_absent(event: Api, homeserver: Rooms, fault: Exception | None) -> None:
    homeserver.fault = fault
    homeserver.events[ADA] = {"content": {"membership": 7}}
    shown = (await event.get(f"{EVENT}/members/ada/explain")).json
    assert (shown["entitled"], shown["membership"]["state"]) == (True, "unknown")


async def test_what_was_refused_is_told(event: Api) -> None:
    def refuse(connection: Connection) -> None:
        entity = entities.find(connection, "t1", EntityKind.EVENT, "games")
        assert entity is not None
        member_errors.replace(connection, "t1", entity.ref, {"@other:x": "no"}, now=1)
        member_errors.replace(connection, "t1", entity.ref, {ADA: "M_FORBIDDEN (403): No"}, now=START)

    await event.database.write(refuse)
    shown = (await event.get(f"{EVENT}/members/ada/explain")).json
    assert shown["last_error"] == {
        "code": "member_refused",
        "detail": "M_FORBIDDEN (403): No",
        "at": "2026-11-22T19:00:00.000Z",
    }


async def test_a_lazy_member(event: Api) -> None:
    people = [{"user": f"u{n}", "role": "participant"} for n in range(60)]
    await event.put(f"{EVENT}/members", {"members": people})
    shown = (await event.get(f"{EVENT}/members/u7/explain")).json
    assert (shown["entitled"], shown["joins"]) == (True, "when_speaking")

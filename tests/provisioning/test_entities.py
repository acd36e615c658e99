"""Events and groups."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.store.sync import SyncError

from .conftest import Api

EVENT = "/tenants/t1/events/Board-Games"
GROUP = "/tenants/t1/groups/Chess"
SPEC = {"name": "Board Games", "visibility": "public", "status": "published"}
NOTHING_MORE = dict.fromkeys(("description", "topic", "image_url", "url", "access", "encrypted"))
NO_SCHEDULE = dict.fromkeys(("starts_at", "ends_at", "time_zone"))


async def test_an_event_is_stored_and_followed(api: Api) -> None:
    made = await api.put(EVENT, SPEC)
    assert made.status == 202
    assert made.json == {
        "tenant": "t1",
        "kind": "event",
        "slug": "Board-Games",
        "spec": {
            **NOTHING_MORE,
            "name": "Board Games",
            "visibility": "public",
            "status": "published",
            "external_id": None,
            **NO_SCHEDULE,
        },
        "matrix": {"room_id": None, "alias": None, "room_version": None},
        "sync": {"phase": "pending", "generation": 1, "observed_generation": 0, "last_error": None},
        "etag": made.json["etag"],
        "superseded": False,
        "members_superseded": False,
    }
    await api.settle()
    read = (await api.get(EVENT)).json
    assert read["sync"] == {"phase": "ready", "generation": 1, "observed_generation": 1, "last_error": None}
    assert read["matrix"]["room_id"].startswith("!room_")
    assert read["matrix"]["alias"] == "#event-board-games-t1:example.org"
    assert read["matrix"]["room_version"] == "12"
    assert (await api.put(EVENT.lower(), SPEC)).status == 200
    assert (await api.get(EVENT)).json == read


async def test_a_draft_needs_nothing(api: Api) -> None:
    made = await api.put(GROUP, {**SPEC, "status": "draft"})
    assert (made.status, made.json["sync"]["phase"]) == (201, "none")
    published = await api.patch(GROUP, {"status": "published"})
    assert (published.status, published.json["sync"]["phase"]) == (202, "pending")
    await api.settle()
    back = await api.patch(GROUP, {"status": "pending"})
    assert (back.status, back.json["sync"]["phase"]) == (202, "pending")
    await api.settle()
    read = (await api.get(GROUP)).json
    assert read["sync"]["phase"] == "none"
    assert read["matrix"]["room_id"]


async def test_patch_is_a_merge_patch(api: Api) -> None:
    await api.put(EVENT, {**SPEC, "topic": "Dice", "access": "anyone", "external_id": "e1"})
    patched = await api.patch(EVENT, {"topic": None, "name": "Games"})
    assert patched.json["spec"] == {
        **NOTHING_MORE,
        **NO_SCHEDULE,
        "name": "Games",
        "visibility": "public",
        "access": "anyone",
        "status": "published",
        "external_id": "e1",
    }
    private = await api.patch(EVENT, {"visibility": "private"})
    assert (private.status, private.pointers) == (422, ["/access"])
    assert (await api.patch(EVENT, {"members": []})).pointers == ["/members"]
    assert (await api.patch(EVENT, {"status": None})).pointers == ["/status"]
    assert (await api.patch("/tenants/t1/events/none", {})).code == "event_not_found"
    assert (await api.patch(EVENT, {})).json["etag"] == patched.json["etag"]


async def test_an_external_id_alone_moves_nothing_on_matrix(api: Api) -> None:
    await api.put(EVENT, SPEC)
    await api.settle()
    noted = await api.put(EVENT, {**SPEC, "external_id": "e1"})
    assert (noted.status, noted.json["sync"]["generation"]) == (200, 1)
    assert (await api.put(EVENT, SPEC)).json["spec"]["external_id"] == "e1"
    refused = await api.put(EVENT, {**SPEC, "name": "Other", "external_id": "e2"})
    assert (refused.status, refused.code) == (409, "external_id_mismatch")
    assert (await api.get(EVENT)).json["spec"]["name"] == "Board Games"


async def test_when_an_event_is_comes_back_in_utc(api: Api) -> None:
    schedule = {
        "starts_at": "2026-11-27T19:00:00+01:00",
        "ends_at": "2026-11-27T21:30:00Z",
        "time_zone": "Europe/Berlin",
    }
    made = await api.put(EVENT, {**SPEC, **schedule})
    assert {name: made.json["spec"][name] for name in schedule} == {
        "starts_at": "2026-11-27T18:00:00.000Z",
        "ends_at": "2026-11-27T21:30:00.000Z",
        "time_zone": "Europe/Berlin",
    }
    again = await api.put(EVENT, {**SPEC, **schedule, "starts_at": "2026-11-27T18:00:00Z"})
    assert again.json["sync"]["generation"] == 1


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": None}, ["/name"]),
    ({"name": ""}, ["/name"]),
    ({"name": "  "}, ["/name"]),
    ({"name": "x" * 256}, ["/name"]),
    ({"name": "a\u0007"}, ["/name"]),
    ({"topic": "x" * 10_001}, ["/topic"]),
    ({"topic": "a\u0000b"}, ["/topic"]),
    ({"visibility": "secret"}, ["/visibility"]),
    ({"visibility": "private", "access": "anyone"}, ["/access"]),
    ({"status": "cancelled"}, ["/status"]),
    ({"group": "g"}, ["/group"]),
    ({"encrypted": "yes"}, ["/encrypted"]),
    ({"url": "javascript:alert(1)"}, ["/url"]),
    ({"url": "https://"}, ["/url"]),
    ({"image_url": "http://images.example.org/a.png"}, ["/image_url"]),
    ({"image_url": "https://"}, ["/image_url"]),
    ({"image_url": "https://ada:secret@images.example.org/a.png"}, ["/image_url"]),
    ({"image_url": "https://images.example.org:0/a.png"}, ["/image_url"]),
    ({"image_url": "https://images.example.org:70000/a.png"}, ["/image_url"]),
    ({"image_url": "https://images.example.org/a.png#x"}, ["/image_url"]),
    ({"image_url": "https://images.example.org/a b.png"}, ["/image_url"]),
    ({"image_url": f"https://images.example.org/{'a' * 2048}"}, ["/image_url"]),
    ({"image_url": "mxc://example.org/a"}, ["/image_url"]),
    ({"description": "a\u0000b"}, ["/description"]),
    ({"starts_at": "2026-11-27T18:00:00Z"}, ["/starts_at"]),
    ({"members": [{"user": "a", "role": "host"}]}, ["/members/0/role"]),
    ({"members": [{"user": "a", "role": "guest", "status": "confirmed"}]}, ["/members/0/status"]),
    ({"members": [{"user": "a.b", "role": "guest"}]}, ["/members/0/user"]),
    (
        {"members": [{"user": "a", "role": "guest"}, {"user": "A", "role": "owner"}]},
        ["/members/1/user"],
    ),
]


async def test_what_is_wrong_with_a_group_is_named(api: Api) -> None:
    for change, pointers in WRONG:
        wrong = await api.put(GROUP, {**SPEC, **change})
        assert (wrong.status, wrong.pointers) == (422, pointers), change
    assert (await api.get(GROUP)).code == "group_not_found"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"starts_at": "tomorrow"}, "/starts_at"),
        ({"starts_at": "2026-11-27T18:00:00"}, "/starts_at"),
        ({"ends_at": "2026-11-27T18:00:00Z"}, "/ends_at"),
        ({"starts_at": "2026-11-27T18:00:00Z", "ends_at": "2026-11-27T17:59:59Z"}, "/ends_at"),
        ({"time_zone": "Europe/Atlantis"}, "/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "/time_zone"),
    ],
)
async def test_a_wrong_schedule_is_refused(api: Api, change: dict[str, Any], pointer: str) -> None:
    wrong = await api.put(EVENT, {**SPEC, **change})
    assert (wrong.status, wrong.pointers) == (422, [pointer])


async def test_an_empty_picture_is_none(api: Api) -> None:
    picture = "https://images.example.org:8443/a.png?signature=x%20y@z"
    made = await api.put(EVENT, {**SPEC, "image_url": picture})
    assert made.json["spec"]["image_url"] == picture
    for nothing in ("", None):
        await api.patch(EVENT, {"image_url": picture})
        assert (await api.patch(EVENT, {"image_url": nothing})).json["spec"]["image_url"] is None


async def test_events_can_be_cancelled_and_topics_have_lines(api: Api) -> None:
    made = await api.put(EVENT, {**SPEC, "status": "cancelled", "topic": "one\ntwo\tthree"})
    assert made.status == 202


async def test_members_come_with_it_or_are_left_alone(api: Api) -> None:
    listed = [{"user": "ada", "role": "host"}, {"user": "Bob", "role": "guest", "status": "maybe"}]
    await api.put(EVENT, {**SPEC, "members": listed})
    items = await api.all(f"{EVENT}/members", 10)
    assert sorted(items, key=lambda item: str(item["user"])) == [
        {"user": "Bob", "role": "guest", "status": "maybe", "banned": False, "muted": False},
        {"user": "ada", "role": "host", "status": "confirmed", "banned": False, "muted": False},
    ]
    await api.settle()
    assert (await api.put(EVENT, {**SPEC, "members": listed})).status == 200
    assert (await api.put(EVENT, SPEC)).status == 200
    assert len(await api.all(f"{EVENT}/members", 10)) == 2
    emptied = await api.put(EVENT, {**SPEC, "members": []})
    assert (emptied.status, emptied.json["sync"]["generation"]) == (202, 2)
    assert await api.all(f"{EVENT}/members", 10) == []
    assert "members" not in emptied.json["spec"]


async def test_spec_and_members_are_outdated_each_by_itself(api: Api) -> None:
    await api.put(f"{EVENT}?as_of=2026-11-22T18:00:00Z", {**SPEC, "members": []})
    one = {"upsert": [{"user": "ada", "role": "host"}]}
    await api.patch(f"{EVENT}/members?as_of=2026-11-22T18:20:00Z", one)
    mixed = await api.put(f"{EVENT}?as_of=2026-11-22T18:10:00Z", {**SPEC, "name": "B", "members": []})
    assert (mixed.json["superseded"], mixed.json["members_superseded"]) == (False, True)
    assert mixed.json["spec"]["name"] == "B"
    assert len(await api.all(f"{EVENT}/members", 10)) == 1
    old = await api.put(f"{EVENT}?as_of=2026-11-22T18:05:00Z", {**SPEC, "name": "A", "members": []})
    assert (old.status, old.json["superseded"], old.json["members_superseded"]) == (200, True, True)
    assert old.json["spec"]["name"] == "B"


async def test_delete_archives_and_the_slug_is_free_again(api: Api) -> None:
    assert (await api.delete(EVENT)).code == "event_not_found"
    made = await api.put(EVENT, {**SPEC, "external_id": "e1", "members": [{"user": "ada", "role": "host"}]})
    await api.settle()
    room = (await api.get(EVENT)).json["matrix"]["room_id"]
    deleted = await api.delete(EVENT)
    assert (deleted.status, deleted.json["sync"]["phase"]) == (202, "pending")
    await api.settle()
    read = await api.get(EVENT)
    assert (read.status, read.json["sync"]["phase"]) == (200, "archived")
    assert read.json["matrix"]["room_id"] == room
    again = await api.delete(EVENT)
    assert (again.status, again.json["etag"]) == (202, read.json["etag"])
    assert await api.all("/tenants/t1/events", 10) == []
    assert (await api.patch(EVENT, {"name": "X"})).code == "archived"
    assert (await api.put(f"{EVENT}/members", {"members": []})).code == "archived"
    assert len(await api.all(f"{EVENT}/members", 10)) == 1
    fresh = await api.put("/tenants/t1/events/board-games", {**SPEC, "external_id": "e2"})
    assert (fresh.status, fresh.json["slug"]) == (202, "board-games")
    assert fresh.json["etag"] != made.json["etag"]
    assert fresh.json["matrix"]["room_id"] is None
    await api.settle()
    assert (await api.get(EVENT)).json["matrix"]["room_id"] != room
    assert await api.all(f"{EVENT}/members", 10) == []


async def test_an_outdated_write_does_not_bring_an_archived_one_back(api: Api) -> None:
    await api.put(f"{EVENT}?as_of=2026-11-22T18:00:00Z", SPEC)
    ignored = await api.delete(f"{EVENT}?as_of=2026-11-22T17:00:00Z")
    assert (ignored.status, ignored.json["superseded"]) == (200, True)
    await api.delete(f"{EVENT}?as_of=2026-11-22T18:30:00Z")
    late = await api.put(f"{EVENT}?as_of=2026-11-22T18:20:00Z", SPEC)
    assert (late.status, late.json["superseded"], late.json["sync"]["phase"]) == (200, True, "archived")
    anew = await api.put(f"{EVENT}?as_of=2026-11-22T18:40:00Z", SPEC)
    assert (anew.status, anew.json["superseded"]) == (202, False)


async def test_conditions_guard_spec_and_members_apart(api: Api) -> None:
    assert (await api.put(EVENT, SPEC, If_Match="*")).status == 412
    made = await api.put(EVENT, SPEC)
    page = await api.get(f"{EVENT}/members")
    assert page.headers["ETag"] == f'"{page.json["etag"]}"'
    await api.put(f"{EVENT}/members/ada", {"role": "host"})
    assert (await api.patch(EVENT, {"name": "B"}, If_Match=made.headers["ETag"])).status == 202
    stale = await api.put(f"{EVENT}/members", {"members": []}, If_Match=page.headers["ETag"])
    assert stale.status == 412
    now = await api.get(f"{EVENT}/members")
    assert (await api.delete(f"{EVENT}/members/ada", If_Match=now.headers["ETag"])).status == 202
    assert (await api.delete(EVENT, If_Match=made.headers["ETag"])).status == 412
    assert (await api.delete(EVENT, If_Match="*")).status == 202


async def test_twenty_at_once_make_one(api: Api) -> None:
    answers = await asyncio.gather(
        *(
            api.put(
                f"/tenants/t1/events/{'games' if n % 2 else 'GAMES'}",
                {**SPEC, "members": [{"user": f"u{n % 3}", "role": "host"}, {"user": "x", "role": "guest"}]},
            )
            for n in range(20)
        )
    )
    assert {answer.status for answer in answers} == {202}
    assert len(await api.all("/tenants/t1/events", 10)) == 1
    assert len({answer.json["etag"] for answer in answers}) == 1
    assert len(await api.all("/tenants/t1/events/games/members", 10)) == 2


async def test_kinds_do_not_get_in_each_others_way(api: Api) -> None:
    await api.put("/tenants/t1/events/x", SPEC)
    await api.put("/tenants/t1/groups/x", SPEC)
    await api.put("/tenants/t1/groups/y", SPEC)
    assert [item["slug"] for item in await api.all("/tenants/t1/events", 1)] == ["x"]
    assert [item["slug"] for item in await api.all("/tenants/t1/groups", 1)] == ["x", "y"]


async def test_another_tenants_same_slug_is_another_one(admin: Api) -> None:
    for tenant in ("a", "b"):
        await admin.put(f"/tenants/{tenant}", {"name": tenant})
        assert (await admin.put(f"/tenants/{tenant}/events/x", {**SPEC, "name": tenant})).status == 202
    assert (await admin.get("/tenants/a/events/x")).json["spec"]["name"] == "a"
    unknown = await admin.put("/tenants/c/events/x", SPEC)
    assert (unknown.status, unknown.code) == (404, "tenant_not_found")


async def test_a_held_removal_is_not_waited_for(api: Api) -> None:
    await api.put(EVENT, SPEC)
    await api.settle()
    waiting = asyncio.create_task(api.put(f"{EVENT}?wait=30", {**SPEC, "members": []} | {"name": "B"}))
    async with asyncio.timeout(20):
        while (await api.get(EVENT)).json["spec"]["name"] != "B":
            await asyncio.sleep(0)
        await api.fail("mass_removal_held")
        answer = await waiting
    assert (answer.status, answer.json["sync"]["phase"]) == (202, "degraded")
    assert answer.json["sync"]["last_error"]["code"] == "mass_removal_held"


async def test_a_picture_that_cannot_be_fetched_is_told_and_not_waited_for(api: Api) -> None:
    image_url = "https://images.example.org/a.png"
    waiting = asyncio.create_task(api.put(f"{EVENT}?wait=30", {**SPEC, "image_url": image_url}))
    lacking = SyncError("image_unavailable", "Its picture: HTTP 404", api.clock.ms, 3, api.clock.ms + 60_000)
    async with asyncio.timeout(20):
        while not await api.settle(lacking):
            await asyncio.sleep(0)
        answer = await waiting
    assert answer.status == 202
    state = answer.json["sync"]
    assert (state["phase"], state["observed_generation"], state["generation"]) == ("degraded", 1, 1)
    assert (state["last_error"]["code"], state["last_error"]["attempts"]) == ("image_unavailable", 3)
    assert state["last_error"]["next_attempt_at"] == to_rfc3339(api.clock.ms + 60_000)

"""Users."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from openmeet_appservice.provisioning.routes import routes

from .conftest import Api, ClientMaker, application

USER = "/tenants/t1/users/Ada-1"


async def test_a_user_is_stored_and_followed(api: Api) -> None:
    made = await api.put(USER, {"display_name": "Ada", "external_id": "7"})
    assert made.status == 202
    assert made.json == {
        "tenant": "t1",
        "kind": "user",
        "slug": "Ada-1",
        "spec": {"display_name": "Ada", "external_id": "7"},
        "placeholder": False,
        "matrix": {"user_id": "@openmeet_t1_ada-1:example.org"},
        "sync": {"phase": "pending", "generation": 1, "observed_generation": 0, "last_error": None},
        "etag": made.json["etag"],
        "superseded": False,
    }
    assert made.headers["ETag"] == f'"{made.json["etag"]}"'
    assert await api.settle() == 1
    read = await api.get(USER)
    assert read.status == 200
    assert read.json["sync"]["phase"] == "ready"
    assert "superseded" not in read.json


async def test_the_same_again_changes_nothing(api: Api) -> None:
    first = await api.put(USER, {"display_name": "Ada"})
    await api.settle()
    again = await api.put("/tenants/T1/users/aDA-1", {"display_name": "Ada"})
    assert again.status == 200
    assert again.json["slug"] == "Ada-1"
    assert again.json["etag"] == first.json["etag"]
    assert again.json["sync"] == {
        "phase": "ready",
        "generation": 1,
        "observed_generation": 1,
        "last_error": None,
    }


async def test_another_name_is_followed_and_another_id_only_noted(api: Api) -> None:
    first = await api.put(USER, {"display_name": "Ada"})
    await api.settle()
    noted = await api.put(USER, {"display_name": "Ada", "external_id": "7"})
    assert (noted.status, noted.json["sync"]["generation"]) == (200, 1)
    assert noted.json["etag"] != first.json["etag"]
    renamed = await api.put(USER, {"display_name": "Ada L.", "external_id": "7"})
    assert (renamed.status, renamed.json["sync"]["generation"]) == (202, 2)


async def test_external_ids_stay(api: Api) -> None:
    await api.put(USER, {"display_name": "Ada", "external_id": "7"})
    kept = await api.put(USER, {"display_name": "Ada"})
    assert kept.json["spec"]["external_id"] == "7"
    refused = await api.put(USER, {"display_name": "Ada", "external_id": "8"})
    assert (refused.status, refused.code) == (409, "external_id_mismatch")
    assert (await api.patch(USER, {"external_id": "8"})).code == "external_id_mismatch"


async def test_patch_changes_what_it_names(api: Api) -> None:
    await api.put(USER, {"display_name": "Ada", "external_id": "7"})
    patched = await api.patch(USER, {"display_name": "Countess"})
    assert patched.status == 202
    assert patched.json["spec"] == {"display_name": "Countess", "external_id": "7"}
    assert (await api.patch("/tenants/t1/users/nobody", {})).code == "user_not_found"
    wrong = await api.patch(USER, {"display_name": None, "colour": 1})
    assert (wrong.status, wrong.pointers) == (422, ["/colour", "/display_name"])


async def test_a_condition_is_checked(api: Api) -> None:
    nothing = await api.put(USER, {"display_name": "Ada"}, If_Match='"x"')
    assert (nothing.status, nothing.code) == (412, "precondition_failed")
    made = await api.put(USER, {"display_name": "Ada"})
    stale = await api.patch(USER, {"display_name": "A"}, If_Match='"x"')
    assert stale.status == 412
    assert (await api.get(USER)).json["etag"] == made.json["etag"]
    assert (await api.patch(USER, {"display_name": "A"}, If_Match=made.headers["ETag"])).status == 202


async def test_older_data_changes_nothing(api: Api) -> None:
    await api.put(f"{USER}?as_of=2026-11-22T18:00:00.500Z", {"display_name": "New"})
    old = await api.put(f"{USER}?as_of=2026-11-22T18:00:00Z", {"display_name": "Old"})
    assert (old.status, old.json["superseded"]) == (200, True)
    assert old.json["spec"]["display_name"] == "New"
    # As old as the last is not older; and what confirms the present state counts as accepted.
    same = await api.put(f"{USER}?as_of=2026-11-22T19:00:00.500%2B01:00", {"display_name": "Same"})
    assert (same.json["superseded"], same.json["spec"]["display_name"]) == (False, "Same")
    await api.put(f"{USER}?as_of=2026-11-22T18:30:00Z", {"display_name": "Same"})
    late = await api.patch(f"{USER}?as_of=2026-11-22T18:20:00Z", {"display_name": "Late"})
    assert late.json["superseded"] is True
    # Without a moment it is taken as read now, and forgets nothing.
    assert (await api.put(USER, {"display_name": "Now"})).json["superseded"] is False
    assert (await api.put(f"{USER}?as_of=2026-11-22T18:20:00Z", {"display_name": "Late"})).json["superseded"]


async def test_a_moment_is_exact_and_not_to_come(api: Api) -> None:
    for as_of in ("2026-11-22T18:00:00", "yesterday", "1795374000", "2026-11-22T19:06:00Z"):
        wrong = await api.put(f"{USER}?as_of={as_of}", {"display_name": "Ada"})
        assert (wrong.status, wrong.pointers) == (422, ["?as_of"]), as_of
    assert (await api.get(USER)).status == 404


async def test_what_is_wrong_is_named(api: Api) -> None:
    for body, pointers in (
        ({}, ["/display_name"]),
        ({"display_name": "x" * 257}, ["/display_name"]),
        ({"display_name": "a\nb"}, ["/display_name"]),
        ({"display_name": "a\0b"}, ["/display_name"]),
        ({"display_name": 5, "external_id": ""}, ["/display_name", "/external_id"]),
        ({"display_name": "a", "avatar_url": "https://x"}, ["/avatar_url"]),
    ):
        wrong = await api.put(USER, body)
        assert (wrong.status, wrong.pointers) == (422, pointers), body


async def test_a_blank_name_stands_for_the_slug(api: Api) -> None:
    assert (await api.put(USER, {"display_name": ""})).status == 202
    assert (await api.get(USER)).json["spec"]["display_name"] == ""


async def test_a_wrong_slug_is_refused(api: Api) -> None:
    assert (await api.put("/tenants/t1/users/-x", {"display_name": "A"})).status == 422
    assert (await api.put("/tenants/t1/users/a.b", {"display_name": "A"})).status == 422


async def test_ten_at_once_make_one(api: Api) -> None:
    answers = await asyncio.gather(
        *(api.put(f"/tenants/t1/users/{'Ada' if n % 2 else 'aDA'}", {"display_name": "A"}) for n in range(10))
    )
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["etag"] for answer in answers}) == 1
    assert {answer.json["sync"]["generation"] for answer in answers} == {1}
    assert len(await api.all("/tenants/t1/users", 10)) == 1


async def test_the_list_goes_page_by_page(api: Api) -> None:
    slugs = [f"u{n:02}" for n in range(7)]
    for slug in reversed(slugs):
        await api.put(f"/tenants/t1/users/{slug}", {"display_name": slug})
    for limit in (1, 3, 7, 8):
        items = await api.all("/tenants/t1/users", limit)
        assert [item["slug"] for item in items] == slugs
    assert items[0] == (await api.get("/tenants/t1/users/u00")).json
    wrong = await api.get("/tenants/t1/users?page_token=abc&limit=501")
    assert (wrong.status, wrong.pointers) == (422, ["?limit"])
    assert (await api.get("/tenants/t1/users?page_token=abc")).pointers == ["?page_token"]


async def test_a_wait_ends_when_synapse_agrees(api: Api) -> None:
    waiting = asyncio.create_task(api.put(f"{USER}?wait=30", {"display_name": "Ada"}))
    async with asyncio.timeout(20):
        while (await api.get(USER)).status == 404:
            await asyncio.sleep(0)
        await api.settle()
        answer = await waiting
    assert (answer.status, answer.json["sync"]["phase"]) == (201, "ready")
    # What agrees already is not waited for.
    async with asyncio.timeout(20):
        assert (await api.put(f"{USER}?wait=30", {"display_name": "Ada"})).status == 200
    assert (await api.put(f"{USER}?wait=31", {"display_name": "Ada"})).pointers == ["?wait"]


async def test_a_wait_ends_with_its_time(api: Api) -> None:
    answer = await api.put(f"{USER}?wait=1", {"display_name": "Ada"})
    assert (answer.status, answer.json["sync"]["phase"]) == (202, "pending")


async def test_a_failure_is_shown(api: Api) -> None:
    await api.put(USER, {"display_name": "Ada"})
    await api.fail("homeserver_unreachable")
    assert (await api.get(USER)).json["sync"]["last_error"] == {
        "code": "homeserver_unreachable",
        "detail": "No.",
        "at": "2026-11-22T19:00:00.000Z",
        "attempts": 1,
        "next_attempt_at": "2026-11-22T19:00:01.000Z",
    }
    again = await api.put(USER, {"display_name": "Ada"})
    assert (again.status, again.json["sync"]["phase"]) == (202, "degraded")


async def test_a_write_wakes_the_reconciler(api: Api) -> None:
    before = api.parts.wakeups.ticket("reconcile")
    await api.put(USER, {"display_name": "Ada"})
    assert api.parts.wakeups.ticket("reconcile") == before + 1
    await api.put(USER, {"display_name": "Ada"})
    assert api.parts.wakeups.ticket("reconcile") == before + 1


async def test_the_bots_user_id_is_no_users(api: Api, aiohttp_client: ClientMaker) -> None:
    parts = replace(api.parts, bot="@openmeet_t1_bot:example.org")
    client = await aiohttp_client(application(parts, routes(parts)))
    other = Api(client, api.database, parts, api.clock, [], api.key)
    refused = await other.put("/tenants/t1/users/bot", {"display_name": "Bot"})
    assert (refused.status, refused.code) == (409, "user_id_taken")
    assert (await other.get("/tenants/t1/users/bot")).status == 404


async def test_a_name_that_matrix_cannot_hold_is_cut(api: Api) -> None:
    slug = "x" * 255
    made = await api.put(f"/tenants/t1/users/{slug}", {"display_name": "X"})
    assert made.json["slug"] == slug
    assert len(made.json["matrix"]["user_id"]) == 255

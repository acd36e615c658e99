"""Direct rooms over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.store import puppets

from .conftest import Api

PAIR = "/tenants/t1/direct/bob/Ada"
SAME = "/tenants/t1/direct/ADA/Bob"
NOTHING = {"encrypted": None, "external_id": None}


async def test_either_order_is_the_same_room(api: Api) -> None:
    made = await api.put(PAIR, {})
    assert made.status == 202
    assert made.json == {
        "tenant": "t1",
        "kind": "direct",
        "slug": "Ada~bob",
        "spec": NOTHING,
        "matrix": {"room_id": None, "alias": None, "room_version": None},
        "sync": {"phase": "pending", "generation": 1, "observed_generation": 0, "last_error": None},
        "etag": made.json["etag"],
        "superseded": False,
    }
    await api.settle()
    read = (await api.get(SAME)).json
    assert (read["sync"]["phase"], read["matrix"]["alias"]) == ("ready", None)
    assert read["matrix"]["room_id"].startswith("!room_")
    again = await api.put(SAME, {})
    assert (again.status, again.json["slug"], again.json["etag"]) == (200, "Ada~bob", made.json["etag"])
    assert [item["slug"] for item in await api.all("/tenants/t1/direct", 1)] == ["Ada~bob"]
    assert (await api.get(f"/tenants/t1/resolve?room_id={read['matrix']['room_id']}")).json == {
        "tenant": "t1",
        "kind": "direct",
        "slug": "Ada~bob",
        "external_id": None,
    }


async def test_users_never_put_get_placeholders(api: Api) -> None:
    await api.put("/tenants/t1/users/ada", {"display_name": "Ada"})
    await api.put(PAIR, {})
    assert (await api.get("/tenants/t1/users/bob")).json["placeholder"] is True
    assert (await api.get("/tenants/t1/users/ada")).json["spec"]["display_name"] == "Ada"


async def test_nobody_has_a_direct_room_with_oneself(api: Api) -> None:
    for method, body in (("PUT", {}), ("GET", None), ("DELETE", None)):
        answer = await api.call(method, "/tenants/t1/direct/ada/ADA", body)
        assert (answer.status, answer.pointers) == (422, ["path"])
        assert answer.json["errors"][0]["code"] == "same_user"


async def test_one_of_the_two_must_be_a_puppet(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are, the store says; and what was refused leaves nothing behind."""
    monkeypatch.setattr(puppets, "by_user_id", lambda connection, tenant, ids: {})
    refused = await api.put(PAIR, {})
    assert (refused.status, refused.code) == (409, "direct_needs_puppet")
    assert (await api.get(PAIR)).code == "direct_not_found"
    assert (await api.get("/tenants/t1/users/bob")).code == "user_not_found"
    one = {"@openmeet_t1_bob:example.org": object()}
    monkeypatch.setattr(puppets, "by_user_id", lambda connection, tenant, ids: one)
    assert (await api.put(PAIR, {})).status == 202


async def test_a_change_is_followed_and_an_older_one_is_not(api: Api) -> None:
    await api.put(f"{PAIR}?as_of=2026-11-22T18:00:00Z", {"external_id": "d1"})
    await api.settle()
    older = await api.put(f"{PAIR}?as_of=2026-11-22T17:00:00Z", {"encrypted": True})
    assert (older.status, older.json["superseded"]) == (200, True)
    assert older.json["spec"] == {"encrypted": None, "external_id": "d1"}
    newer = await api.put(f"{PAIR}?as_of=2026-11-22T18:30:00Z", {"encrypted": True})
    assert (newer.status, newer.json["sync"]["generation"]) == (202, 2)
    assert newer.json["spec"] == {"encrypted": True, "external_id": "d1"}
    assert (await api.put(PAIR, {"external_id": "d2"})).code == "external_id_mismatch"
    assert (await api.put(PAIR, {}, If_Match='"other"')).status == 412


async def test_archived_and_made_anew(api: Api) -> None:
    assert (await api.delete(PAIR)).code == "direct_not_found"
    first = await api.put(PAIR, {"external_id": "d1"})
    await api.settle()
    deleted = await api.delete(SAME)
    assert (deleted.status, deleted.json["sync"]["phase"]) == (202, "pending")
    await api.settle()
    assert (await api.get(PAIR)).json["sync"]["phase"] == "archived"
    assert (await api.get("/tenants/t1/direct")).json["items"] == []
    again = await api.put(PAIR, {"external_id": "d2"})
    assert (again.status, again.json["matrix"]["room_id"]) == (202, None)
    assert again.json["etag"] != first.json["etag"]


@pytest.mark.parametrize("body", [{"name": "Ada and Bob"}, {"topic": "x"}, {"members": []}, {"encrypted": 1}])
async def test_there_is_nothing_else_to_say(api: Api, body: Any) -> None:
    assert (await api.put(PAIR, body)).status == 422


async def test_the_longest_slugs_fit(api: Api) -> None:
    path = f"/tenants/t1/direct/{'a' * 255}/{'b' * 255}"
    assert (await api.put(path, {})).status == 202
    assert len((await api.get(path)).json["slug"]) == 511


async def test_a_tenant_chooses_what_its_puppets_answer(admin: Api) -> None:
    """That is no matter of its rooms, which are not looked at again."""
    await admin.put("/tenants/t1", {"name": "One"})
    await admin.put("/tenants/t1/groups/chess", {"name": "C", "visibility": "public", "status": "published"})
    await admin.settle()
    settings = {"users": {"direct_invitations": "accept"}}
    answer = await admin.put("/tenants/t1", {"name": "One", "settings": settings})
    assert answer.json["settings"] == settings
    assert await admin.settle() == 0
    for wrong in ("ignore", True):
        body = {"name": "One", "settings": {"users": {"direct_invitations": wrong}}}
        assert (await admin.put("/tenants/t1", body)).pointers == ["/settings/users/direct_invitations"]

"""Batches: many writes in one request, each as by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.provisioning.batch import batches
from openmeet_appservice.provisioning.items import _PATHS
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.store import entities, members
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.tables import metadata, sync
from openmeet_appservice.web.routes import Route

from .conftest import Answer, Api, ClientMaker, application

BATCH = "/tenants/t1/batch"
EVENT = {"name": "Games", "visibility": "public", "status": "published"}
GROUP = {"name": "Chess", "visibility": "unlisted", "status": "published"}

STORY: list[dict[str, Any]] = [
    {"op": "put", "kind": "user", "slug": "ada", "spec": {"display_name": "Ada"}},
    {"op": "put", "kind": "group", "slug": "chess", "spec": GROUP},
    {"op": "put", "kind": "event", "slug": "games", "spec": EVENT},
    {
        "op": "put",
        "kind": "event_members",
        "slug": "games",
        "spec": {"members": [{"user": "ada", "role": "host"}, {"user": "bob", "role": "guest"}]},
    },
    {
        "op": "patch",
        "kind": "group_members",
        "slug": "chess",
        "spec": {"upsert": [{"user": "ada", "role": "owner"}]},
    },
    {"op": "patch", "kind": "event", "slug": "games", "spec": {"topic": "Dice", "name": "Board Games"}},
    {"op": "put", "kind": "direct", "slug": "bob~ada", "spec": {}},
    {"op": "patch", "kind": "user", "slug": "ADA", "spec": {"display_name": "Ada L."}},
    {"op": "put", "kind": "event", "slug": "old", "spec": EVENT},
    {"op": "delete", "kind": "event", "slug": "old"},
]


async def send(api: Api, items: list[dict[str, Any]], query: str = "", **headers: str) -> Answer:
    return await api.post(BATCH + query, {"items": items}, **headers)


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.json
    return [item["status"] for item in answer.json["items"]]


def codes(answer: Answer) -> list[str | None]:
    return [None if one["problem"] is None else one["problem"]["code"] for one in answer.json["items"]]


async def state(api: Api) -> list[Any]:
    """What OpenMeet can read, without ids of ours."""
    found: list[Any] = []
    paths = ("/users/ada", "/users/bob", "/groups/chess", "/events/games", "/events/old", "/direct/ada/bob")
    for path in paths:
        read = (await api.get(f"/tenants/t1{path}")).json
        found.append((read["slug"], read["spec"], read["sync"]["phase"], read.get("placeholder")))
    for path in ("/events/games", "/groups/chess"):
        page = (await api.get(f"/tenants/t1{path}/members")).json
        found.append(sorted(page["items"], key=lambda member: str(member["user"])))
    return found


async def test_every_kind_in_order(api: Api) -> None:
    answer = await send(api, STORY)
    assert statuses(answer) == [202] * len(STORY)
    items = answer.json["items"]
    assert [(one["op"], one["kind"], one["slug"]) for one in items] == [
        (one["op"], one["kind"], one["slug"]) for one in STORY
    ]
    assert items[0]["resource"]["spec"]["display_name"] == "Ada"
    assert items[3]["resource"]["added"] == 2
    assert items[5]["resource"]["spec"]["topic"] == "Dice"
    assert (await api.get("/tenants/t1/users/ada")).json["spec"]["display_name"] == "Ada L."
    assert {one["user"] for one in (await state(api))[6]} == {"ada", "bob"}
    await api.settle()
    assert (await api.get("/tenants/t1/events/old")).json["sync"]["phase"] == "archived"
    assert statuses(await send(api, STORY[5:8])) == [200, 200, 200]


async def test_an_item_gets_what_the_single_request_gets(api: Api) -> None:
    """Answers and refusals are the same to the letter; only pointers lead into the item."""
    await send(api, STORY[:3])
    singles: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("PUT", "/users/ada", {"display_name": "Ada"}, STORY[0]),
        ("PUT", "/events/x", {"name": ""}, {"op": "put", "kind": "event", "slug": "x", "spec": {"name": ""}}),
        (
            "PUT",
            "/events/x_/members",
            {"members": []},
            {"op": "put", "kind": "event_members", "slug": "x_", "spec": {"members": []}},
        ),
        (
            "PATCH",
            "/users/none",
            {"display_name": "N"},
            {"op": "patch", "kind": "user", "slug": "none", "spec": {"display_name": "N"}},
        ),
        (
            "PUT",
            "/users/-x",
            {"display_name": "N"},
            {"op": "put", "kind": "user", "slug": "-x", "spec": {"display_name": "N"}},
        ),
        (
            "PATCH",
            "/groups/chess/members",
            {"upsert": [{"user": "a", "role": "owner"}], "remove": ["A"]},
            {
                "op": "patch",
                "kind": "group_members",
                "slug": "chess",
                "spec": {"upsert": [{"user": "a", "role": "owner"}], "remove": ["A"]},
            },
        ),
        ("DELETE", "/events/none", None, {"op": "delete", "kind": "event", "slug": "none"}),
        ("PUT", "/direct/ada/bob", {}, {"op": "put", "kind": "direct", "slug": "ada~bob", "spec": {}}),
        ("DELETE", "/direct/ada/eve", None, {"op": "delete", "kind": "direct", "slug": "eve~ada"}),
        ("PUT", "/direct/ada/ADA", {}, {"op": "put", "kind": "direct", "slug": "ada~ADA", "spec": {}}),
    ]
    for method, path, body, item in singles:
        single = await api.call(method, f"/tenants/t1{path}", body)
        (one,) = (await send(api, [item])).json["items"]
        assert one["status"] == single.status, path
        if single.status < 400:
            assert one["resource"] == single.json
            continue
        problem = {name: value for name, value in one["problem"].items() if value is not None}
        for name in ("code", "detail", "title", "type", "retryable"):
            assert problem[name] == single.json[name]
        pointers = [fault["pointer"] for fault in single.json.get("errors", [])]
        assert [fault["pointer"] for fault in problem.get("errors", [])] == [
            "/slug" if pointer == "path" else f"/spec{pointer}" for pointer in pointers
        ]


async def test_one_refused_item_stops_no_other(api: Api) -> None:
    items = [
        STORY[0],
        {"op": "put", "kind": "event", "slug": "games", "spec": {"name": "Games"}},
        {"op": "put", "kind": "event", "slug": "games"},
        {"op": "delete", "kind": "event", "slug": "games", "spec": {}},
        {"op": "delete", "kind": "event_members", "slug": "games"},
        {"op": "put", "kind": "event_members", "slug": "games", "spec": {"members": []}},
        STORY[2],
        {"op": "patch", "kind": "event", "slug": "games", "spec": {"password_hash": "x"}},
        {"op": "put", "kind": "user", "slug": "ada", "spec": {"display_name": "A", "external_id": "1"}},
        {"op": "put", "kind": "user", "slug": "ada", "spec": {"display_name": "A", "external_id": "2"}},
        {"op": "put", "kind": "direct", "slug": "ada", "spec": {}},
        {"op": "put", "kind": "direct", "slug": "ada~bob~eve", "spec": {}},
    ]
    answer = await send(api, items)
    assert statuses(answer) == [202, 422, 422, 400, 422, 404, 202, 422, 202, 409, 422, 422]
    assert codes(answer) == [
        None,
        "invalid",
        "invalid",
        "unexpected_body",
        "invalid",
        "event_not_found",
        None,
        "invalid",
        None,
        "external_id_mismatch",
        "invalid",
        "invalid",
    ]
    assert answer.json["items"][2]["problem"]["errors"][0]["pointer"] == "/spec"
    assert answer.json["items"][4]["problem"]["errors"][0]["pointer"] == "/op"
    assert answer.json["items"][7]["problem"]["errors"][0]["pointer"] == "/spec/password_hash"


async def test_a_fault_of_ours_in_one_item_stops_no_other(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    real = members.replace

    def broken(*given: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(members, "replace", broken)
    answer = await send(api, STORY[:5])
    assert statuses(answer) == [202, 202, 202, 500, 202]
    assert codes(answer)[3] == "internal_error"
    assert "a fault" not in str(answer.json)
    monkeypatch.setattr(members, "replace", real)
    assert statuses(await send(api, STORY[3:4])) == [202]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"items": [{"op": "post", "kind": "user", "slug": "ada"}]}, "/items/0/op"),
        ({"items": [{"op": "put", "kind": "room", "slug": "ada"}]}, "/items/0/kind"),
        ({"items": [{"op": "put", "kind": "user"}]}, "/items/0/slug"),
        ({"items": [{"op": "put", "kind": "user", "slug": "ada", "more": 1}]}, "/items/0/more"),
        ({"items": [STORY[0]] * 501}, "/items"),
        ({}, "/items"),
    ],
)
async def test_what_is_no_batch(api: Api, body: Any, pointer: str) -> None:
    answer = await api.post(BATCH, body)
    assert (answer.status, answer.pointers) == (422, [pointer])


async def test_500_items(api: Api) -> None:
    items = [
        {"op": "put", "kind": "user", "slug": f"u{n}", "spec": {"display_name": f"U {n}"}} for n in range(500)
    ]
    assert statuses(await send(api, items)) == [202] * 500
    assert statuses(await send(api, [])) == []


async def test_another_tenants_key(api: Api, admin: Api) -> None:
    await admin.put("/tenants/t2", {"name": "Two"})
    assert (await api.post("/tenants/t2/batch", {"items": STORY})).status == 404
    assert (await admin.get("/tenants/t2/users")).json["items"] == []
    assert (await admin.post("/tenants/none/batch", {"items": []})).code == "tenant_not_found"


async def test_as_of_holds_for_each_item(api: Api) -> None:
    await send(api, STORY[:4], "?as_of=2026-11-22T18:00:00Z")
    older = [
        {"op": "put", "kind": "event", "slug": "games", "spec": {**EVENT, "name": "Old"}},
        {"op": "put", "kind": "event_members", "slug": "games", "spec": {"members": []}},
        {"op": "put", "kind": "user", "slug": "new", "spec": {"display_name": "New"}},
    ]
    answer = await send(api, older, "?as_of=2026-11-22T17:59:59.999Z")
    assert [one["resource"]["superseded"] for one in answer.json["items"]] == [True, True, False]
    assert (await api.get("/tenants/t1/events/games")).json["spec"]["name"] == "Games"
    future = await send(api, older, "?as_of=2026-11-23T18:00:00Z")
    assert (future.status, future.pointers) == (422, ["?as_of"])


@pytest.mark.parametrize("confirm", [False, True])
async def test_removals_are_confirmed_for_all(api: Api, confirm: bool) -> None:
    many = [{"user": f"u{n}", "role": "participant"} for n in range(30)]
    await send(api, [STORY[2], {**STORY[3], "spec": {"members": many}}])
    await api.settle()
    query = f"?confirm_removals={str(confirm).lower()}"
    await send(api, [STORY[0], {**STORY[3], "spec": {"members": []}}], query)
    view = await api.database.read(entities.view, "t1", EntityKind.EVENT, "games")
    assert view is not None
    assert view.sync is not None
    assert entities.removals_are_confirmed(view.entity, view.sync) is confirm


async def test_the_whole_is_done_once_for_an_idempotency_key(api: Api) -> None:
    first = await send(api, STORY, Idempotency_Key="k1")
    generations = await api.database.read(_generations)
    again = await send(api, STORY, Idempotency_Key="k1")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json == first.json
    assert await api.database.read(_generations) == generations
    assert (await send(api, STORY[:1], Idempotency_Key="k1")).code == "idempotency_key_reused"


def _generations(connection: Connection) -> list[tuple[str, int]]:
    return [(row.ref, row.generation) for row in connection.execute(select(sync).order_by(sync.c.ref))]


class Dying(Database):
    """A database that goes away after some transactions that write."""

    def __init__(self, inner: Database, writes: int) -> None:
        self.inner = inner
        self.left = writes
        self.dialect = inner.dialect

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        if self.left == 0:
            raise DatabaseUnavailable("gone")
        self.left -= 1
        return await self.inner.write(do, *args, **kwargs)

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        if self.left == 0:
            raise DatabaseUnavailable("gone")
        return await self.inner.read(do, *args, **kwargs)

    async def close(self) -> None:
        """Leave the inner one open."""


@pytest.mark.parametrize("writes", range(len(STORY) + 1))
async def test_a_batch_cut_off_anywhere_and_repeated_ends_in_the_same_state(
    api: Api, aiohttp_client: ClientMaker, writes: int
) -> None:
    dying = replace(api.parts, database=Dying(api.database, writes))
    served: list[Route] = [route for route in routes(dying) if route.operation == "write_batch"]
    # Keys and idempotency on the database that stays: only the work itself is cut off.
    cut = Api(await aiohttp_client(application(api.parts, served)), api.database, dying, api.clock, served)
    answer = await cut.with_key(api.key).post(BATCH, {"items": STORY}, Idempotency_Key="k1")
    if writes < len(STORY):
        assert (answer.status, answer.code) == (503, "database_unavailable")
    again = await send(api, STORY, Idempotency_Key="k1")
    assert not [status for status in statuses(again) if status >= 400]
    await api.settle()
    cut_off = await state(api)

    await api.database.write(_forget_all)
    await send(api, STORY)
    await api.settle()
    assert cut_off == await state(api)


def _forget_all(connection: Connection) -> None:
    for name in ("users", "entities", "members", "sync", "rooms"):
        connection.execute(metadata.tables[name].delete())


def test_every_kind_has_its_routes(api: Api) -> None:
    served = {(route.method, route.path) for route in api.routes}
    for kind, path in _PATHS.items():
        assert ("PUT", path) in served, kind
        assert ("PATCH" if kind != "direct" else "DELETE", path) in served, kind
    (route,) = batches(api.parts, api.routes).routes()
    assert route.takes_idempotency_key

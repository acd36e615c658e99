"""What a tenant's key opens on the running program: its own tenant, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Stage
from .openmeet import OpenMeet, event

NAMES = {
    "user": "ada",
    "user_a": "ada",
    "user_b": "bob",
    "event": "games",
    "group": "chess",
    "name": "main",
    "key_id": "",
}
ANYBODYS = {"/v1/whoami", "/v1/capabilities", "/v1/openapi.json"}
BODIES: dict[str, Any] = {
    "/users/{user}": {"display_name": "Intruder"},
    "/events/{event}": event("Intruded", {"ada": "host"}),
    "/groups/{group}": event("Intruded", {"ada": "owner"}),
    "/direct/{user_a}/{user_b}": {},
    "/changes": {"changes": [{"kind": "event", "slug": "games"}]},
    "/rename": {"slug": "intruded"},
    "/recreate": {},
    "/members": {"members": []},
    "/members/{user}": {"role": "moderator"},
    "/webhooks/{name}": {"url": "http://127.0.0.1:9/stolen"},
    "/rotate-secret": {},
    "/replay": {"only": "all"},
    "/redrive": {},
    **dict.fromkeys(("/retire-secret", "/test", "/pause", "/resume", "/resync")),
    "/messages": {"sender": "ada", "body": "Not mine"},
    "/keys": {"name": "mine"},
    "/batch": {"items": []},
    "/v1/tenants/{tenant}": {"name": "Mine"},
}
"""Bodies that are right, by the end of the path: a key must be refused for what it is, not for the body."""


def body_for(method: str, path: str) -> Any:
    """Return a body that the route would take."""
    if method in ("GET", "DELETE"):
        return None
    if method == "PATCH":
        return {"remove": ["ada"]} if path.endswith("/members") else {"name": "Intruded"}
    return BODIES[max((end for end in BODIES if path.endswith(end)), key=len)]


def is_administration(path: str) -> bool:
    """Tell whether, by the contract, a route is for the admin or reaches across tenants."""
    below = path.removeprefix("/v1/tenants/{tenant}")
    return path == below or below == "" or below.startswith("/keys")


async def furnish(openmeet: OpenMeet) -> None:
    """Give the tenant one of everything."""
    await openmeet.user("ada")
    await openmeet.user("bob")
    await openmeet.put("/events/games", event("Games", {"ada": "host"}))
    await openmeet.put("/groups/chess", event("Chess", {"ada": "owner"}))
    await openmeet.put("/direct/ada/bob", {})
    for path in ("/users/ada", "/events/games", "/groups/chess", "/direct/ada/bob"):
        await openmeet.ready(path)


async def belongings(openmeet: OpenMeet) -> list[Any]:
    """Return everything the tenant has, as its own key sees it."""
    paths = (
        "users",
        "events",
        "groups",
        "direct",
        "webhooks",
        "events/games/members",
        "groups/chess/members",
    )
    return [await openmeet.get(f"/{path}") for path in paths]


async def operations(openmeet: OpenMeet) -> list[tuple[str, str]]:
    """Return method and path of every operation that the program says it has."""
    document = await openmeet.get("/v1/openapi.json")
    methods = {"get", "put", "post", "patch", "delete"}
    return [(m.upper(), path) for path, item in document["paths"].items() for m in item if m in methods]


def filled(path: str, tenant: str, key_id: str) -> str:
    """Return the path with names in it that exist."""
    for name, value in {**NAMES, "tenant": tenant, "key_id": key_id}.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, path
    return path


@pytest.fixture
async def pair(stage: Stage) -> tuple[OpenMeet, OpenMeet, OpenMeet]:
    """Two tenants with the same names in them, and the admin."""
    installation = stage.install()
    await stage.start(installation)
    ours = await stage.openmeet(installation)
    theirs = await stage.openmeet(installation, stage.tenant + "Other")
    for openmeet in (ours, theirs):
        await furnish(openmeet)
    admin = stage.admin(installation)
    # Nothing listens there: what is asked about it has to be refused or answered all the same.
    made = await admin.call("PUT", "/v1/webhooks/main", {"url": "http://127.0.0.1:9/platform"})
    assert made.status == 201, made
    return ours, theirs, admin


async def test_every_route_with_another_tenants_key(pair: tuple[OpenMeet, OpenMeet, OpenMeet]) -> None:
    ours, theirs, admin = pair
    before = [await belongings(ours), await belongings(theirs)]
    key_id = (await admin.get(f"/v1/tenants/{theirs.tenant}/keys"))["items"][0]["id"]
    own_key_id = (await admin.get(f"/v1/tenants/{ours.tenant}/keys"))["items"][0]["id"]
    walked = await operations(ours)
    assert len({path for _, path in walked}) >= 25
    wrong = []
    for method, path in walked:
        body = body_for(method, path)
        if is_administration(path):
            expected = 200 if path in ANYBODYS else 403
            tries = [
                (ours.tenant, own_key_id),
                (theirs.tenant, key_id),
                ("nosuchtenant", key_id),
            ]
        else:
            expected, tries = (
                404,
                [
                    (theirs.tenant, key_id),
                    (theirs.tenant.upper(), key_id),
                    ("nosuchtenant", key_id),
                ],
            )
        for tenant, key in tries:
            answer = await ours.call(method, filled(path, tenant, key), body)
            if answer.status != expected or (expected != 200 and "status" not in answer.body):
                wrong.append((method, path, tenant, answer))
    assert not wrong
    assert [await belongings(ours), await belongings(theirs)] == before


async def test_the_same_routes_are_open_to_who_may_use_them(
    pair: tuple[OpenMeet, OpenMeet, OpenMeet],
) -> None:
    _, theirs, admin = pair
    key_id = (await admin.get(f"/v1/tenants/{theirs.tenant}/keys"))["items"][0]["id"]
    user = await theirs.get("/users/ada")
    for method, path in await operations(theirs):
        if method != "GET":
            continue
        caller = admin if is_administration(path) else theirs
        query = f"?user_id={user['matrix']['user_id']}" if path.endswith("/resolve") else ""
        answer = await caller.call("GET", filled(path, theirs.tenant, key_id) + query)
        assert answer.status == 200, (path, answer)
    # Case does not matter in a tenant's id.
    assert (await theirs.call("GET", f"/v1/tenants/{theirs.tenant.upper()}/users")).status == 200

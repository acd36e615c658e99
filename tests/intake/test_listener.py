"""Who may call, which paths there are, and how refusals look: the contract's statuses and codes."""

from __future__ import annotations

from typing import Any

import pytest

BASE = "/_matrix/app/v1"
TOKEN = "the-hs-token"

ROUTES = [
    ("PUT", "/transactions/1"),
    ("GET", "/users/@x:hs.test"),
    ("GET", "/rooms/%23x:hs.test"),
    ("POST", "/ping"),
    ("GET", "/thirdparty/protocol/irc"),
    ("GET", "/thirdparty/user/irc"),
    ("GET", "/thirdparty/location/irc"),
    ("GET", "/thirdparty/user"),
    ("GET", "/thirdparty/location"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("headers", "query", "status", "errcode"),
    [
        ({}, "", 401, "M_MISSING_TOKEN"),
        ({"Authorization": ""}, "", 401, "M_MISSING_TOKEN"),
        ({"Authorization": "Bearer "}, "", 401, "M_MISSING_TOKEN"),
        ({"Authorization": TOKEN}, "", 401, "M_MISSING_TOKEN"),
        ({"Authorization": f"Basic {TOKEN}"}, "", 401, "M_MISSING_TOKEN"),
        ({}, f"?access_token={TOKEN}", 401, "M_MISSING_TOKEN"),
        ({"Authorization": "Bearer wrong"}, "", 403, "M_FORBIDDEN"),
        ({"Authorization": "Bearer wr\u00f6ng"}, "", 403, "M_FORBIDDEN"),
        ({"Authorization": f"Bearer {TOKEN}x"}, "", 403, "M_FORBIDDEN"),
        ({"Authorization": "Bearer wrong"}, f"?access_token={TOKEN}", 403, "M_FORBIDDEN"),
        ({"Authorization": f"Bearer {TOKEN}"}, "?access_token=wrong", 403, "M_FORBIDDEN"),
        ({"Authorization": f"Bearer {TOKEN}"}, f"?access_token={TOKEN}&access_token=", 403, "M_FORBIDDEN"),
    ],
)
async def test_only_the_homeserver_may_call(
    light_intake: Any,
    method: str,
    path: str,
    headers: dict[str, str],
    query: str,
    status: int,
    errcode: str,
) -> None:
    answer = await light_intake.request(method, BASE + path + query, token=None, headers=headers, data=b"{")
    assert answer[0] == status
    assert answer[1]["errcode"] == errcode
    assert set(answer[1]) == {"errcode", "error"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_may_be_repeated_in_the_url(light_intake: Any, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    path = f"{BASE}/ping?access_token={TOKEN}"
    assert await light_intake.request("POST", path, token=None, headers=headers, json={}) == (200, {})


async def test_two_tokens_during_a_rotation(light_intake: Any, start_intake: Any) -> None:
    during = await start_intake(light_intake.database, hs_tokens=["new", "old"])
    after = await start_intake(light_intake.database, hs_tokens=["new"])
    for token, expected in (("new", (200, 200)), ("old", (200, 403)), ("older", (403, 403))):
        statuses = [
            (await intake.request("POST", f"{BASE}/ping", token=token, json={}))[0]
            for intake in (during, after)
        ]
        assert tuple(statuses) == expected


async def test_an_empty_token_is_never_valid(light_intake: Any, start_intake: Any) -> None:
    for tokens in ([], [""], ["x", ""]):
        with pytest.raises(ValueError, match="hs_token"):
            await start_intake(light_intake.database, hs_tokens=tokens)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/users/@x:hs.test"),
        ("PUT", "/transactions/1"),
        ("GET", BASE),
        ("GET", BASE + "/users"),
        ("GET", BASE + "/users/@x:hs.test/more"),
        ("PUT", BASE + "/transactions/"),
        ("GET", BASE + "/thirdparty/other"),
        ("GET", "/_matrix/app/v2/users/@x:hs.test"),
        ("GET", "/metrics"),
    ],
)
async def test_unknown_paths(light_intake: Any, method: str, path: str) -> None:
    status, body = await light_intake.request(method, path)
    assert (status, body["errcode"]) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/transactions/1", "PUT"),
        ("POST", "/transactions/1", "PUT"),
        ("PUT", "/users/@x:hs.test", "GET"),
        ("DELETE", "/rooms/%23x:hs.test", "GET"),
        ("GET", "/ping", "POST"),
        ("PATCH", "/thirdparty/protocol/irc", "GET"),
    ],
)
async def test_wrong_methods(light_intake: Any, method: str, path: str, allowed: str) -> None:
    async with light_intake.http.request(method, light_intake.url + BASE + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert (await response.json())["errcode"] == "M_UNRECOGNIZED"


async def test_head_is_a_wrong_method_too(light_intake: Any) -> None:
    async with light_intake.http.head(f"{light_intake.url}{BASE}/users/@x:hs.test") as response:
        assert response.status == 405


@pytest.mark.parametrize("body", [b"", b"{}", b'{"transaction_id": "x"}'])
async def test_a_ping_is_answered(light_intake: Any, body: bytes) -> None:
    assert await light_intake.request("POST", f"{BASE}/ping", data=body) == (200, {})


async def test_a_ping_that_is_not_json(light_intake: Any) -> None:
    status, body = await light_intake.request("POST", f"{BASE}/ping", data=b"{")
    assert (status, body["errcode"]) == (400, "M_NOT_JSON")


async def test_thirdparty_networks_are_none(light_intake: Any) -> None:
    assert await light_intake.request("GET", f"{BASE}/thirdparty/protocol/irc") == (200, {})
    for path in ("user/irc?nick=x", "location/irc", "user?userid=@x:hs.test", "location?alias=%23x:hs.test"):
        assert await light_intake.request("GET", f"{BASE}/thirdparty/{path}") == (200, [])


async def test_a_fault_of_ours_shows_no_traceback(light_intake: Any) -> None:
    status, body = await light_intake.request("GET", f"{BASE}/users/@x:hs.test")
    assert (status, body["errcode"]) == (500, "M_UNKNOWN")
    assert "database" not in body["error"]

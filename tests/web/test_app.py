from __future__ import annotations

import asyncio
import gzip
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from pydantic import BaseModel

from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.web.app import build_app
from openmeet_appservice.web.routes import Access, PathParameter

USER = "/v1/tenants/t1/users/ada"
POKES = f"{USER}/pokes"


async def test_a_fit_request_is_answered(api: Any) -> None:
    status, body, headers = await api.call("PUT", USER, api.t1, json={"display_name": "Ada"})
    assert status == 201
    assert body == {
        "tenant": "t1",
        "slug": "ada",
        "spec": {"display_name": "Ada", "age": None, "tags": []},
    }
    assert headers["ETag"] == '"8"'
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert "aiohttp" not in headers["Server"]


async def test_an_answer_without_body(api: Any) -> None:
    status, body, headers = await api.call("DELETE", USER, api.t1)
    assert (status, body) == (204, None)
    assert "Content-Type" not in headers


async def test_a_problem_document_has_what_the_contract_lists(api: Any) -> None:
    status, body, headers = await api.call(
        "PUT", USER, api.t1, json={"surprise": "s3cret"}, headers={"X-Request-Id": "r-1"}
    )
    assert status == 422
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["X-Request-Id"] == "r-1"
    faults = body.pop("errors")
    assert body == {
        "type": "tag:openmeet.net,2026:openmeet-appservice/invalid",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "The request is not valid.",
        "code": "invalid",
        "request_id": "r-1",
        "retryable": False,
    }
    assert {fault["pointer"] for fault in faults} == {"/display_name", "/surprise"}
    assert "s3cret" not in str(faults)


@pytest.mark.parametrize("given", ["a" * 65, "a b", "é", "", "a/b"])
async def test_an_unfit_request_id_is_replaced(api: Any, given: str) -> None:
    _, body, headers = await api.call("GET", "/nowhere", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{24}", headers["X-Request-Id"])
    assert body["request_id"] == headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "who", "status", "code"),
    [
        ("GET", "/v1/whoami", None, 401, "not_authenticated"),
        ("GET", "/v1/whoami", "nobody", 401, "unknown_key"),
        ("GET", "/v1/tenants/t2/users", "t1", 404, "not_found"),
        ("GET", "/v1/tenants/T1/users", "t1", 200, None),
        ("GET", "/v1/tenants/t2/users", "platform", 200, None),
        ("GET", "/v1/tenants/t1", "t1", 403, "forbidden"),
        ("GET", "/v1/tenants/t2", "t1", 403, "forbidden"),
        ("GET", "/v1/tenants/t1", "platform", 403, "forbidden"),
        ("GET", "/v1/tenants/t1", "admin", 200, None),
        ("GET", "/v1/resolve", "t1", 403, "forbidden"),
        ("GET", "/v1/resolve", "platform", 404, "not_found"),
        ("GET", "/v1/tenants/t1/users?limit=0", "t1", 422, "invalid"),
        ("GET", "/v1/whoami?x=1", "t1", 422, "invalid"),
        ("GET", "/v1/tenants/t1/users/", "t1", 404, "unknown_path"),
        ("GET", "/v1/nowhere", "admin", 404, "unknown_path"),
        ("GET", "/", None, 404, "unknown_path"),
        ("DELETE", "/v1/tenants/t1/users/a%2Fb", "t1", 422, "invalid"),
        ("DELETE", "/v1/tenants/t1/users/%FF", "t1", 422, "invalid"),
        ("DELETE", "/v1/tenants/t1/users/%00", "t1", 422, "invalid"),
        ("DELETE", "/v1/tenants/t1/users/a%0A", "t1", 422, "invalid"),
        ("DELETE", "/v1/tenants/t%C3%A9/users/a", "platform", 422, "invalid"),
        ("DELETE", f"/v1/tenants/t1/users/{'a' * 256}", "t1", 422, "invalid"),
    ],
)
async def test_who_and_what_decide_the_status(
    api: Any, method: str, path: str, who: str | None, status: int, code: str | None
) -> None:
    keys = {"t1": api.t1, "platform": api.platform, "admin": api.admin, "nobody": "omk_tenant_x"}
    answered, body, headers = await api.call(method, path, keys[who] if who else None)
    assert (answered, body.get("code")) == (status, code)
    assert ("WWW-Authenticate" in headers) == (status == 401)


async def test_another_tenants_key_learns_nothing_from_a_malformed_request(api: Any) -> None:
    answers = {
        await _code(api, f"/v1/tenants/{tenant}/users/%FF?x=1", body)
        for tenant in ("t2", "no-such", "%FF")
        for body in (b"{}", b"not json")
    }
    assert answers == {(404, "not_found")}


async def _code(api: Any, path: str, body: bytes) -> tuple[int, str]:
    status, answer, _ = await api.call("PUT", path, api.t1, data=body)
    return status, answer["code"]


async def test_a_wrong_method_names_the_right_ones(api: Any) -> None:
    status, body, headers = await api.call("POST", USER, api.t1, json={})
    assert (status, body["code"]) == (405, "method_not_allowed")
    assert headers["Allow"] == "DELETE, PATCH, PUT"


async def test_head_is_get_without_the_body(api: Any) -> None:
    _, _, got = await api.call("GET", "/v1/whoami", api.t1)
    status, body, headers = await api.call("HEAD", "/v1/whoami", api.t1)
    assert (status, body) == (200, None)
    assert headers["Content-Length"] == got["Content-Length"]
    assert (await api.call("HEAD", "/v1/whoami"))[0] == 401


@pytest.mark.parametrize(
    ("method", "content_type", "accepted"),
    [
        ("PUT", "application/json", True),
        ("PUT", "application/json; charset=UTF-8", True),
        ("PUT", "Application/JSON", True),
        ("PUT", "application/vnd.openmeet+json", True),
        ("PUT", "application/json; charset=latin-1", False),
        ("PUT", "application/merge-patch+json", False),
        ("PATCH", "application/merge-patch+json", True),
        ("PATCH", "application/json", True),
        ("PATCH", "application/json-patch+json", False),
        ("PUT", "text/plain", False),
        ("PUT", "application/x-www-form-urlencoded", False),
        ("PUT", "nonsense", False),
    ],
)
async def test_content_types(api: Any, method: str, content_type: str, accepted: bool) -> None:
    status, _, _ = await api.call(
        method, USER, api.t1, data=b'{"display_name": "A"}', headers={"Content-Type": content_type}
    )
    assert status == (415 if not accepted else 201 if method == "PUT" else 200)


async def test_bodies_that_are_no_json(api: Any) -> None:
    for raw, code in ((b"{", "not_json"), (b"[" * 100_000, "not_json"), (b"", "not_json")):
        status, body, _ = await api.call(
            "PUT", USER, api.t1, data=raw, headers={"Content-Type": "application/json"}
        )
        assert (status, body["code"]) == (400, code)


async def test_a_deeply_nested_body_is_refused(api: Any) -> None:
    raw = b'{"display_name": ' + b"[" * 500 + b"]" * 500 + b"}"
    status, body, _ = await api.call(
        "PATCH", USER, api.t1, data=raw, headers={"Content-Type": "application/json"}
    )
    assert (status, body["code"]) == (400, "too_deep")


async def test_a_patch_keeps_null(api: Any) -> None:
    status, body, _ = await api.call("PATCH", USER, api.t1, json={"age": None, "x": {"y": 1}})
    assert (status, body) == (200, {"display_name": "Ada", "x": {"y": 1}})


async def test_a_body_where_none_belongs_is_refused(api: Any) -> None:
    status, body, _ = await api.call("DELETE", USER, api.t1, json={"purge": True})
    assert (status, body["code"]) == (400, "unexpected_body")
    assert not api.world.seen


async def test_an_if_match_with_no_meaning_is_refused(api: Any) -> None:
    headers = {"If-Match": '"1"'}
    status, body, _ = await api.call("DELETE", USER, api.t1, headers=headers)
    assert (status, body["code"]) == (400, "unexpected_if_match")
    assert (await api.call("GET", "/v1/whoami", api.t1, headers=headers))[0] == 200


@pytest.mark.parametrize(("tag", "status"), [('"7"', 201), ('"6"', 412), ("7", 400), ("*", 201)])
async def test_if_match_reaches_the_handler(api: Any, tag: str, status: int) -> None:
    answered, _, _ = await api.call(
        "PUT", USER, api.t1, json={"display_name": "A"}, headers={"If-Match": tag}
    )
    assert answered == status


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_over_the_limit_is_413(make_api: Callable[..., Awaitable[Any]], packed: bool) -> None:
    api = await make_api(max_body=10_000)
    raw = orjson.dumps({"display_name": "A", "tags": ["x" * 20_000]})
    headers = {"Content-Type": "application/json"}
    if packed:
        raw, headers["Content-Encoding"] = gzip.compress(raw), "gzip"
    status, body, _ = await api.call("PUT", USER, api.t1, data=raw, headers=headers)
    assert (status, body["code"]) == (413, "too_large")
    assert (await api.call("GET", "/v1/whoami", api.t1))[0] == 200


async def test_a_packed_body_is_unpacked_and_a_damaged_one_refused(api: Any) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = gzip.compress(b'{"display_name": "A"}')
    assert (await api.call("PUT", USER, api.t1, data=packed, headers=headers))[0] == 201
    status, body, _ = await api.call("PUT", USER, api.t1, data=b"no gzip", headers=headers)
    assert (status, body["code"]) in {(400, "bad_body"), (400, "bad_request")}


async def raw_exchange(api: Any, until: bytes, head: str, *later: bytes) -> bytes:
    """Send bytes as they are; return what comes back up to *until*, or until the server closes."""
    url = urlsplit(str(api.http.make_url("/")))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode())
        for part in later:
            await writer.drain()
            writer.write(part)
        async with asyncio.timeout(20):
            answer = b""
            while until not in answer and (part := await reader.read(65536)):
                answer += part
            return answer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_never_comes_is_408(make_api: Callable[..., Awaitable[Any]]) -> None:
    api = await make_api(read_seconds=0.05)
    answer = await raw_exchange(
        api,
        b'"request_timed_out"',
        f"PUT {USER} HTTP/1.1\nHost: x\nAuthorization: Bearer {api.t1}\n"
        'Content-Type: application/json\nContent-Length: 50\n\n{"a"',
    )
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timed_out"' in answer
    assert b"X-Request-Id" in answer
    assert b"Connection: close" in answer


async def test_the_body_is_asked_for_only_after_the_key_was_good(api: Any) -> None:
    head = f"PUT {USER} HTTP/1.1\nHost: x\nConnection: close\nExpect: 100-continue\n"
    kind = "Content-Type: application/json\nContent-Length: 21\n\n"
    refused = await raw_exchange(api, b'"not_authenticated"', head + kind)
    assert refused.startswith(b"HTTP/1.1 401 ")
    body = b'{"display_name": "A"}'
    taken = await raw_exchange(api, b'"spec"', f"{head}Authorization: Bearer {api.t1}\n{kind}", body)
    assert taken.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


@pytest.mark.parametrize(
    ("name", "status", "code", "retryable", "retry_after"),
    [
        ("refused", 409, "homeserver_refused", False, None),
        ("limited", 503, "homeserver_limited", True, "2"),
        ("database", 503, "database_unavailable", True, "5"),
        ("surprise", 500, "internal_error", False, None),
    ],
)
async def test_what_a_handler_meets_becomes_a_problem(
    api: Any,
    refusals: dict[str, Exception],
    caplog: pytest.LogCaptureFixture,
    name: str,
    status: int,
    code: str,
    retryable: bool,
    retry_after: str | None,
) -> None:
    api.world.fault = refusals[name]
    answered, body, headers = await api.call("DELETE", USER, api.t1)
    assert (answered, body["code"], body["retryable"]) == (status, code, retryable)
    assert headers.get("Retry-After") == retry_after
    if name == "refused":
        assert body["matrix"] == {"errcode": "M_FORBIDDEN", "error": "no", "status": 403}
    if name == "surprise":
        assert "secret detail" not in str(body)
        assert "secret detail" in caplog.text
        assert "Traceback" in caplog.text


async def test_a_database_that_is_away_is_no_401(api: Any) -> None:
    api.world.keys.away = True
    status, body, _ = await api.call("GET", "/v1/whoami", api.t1)
    assert (status, body["code"]) == (503, "database_unavailable")


async def test_the_same_key_gets_the_first_answer(api: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = await api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers)
    again = await api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers)
    assert first[:2] == again[:2] == (201, {"count": 1})
    assert "Idempotency-Replayed" not in first[2]
    assert again[2]["Idempotency-Replayed"] == "true"
    capitals = POKES.replace("t1", "T1")
    assert (await api.call("POST", capitals, api.t1, json={"name": "x"}, headers=headers))[1] == {"count": 1}
    status, body, _ = await api.call("POST", POKES, api.t1, json={"name": "y"}, headers=headers)
    assert (status, body["code"]) == (422, "idempotency_key_reused")
    other = POKES.replace("ada", "bob")
    assert (await api.call("POST", other, api.t1, json={"name": "x"}, headers=headers))[1] == {"count": 2}
    assert (await api.call("POST", POKES, api.t1, json={"name": "x"}))[1] == {"count": 3}


async def test_the_key_of_another_tenant_is_another_key(api: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    await api.call("POST", POKES, api.platform, json={"name": "x"}, headers=headers)
    other = POKES.replace("t1", "t2")
    _, body, _ = await api.call("POST", other, api.platform, json={"name": "x"}, headers=headers)
    assert body == {"count": 2}


async def test_a_request_that_still_runs_is_409(api: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    api.world.gate = asyncio.Event()
    first = asyncio.create_task(api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers))
    async with asyncio.timeout(10):
        while not api.world.seen:
            await asyncio.sleep(0.001)
    status, body, answered = await api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers)
    assert (status, body["code"]) == (409, "idempotency_key_running")
    assert body["retryable"] is True
    assert int(answered["Retry-After"]) >= 1
    api.world.gate.set()
    assert (await first)[0] == 201


async def test_a_secret_is_shown_once_and_never_stored(api: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = await api.call("POST", "/v1/keys", api.admin, json={"name": "x"}, headers=headers)
    assert first[0] == 201
    assert first[1]["api_key"] not in str(api.world.idempotency.known)
    status, body, _ = await api.call("POST", "/v1/keys", api.admin, json={"name": "x"}, headers=headers)
    assert (status, body["code"]) == (409, "secret_already_shown")
    assert len(api.world.seen) == 1


@pytest.mark.parametrize("name", ["refused", "surprise"])
async def test_what_failed_may_be_tried_again_with_the_same_key(
    api: Any, refusals: dict[str, Exception], name: str
) -> None:
    headers = {"Idempotency-Key": "abc"}
    api.world.fault = refusals[name]
    status, _, _ = await api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers)
    assert status in {409, 500}
    api.world.fault = None
    status, _, _ = await api.call("POST", POKES, api.t1, json={"name": "x"}, headers=headers)
    assert status == 201


async def test_a_malformed_request_uses_up_no_key(api: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    assert (await api.call("POST", POKES, api.t1, json={}, headers=headers))[0] == 422
    assert not api.world.idempotency.known


async def test_a_success_that_cannot_be_recorded_still_reaches_the_caller(
    api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    api.world.idempotency.fail_finish = True
    status, _, _ = await api.call(
        "POST", POKES, api.t1, json={"name": "x"}, headers={"Idempotency-Key": "abc"}
    )
    assert status == 201
    assert "could not be recorded" in caplog.text


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "é"])
async def test_an_unfit_idempotency_key_is_400(api: Any, key: str) -> None:
    status, body, _ = await api.call(
        "POST", POKES, api.t1, json={"name": "x"}, headers={"Idempotency-Key": key}
    )
    assert (status, body["code"]) == (400, "bad_idempotency_key")


async def test_requests_are_counted_by_template(api: Any) -> None:
    def count(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        name = "openmeet_as_provisioning_requests_total"
        return REGISTRY.get_sample_value(name, labels) or 0

    template = "/v1/tenants/{tenant}/users/{user}"
    before = count("DELETE", template, "204"), count("other", "unknown", "404")
    await api.call("DELETE", USER, api.t1)
    await api.call("PROPFIND", "/coffee/17")
    after = count("DELETE", template, "204"), count("other", "unknown", "404")
    assert after == (before[0] + 1, before[1] + 1)


async def test_the_access_log_has_no_query_and_no_key(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await api.call("GET", "/v1/tenants/t1/users?page_token=hidden", api.t1)
    assert "GET /v1/tenants/t1/users 200 in " in caplog.text
    ours = "".join(r.getMessage() for r in caplog.records if r.name.startswith("openmeet"))
    assert "hidden" not in ours
    assert api.t1 not in ours


async def test_the_handler_runs_with_tenant_and_request_bound(api: Any) -> None:
    await api.call("GET", "/v1/tenants/T1/users", api.t1, headers={"X-Request-Id": "r-7"})
    request = api.world.seen[0]
    assert (request.request_id, dict(request.path)) == ("r-7", {"tenant": "T1"})
    assert request.caller.tenant == "t1"


def test_faults_of_the_program_are_found_when_it_starts(world: Any) -> None:
    keys = world.keys
    routes = list(world.routes)
    with pytest.raises(ValueError, match="twice"):
        build_app([*routes, routes[0]], key_lookup=keys, idempotency=world.idempotency)
    with pytest.raises(ValueError, match="idempotency"):
        build_app(routes, key_lookup=keys)
    with pytest.raises(ValueError, match="may be"):
        build_app(
            [replace(routes[0], path="/v1/tenants/{tenant}/{thing}")],
            key_lookup=keys,
            path_parameters={"tenant": PathParameter("", ".*")},
        )
    with pytest.raises(ValueError, match="which tenant"):
        replace(routes[0], path="/v1/users/{user}")
    with pytest.raises(ValueError, match="every tenant"):
        replace(routes[0], access=Access.ANYONE_WITH_KEY)
    with pytest.raises(ValueError, match="POST"):
        replace(routes[0], takes_idempotency_key=True)
    with pytest.raises(ValueError, match="no body"):
        replace(routes[0], method="DELETE")
    with pytest.raises(ValueError, match="unknown fields"):
        replace(routes[0], body=BaseModel)

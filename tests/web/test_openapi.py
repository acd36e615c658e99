from __future__ import annotations

import random
from typing import Any

import openapi_spec_validator
from ruamel.yaml import YAML

from openmeet_appservice.web.openapi import About, build_document, document_yaml
from openmeet_appservice.web.routes import Access

ABOUT = About("Test", "A small API.", "1.2.3")


def test_the_document_is_valid_openapi_31(world: Any) -> None:
    document = build_document(world.routes, ABOUT)
    assert document["openapi"].startswith("3.1")
    openapi_spec_validator.validate(document)


def test_the_order_of_routes_does_not_matter(world: Any) -> None:
    routes = list(world.routes)
    text = document_yaml(build_document(routes, ABOUT))
    for seed in range(5):
        random.Random(seed).shuffle(routes)
        assert document_yaml(build_document(routes, ABOUT)) == text


def test_the_yaml_says_the_same(world: Any) -> None:
    document = build_document(world.routes, ABOUT)
    text = document_yaml(document)
    assert YAML(typ="safe").load(text) == document
    assert "&id" not in text


def test_an_operation_tells_everything(world: Any) -> None:
    document = build_document(world.routes, ABOUT)
    item = document["paths"]["/v1/tenants/{tenant}/users/{user}"]
    assert [p["name"] for p in item["parameters"]] == ["tenant", "user"]
    put = item["put"]
    assert put["operationId"] == "put_user"
    assert put["x-access"] == Access.TENANT.value
    assert [p["name"] for p in put["parameters"]] == ["If-Match"]
    expected = {"200", "201", "400", "401", "404", "408", "409", "412", "413", "415", "422"}
    assert set(put["responses"]) == expected | {"500", "503"}
    patch = item["patch"]["requestBody"]["content"]
    assert set(patch) == {"application/json", "application/merge-patch+json"}


def test_a_query_becomes_parameters_and_no_schema(world: Any) -> None:
    document = build_document(world.routes, ABOUT)
    parameters = document["paths"]["/v1/tenants/{tenant}/users"]["get"]["parameters"]
    limit, token = parameters
    assert (limit["name"], limit["required"]) == ("limit", False)
    assert limit["schema"] == {"type": "integer", "default": 100, "minimum": 1, "maximum": 500}
    assert token["schema"] == {"type": "string", "maxLength": 2048}
    assert "PageQuery" not in document["components"]["schemas"]


def test_unknown_fields_are_refused_by_the_schema_too(world: Any) -> None:
    schemas = build_document(world.routes, ABOUT)["components"]["schemas"]
    assert schemas["NewKey"]["additionalProperties"] is False


async def test_what_is_served_is_what_is_documented(api: Any) -> None:
    status, document, headers = await api.call("GET", "/v1/openapi.json", api.t1)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    openapi_spec_validator.validate(document)
    paths = document["paths"]
    served = {(method, path) for path in paths for method in paths[path].keys() - {"parameters"}}
    known = {(route.method.lower(), route.path) for route in api.world.routes}
    standard = {("get", f"/v1/{name}") for name in ("openapi.json", "whoami", "capabilities")}
    assert served == known | standard


async def test_who_am_i(api: Any) -> None:
    _, body, _ = await api.call("GET", "/v1/whoami", api.t1)
    assert body == {"scope": "tenant", "tenant": "t1", "key_id": "k2", "name": "tenant"}
    _, body, _ = await api.call("GET", "/v1/whoami", api.admin)
    assert (body["scope"], body["tenant"]) == ("admin", None)


async def test_capabilities(api: Any) -> None:
    _, body, _ = await api.call("GET", "/v1/capabilities", api.t1)
    assert body == {
        "version": "1.2.3",
        "features": ["a", "b"],
        "limits": {"max_body_bytes": 8388608},
    }


async def test_every_route_is_closed_to_whom_it_is_not_for(api: Any) -> None:
    """Walk the document: the rule that keeps tenants apart holds on every route by itself."""
    _, document, _ = await api.call("GET", "/v1/openapi.json", api.t1)
    walked = 0
    for path, item in document["paths"].items():
        concrete = path.format(tenant="t2", user="ada")
        for method, operation in item.items():
            if method == "parameters":
                continue
            walked += 1
            expected = {"tenant": 404, "platform": 403, "admin": 403, "anyone_with_key": 200}
            status, _, _ = await api.call(method.upper(), concrete, api.t1)
            assert status == expected[operation["x-access"]], (method, path)
            assert (await api.call(method.upper(), concrete))[0] == 401
    assert walked == len(api.world.routes) + 3

"""openapi.yaml at the top of the repository is what the program serves, and tells a caller everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from ruamel.yaml import YAML

from openmeet_appservice import __version__
from openmeet_appservice.web.openapi import document_yaml
from openmeet_appservice.wiring import FEATURES, api_document

ROOT = Path(__file__).parents[1]
METHODS = ("get", "put", "post", "patch", "delete")
DOCUMENT = api_document()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def test_the_file_is_what_the_program_says() -> None:
    written = (ROOT / "openapi.yaml").read_text("utf-8")
    assert written == document_yaml(DOCUMENT), "`make examples` writes it again"
    assert YAML(typ="safe").load(written) == DOCUMENT


def test_it_is_valid_openapi_31() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == __version__


def test_every_operation_has_a_name_of_its_own_a_tag_and_words() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for method, path, operation in operations():
        where = f"{method} {path}"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"]), where
        (tag,) = operation["tags"]
        assert tag in tags, where
        assert operation["summary"], where
        assert operation["x-access"] in {"anyone_with_key", "tenant", "platform", "admin"}, where
    assert tags == {operation["tags"][0] for _, _, operation in operations()}


def test_every_operation_declares_its_answers() -> None:
    for method, path, operation in operations():
        where, answers = f"{method} {path}", operation["responses"]
        assert [status for status in answers if status[0] in "23"], where
        assert {"400", "401", "500", "503"} <= set(answers), where
        if "{" in path:
            assert "404" in answers, where
        if operation["x-access"] in {"platform", "admin"}:
            assert "403" in answers, where
        if "requestBody" in operation:
            assert {"413", "415", "422"} <= set(answers), where
        for status, reference in answers.items():
            answer = resolve(reference)
            assert answer["description"], where
            assert "X-Request-Id" in answer["headers"], where
            if status[0] in "45":
                (content,) = answer["content"]
                assert content == "application/problem+json", where
            elif "content" in answer:
                assert resolve(answer["content"]["application/json"]["schema"]), where


def test_every_body_refuses_unknown_fields() -> None:
    for method, path, operation in operations():
        if "requestBody" not in operation:
            continue
        schema = resolve(operation["requestBody"]["content"]["application/json"]["schema"])
        if method != "patch":
            assert schema.get("additionalProperties") is False, f"{method} {path}"


def test_parameters_in_paths_are_declared() -> None:
    for path, item in DOCUMENT["paths"].items():
        declared = [parameter["name"] for parameter in item.get("parameters", [])]
        assert declared == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize(
    "later",
    ["/stream", "/sessions"],
)
def test_what_does_not_exist_yet_is_not_there(later: str) -> None:
    assert not [path for path in DOCUMENT["paths"] if later in path]


def test_the_features_are_resources_of_the_document() -> None:
    told = " ".join(DOCUMENT["paths"]) + " ".join(DOCUMENT["components"]["schemas"])
    for feature in FEATURES:
        if feature != "tenant_settings":
            assert f"/{feature}" in told
    assert any("Settings" in name for name in DOCUMENT["components"]["schemas"])

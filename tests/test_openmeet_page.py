"""docs/openmeet-integration.md shows requests and answers that are taken, and files that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from openmeet_appservice.provisioning.changes import Change, Changes
from openmeet_appservice.provisioning.lookup_models import EventFound, GroupFound, LookupRequest, UserFound
from openmeet_appservice.web.models import ApiModel
from openmeet_appservice.web.validation import parse_body

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "openmeet-integration.md"
TEXT = PAGE.read_text("utf-8")
FORWARDER = (ROOT / "docs" / "openmeet" / "matrix-forwarder.ts").read_text("utf-8")
MODELS: dict[str, type[ApiModel]] = {
    "changes": Changes,
    "request": LookupRequest,
    "event": EventFound,
    "group": GroupFound,
    "user": UserFound,
}
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)```", TEXT, re.DOTALL))


def test_every_example_is_known() -> None:
    assert set(EXAMPLES) == set(MODELS)
    assert len(EXAMPLES) == TEXT.count("```json")


@pytest.mark.parametrize("name", MODELS)
def test_every_example_is_taken(name: str) -> None:
    assert parse_body(MODELS[name], EXAMPLES[name].encode())


def test_fields_in_tables_and_code_are_those_of_hints() -> None:
    for hint in re.findall(r"change: (\{.*?\})", TEXT):
        fields = set(re.findall(r"(\w+):", hint))
        assert fields <= set(Change.model_fields), hint
    for hint in re.findall(r"=> \(\{(.*?)\}\)", FORWARDER):
        assert set(re.findall(r"(\w+):", hint)) <= set(Change.model_fields), hint


def test_files_are_shown_as_they_are() -> None:
    shown = re.findall(r"<!-- file: (\S+) -->\n```ts\n(.*?)```\n", TEXT, re.DOTALL)
    assert len(shown) == 2
    for name, text in shown:
        assert (PAGE.parent / name).read_text("utf-8") == text, "run `make examples`"


def test_an_answer_with_more_than_is_asked_for_is_refused() -> None:
    answer: dict[str, Any] = json.loads(EXAMPLES["user"])
    answer["spec"]["email"] = "ada@example.org"
    with pytest.raises(Exception, match="not valid"):
        parse_body(UserFound, json.dumps(answer).encode())

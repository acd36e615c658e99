"""docs/webhooks.md shows what is really sent, receivers that were run, and numbers that are so."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openmeet_appservice.config.model import WebhooksConfig
from openmeet_appservice.delivery import judging, policy
from openmeet_appservice.delivery.catalogue import WEBHOOKS
from openmeet_appservice.outbound.client import CONNECT_SECONDS
from openmeet_appservice.provisioning.webhook_models import RotateSecret
from openmeet_appservice.store import breaker
from openmeet_appservice.wiring import api_document

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "webhooks.md"
TEXT = PAGE.read_text("utf-8")
WORDS = " ".join(TEXT.split())


def test_every_type_is_shown_as_it_is_sent(valid_webhook: Callable[[str], dict[str, Any]]) -> None:
    shown = [valid_webhook(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
    assert {body["type"] for body in shown} == {webhook.name for webhook in WEBHOOKS}
    for body in shown:
        assert re.search(rf"^###? .*\b{re.escape(body['type'])}\b", TEXT, re.MULTILINE), body["type"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    items = [item for body in shown for item in body["data"].get("events", [])]
    assert {"encrypted", "repaired", "after_event_id"} <= {name for item in items for name in item}


def test_examples_hold_no_field_that_the_schemas_do_not_name() -> None:
    """They are open, so that a field in the wrong place would be valid."""
    document = api_document()
    schemas = document["components"]["schemas"]

    def check(value: Any, schema: dict[str, Any], where: str) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name != "MatrixEvent":
                check(value, schemas[name], where)
        elif "anyOf" in schema:
            for choice in schema["anyOf"]:
                if choice.get("type") != "null" and value is not None:
                    check(value, choice, where)
        elif isinstance(value, dict):
            for name, inner in value.items():
                assert name in schema["properties"], f"{where}: {name}"
                check(inner, schema["properties"][name], f"{where}.{name}")
        elif isinstance(value, list):
            for inner in value:
                check(inner, schema["items"], where)

    for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL):
        body = json.loads(block)
        item = document["webhooks"][body["type"]]["post"]
        check(body, item["requestBody"]["content"]["application/json"]["schema"], body["type"])


def test_the_receivers_shown_are_those_that_are_tested() -> None:
    script = runpy.run_path(str(ROOT / "contrib" / "dev" / "write_examples.py"))
    assert script["with_files"](PAGE) == TEXT, "`make examples` writes it again"
    shown = set(re.findall(r"<!-- file: (\S+) -->\n```", TEXT))
    receivers = PAGE.parent / "receivers"
    files = [path for path in receivers.rglob("*.*") if "__pycache__" not in path.parts]
    assert shown == {str(path.relative_to(PAGE.parent)) for path in files}


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert not path or (PAGE.parent / path).is_file(), target
        assert not anchor or anchor in headings, target


def test_what_curl_is_told_to_make_and_test_exists() -> None:
    paths = api_document()["paths"]
    assert "put" in paths["/v1/webhooks/{name}"]
    assert "post" in paths["/v1/webhooks/{name}/test"]
    for action in ("rotate-secret", "retire-secret", "resume"):
        assert f"POST …/{action}" in TEXT
        assert "post" in paths[f"/v1/tenants/{{tenant}}/webhooks/{{name}}/{action}"]


def test_the_numbers_are_those_of_the_program() -> None:
    units = {3600: "h", 60: "min", 1: "s"}

    def shown(seconds: float) -> str:
        size = next(size for size in units if seconds >= size)
        return f"{seconds / size:g} {units[size]}"

    waits = [wait.total_seconds() for wait in WebhooksConfig.DEFAULT_RETRY]
    said = [
        ", ".join(map(shown, waits)),
        f"waited for {shown(WebhooksConfig().timeout.total_seconds())}",
        f"{shown(CONNECT_SECONDS)} of these for the connection",
        f"first {judging.ANSWER_KEPT:,} characters",
        f"for {shown(breaker.FIRST_MS / 1000)}, then one webhook is tried",
        f"up to {shown(breaker.LONGEST_MS / 1000)}",
        f'"overlap_seconds": {RotateSecret().overlap_seconds}',
        f"({WebhooksConfig().max_batch_bytes // 1024} KiB by default)",
        f"`{WebhooksConfig().on_exhausted}` (the default)",
    ]
    assert [words for words in said if words not in WORDS] == []
    # Those that are written as words.
    assert policy.JITTER == 0.2
    assert "up to a fifth shorter or longer" in WORDS
    assert len(waits) + 1 == 10
    assert "ten tries in about three days" in WORDS
    assert breaker.FAILURES == 5
    assert "fails five times in a row" in WORDS
    assert policy.REFUSALS == 3
    assert "After three such answers" in WORDS
    assert policy.LONGEST_REST_MS == 3_600_000
    assert "at most an hour" in WORDS

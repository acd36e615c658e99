"""What is sent fits the schemas that receivers read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from jsonschema import ValidationError

from openmeet_appservice.delivery.batch import build
from openmeet_appservice.delivery.catalogue import WEBHOOKS
from openmeet_appservice.domain.webhook_types import DELIVERABLE, ENDPOINT_TEST
from openmeet_appservice.store.batches import LoggedEvent, Puppet, Route
from openmeet_appservice.web.webhooks import PARAMETERS
from openmeet_appservice.wiring import api_document

BOT = "@openmeet-bot:example.org"
Valid = Callable[[str | bytes], dict[str, Any]]


def body_of(*events: LoggedEvent, alias: str | None = "#a:example.org", kind: str = "event") -> str:
    route = Route(
        tenant_id="T1",
        kind=kind,
        slug="Board-Games",
        external_id=None,
        room_id="!room",
        alias=alias,
        log_id="log_1",
    )
    puppets = {"@ada:example.org": Puppet("Ada", "42")}
    return build(route, events, puppets, bot=BOT, max_bytes=10**6, now=1_795_374_000_123).body


def logged(sequence: int, sender: str, type_: str = "m.room.message", /, **event: object) -> LoggedEvent:
    text = json.dumps({"event_id": f"$e{sequence}", "room_id": "!room", "type": type_, **event})
    return LoggedEvent(sequence, "openmeet" if sender == BOT else "matrix", sender, type_, text)


def test_room_events_of_every_kind_fit(valid_webhook: Valid) -> None:
    body = body_of(
        logged(1, BOT, "m.room.create", state_key=""),
        logged(2, "@ada:example.org", content={"body": "hi"}),
        logged(3, "@bob:elsewhere", "m.room.encrypted"),
        logged(4, "", content=["nonsense"], sender={"no": "text"}, origin_server_ts="never"),
    )
    items = valid_webhook(body)["data"]["events"]
    assert [item["sender"]["kind"] for item in items] == ["bot", "puppet", "other", "other"]
    assert items[2]["encrypted"] is True
    valid_webhook(body_of(logged(1, BOT), alias=None, kind="direct"))


def _parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all fields in *value*."""
    if isinstance(value, Mapping):
        return [p for key, inner in value.items() for p in [(*path, key), *_parts(inner, (*path, key))]]
    if isinstance(value, list):
        return [p for number, inner in enumerate(value) for p in _parts(inner, (*path, number))]
    return []


def test_a_field_that_is_missing_is_noticed_and_one_more_is_not(valid_webhook: Valid) -> None:
    whole = json.loads(body_of(logged(1, "@ada:example.org")))
    for path in _parts(whole):
        if path == ("type",) or path[-2:] == ("event", "type"):
            continue
        body = copy.deepcopy(whole)
        place = body
        for step in path[:-1]:
            place = place[step]
        place["added_in_a_later_release"] = {"any": ["thing"]}
        valid_webhook(json.dumps(body))
        del place[path[-1]]
        with pytest.raises(ValidationError):
            valid_webhook(json.dumps(body))


def test_every_type_that_an_endpoint_can_get_is_described() -> None:
    described = [webhook.name for webhook in WEBHOOKS]
    assert len(set(described)) == len(described)
    assert {*DELIVERABLE, ENDPOINT_TEST} <= set(described)
    document = api_document()
    assert list(document["webhooks"]) == described
    for type_, item in document["webhooks"].items():
        operation = item["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        model = document["components"]["schemas"][reference.rpartition("/")[2]]
        assert model["properties"]["type"]["const"] == type_
        assert "default" in operation["responses"]
        assert operation["security"] == [], "no API key comes with it"


def test_the_headers_are_those_that_are_sent() -> None:
    document = api_document()
    named = {parameter["name"] for parameter in document["components"]["parameters"].values()}
    assert named == {"webhook-id", "webhook-timestamp", "webhook-signature", "x-tenant-id"}
    for item in document["webhooks"].values():
        references = [parameter["$ref"].rpartition("/")[2] for parameter in item["post"]["parameters"]]
        assert references == list(PARAMETERS)

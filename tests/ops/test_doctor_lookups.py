"""The signed question that the doctor puts to look-up endpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from standardwebhooks import Webhook

from openmeet_appservice import wiring
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.ops.doctor import Level
from openmeet_appservice.ops.doctor.lookups import LookupTest
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.provisioning.lookup import Lookup, tenant_secret
from openmeet_appservice.store.tenants import Tenant

SECRET = new_secret()
URL = "https://openmeet.test/lookup"


def tenant(name: str = "Acme", **lookup: str) -> Tenant:
    return Tenant(name.lower(), name, name, {"lookup": lookup} if lookup else {}, 1, 0, 0)


class Endpoint:
    """Answers with *said*, and verifies the question with another's library."""

    def __init__(self, said: Answer | NoAnswer) -> None:
        self.said = said
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.secrets = {URL: SECRET}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer | NoAnswer:
        Webhook(self.secrets[url]).verify(body, dict(headers))
        self.asked.append((url, json.loads(body)))
        return self.said

    def test(self, url: str | None = URL, secrets: tuple[str, ...] = (SECRET,)) -> LookupTest:
        settings = LookupSettings(url, alias_timeout=3.0, timeout=15.0, resync_interval=21600.0)
        lookup = Lookup(self.post, settings, secrets, lambda prefix: f"{prefix}_1", wiring.now, lambda: 0.0)
        return LookupTest(lookup, lambda: "nobody-has-this-name")


def answer(status: int, body: bytes = b"") -> Answer:
    return Answer(status, body, {}, 0.01)


FOUND = json.dumps({"spec": {"name": "X", "visibility": "public", "status": "draft"}}).encode()


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        (answer(404), Level.OK, "404"),
        (answer(401), Level.PROBLEM, "answered 401"),
        (answer(301), Level.PROBLEM, "answered 301"),
        (answer(500), Level.WARNING, "answered 500"),
        (answer(200, b"<html>"), Level.PROBLEM, "not JSON"),
        (answer(200, b'{"message": "hello"}'), Level.PROBLEM, "unknown_field"),
        (answer(200, FOUND), Level.PROBLEM, "cannot be there"),
        (NoAnswer(Reason.ADDRESS_REFUSED, "10.0.0.1 is not public.", 0.0), Level.PROBLEM, "not public"),
    ],
)
async def test_what_an_endpoint_answers(said: Answer | NoAnswer, level: Level, words: str) -> None:
    endpoint = Endpoint(said)
    (finding,) = await endpoint.test().check([tenant(), tenant("Other")])
    assert (finding.name, finding.level) == ("look-ups", level)
    assert words in finding.what
    assert (finding.remedy is None) == (level is Level.OK)
    asked = {"tenant": "Acme", "kind": "event", "slug": "doctor-nobody-has-this-name"}
    assert endpoint.asked == [(URL, asked)]


async def test_a_tenants_own_endpoint_is_asked_too() -> None:
    endpoint = Endpoint(answer(404))
    own = tenant("Own", url="https://own.test/lookup")
    endpoint.secrets["https://own.test/lookup"] = tenant_secret(SECRET, own)
    findings = await endpoint.test().check([tenant(), own])
    assert [(one.name, one.level) for one in findings] == [
        ("look-ups", Level.OK),
        ("look-ups of Own", Level.OK),
    ]


async def test_where_nothing_can_be_asked_it_says_so() -> None:
    endpoint = Endpoint(answer(404))
    (nowhere,) = await endpoint.test(url=None).check([tenant()])
    assert (nowhere.level, "lookup.url" in nowhere.what) == (Level.INFO, True)
    (nobody,) = await endpoint.test().check([])
    assert (nobody.level, "no tenant" in nobody.what) == (Level.INFO, True)
    (unsigned,) = await endpoint.test(secrets=()).check([tenant()])
    assert unsigned.level is Level.PROBLEM
    assert endpoint.asked == []

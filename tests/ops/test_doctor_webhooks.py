"""The signed tests that the doctor sends to webhook endpoints."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet
from standardwebhooks import Webhook

from openmeet_appservice import wiring
from openmeet_appservice.ops.doctor import Finding, Level, standing
from openmeet_appservice.ops.doctor.stored import Target
from openmeet_appservice.ops.doctor.webhooks import WebhookTest
from openmeet_appservice.outbound.client import GuardedClient, NoAnswer, Reason
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.store.secretbox import SecretBox

SECRET = new_secret()
BOX = SecretBox([Fernet.generate_key().decode()])


class Receiver:
    """A receiver on the loopback address that checks signatures with another's library."""

    def __init__(self) -> None:
        self.status = 204
        self.secret = SECRET
        self.bodies: list[dict[str, object]] = []
        self.tenants: list[str] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(self.secret).verify(body, dict(request.headers))
        self.bodies.append(json.loads(body))
        self.tenants.append(request.headers["x-tenant-id"])
        return web.Response(status=self.status, headers={"Location": "/elsewhere?token=hush"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application()
    application.router.add_post("/hooks/hush", made.take)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/hooks/hush"))
        yield made


def target(url: str, *, sealed: str | None = None, tenant: str = "Acme") -> Target:
    return Target(tenant, "main", url, sealed or BOX.seal(SECRET), 0)


async def send(*targets: Target, allowed: bool = True) -> list[Finding]:
    guard = Guard([ip_network("127.0.0.0/8")] if allowed else [])
    numbers = iter(range(100))
    async with GuardedClient(guard, total_seconds=5, user_agent="tests") as client:
        return await WebhookTest(client, BOX, wiring.now, lambda: f"{next(numbers)}").check(targets)


async def test_a_receiver_can_verify_the_test(receiver: Receiver) -> None:
    findings = await send(target(receiver.url), target(receiver.url, tenant="Other"))
    assert [finding.name for finding in findings] == ["webhook Acme/main", "webhook Other/main"]
    assert {finding.level for finding in findings} == {Level.OK}
    assert sorted(receiver.tenants) == ["Acme", "Other"]
    for body in receiver.bodies:
        assert body.keys() == {"type", "timestamp", "data"}
        assert body["type"] == "endpoint.test"
    assert {"tenant": "Acme", "endpoint": "main"} in [body["data"] for body in receiver.bodies]


@pytest.mark.parametrize(
    ("status", "level", "remedy"),
    [
        (302, Level.PROBLEM, "Redirects are not followed"),
        (401, Level.PROBLEM, "the same secret with `PUT /v1/tenants/Acme/webhooks/main`"),
        (404, Level.PROBLEM, "Correct the URL"),
        (429, Level.WARNING, "more requests"),
        (500, Level.PROBLEM, "The receiver's log"),
    ],
)
async def test_what_is_answered_decides_the_remedy(
    receiver: Receiver, status: int, level: Level, remedy: str
) -> None:
    receiver.status = status
    [found] = await send(target(receiver.url))
    assert (found.level, str(status) in found.what) == (level, True)
    assert remedy in str(found.remedy)
    assert "hush" not in str(found)


async def test_an_address_that_is_not_allowed(receiver: Receiver) -> None:
    [found] = await send(target(receiver.url.replace("http:", "https:")), allowed=False)
    assert found.level is Level.PROBLEM
    assert "`webhooks.allowed_networks`" in str(found.remedy)
    assert receiver.bodies == []


async def test_a_secret_whose_key_is_lost(receiver: Receiver) -> None:
    lost = SecretBox([Fernet.generate_key().decode()]).seal(SECRET)
    findings = await send(target(receiver.url, sealed=lost), target(receiver.url))
    assert [finding.level for finding in findings] == [Level.PROBLEM, Level.OK]
    assert "`security.encryption_keys`" in str(findings[0].remedy)


async def test_no_endpoint_at_all() -> None:
    [found] = await send()
    assert found.level is Level.INFO


@pytest.mark.parametrize("reason", list(Reason))
async def test_there_is_a_remedy_for_every_way_not_to_answer(reason: Reason) -> None:
    class Silent:
        async def post(self, url: str, body: bytes, headers: object) -> NoAnswer:
            return NoAnswer(reason, "so it is", 0.1)

    [found] = await WebhookTest(Silent(), BOX, wiring.now, lambda: "1").check(
        [target("https://x.test/hush?hush")]
    )
    assert (found.level, found.what) == (Level.PROBLEM, "https://x.test gives no answer: so it is")
    assert "{" not in str(found.remedy)


def test_endpoints_that_get_nothing_or_not_all_are_named_with_a_remedy() -> None:
    def named(**how: Any) -> list[tuple[Level, str, str]]:
        found = standing.check_endpoints([replace(target("https://x.example"), **how)])
        return [(one.level, one.what, str(one.remedy)) for one in found]

    assert named() == []
    [(level, what, remedy)] = named(state="disabled")
    assert (level, "410" in what, "/resume`" in remedy) == (Level.PROBLEM, True, True)
    [(level, what, remedy)] = named(state="paused")
    assert (level, "paused" in what, "/resume`" in remedy) == (Level.WARNING, True, True)
    [(level, what, remedy)] = named(state="breaker_open")
    assert (level, "several rooms" in what) == (Level.WARNING, True)
    [(level, what, remedy)] = named(dead=2, tenant_id=None)
    assert (level, "2 dead letters" in what) == (Level.WARNING, True)
    assert "`GET /v1/webhooks/main/dead-letters`" in remedy
    [(level, what, remedy)] = named(truncated=1)
    assert (level, "1 dead letter" in what, "`webhooks.max_backlog`" in remedy) == (Level.WARNING, True, True)
    assert len(named(dead=1, truncated=1)) == 2

"""Webhook endpoints: each is sent a signed test, as a real webhook would be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.domain.moments import Now, to_rfc3339
from openmeet_appservice.domain.webhook_types import ENDPOINT_TEST
from openmeet_appservice.errors import SecretUnreadable
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning
from openmeet_appservice.ops.doctor.stored import Target
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason
from openmeet_appservice.outbound.signing import webhook_headers
from openmeet_appservice.store.secretbox import SecretBox

AT_ONCE = 8

_BY_REASON = {
    Reason.URL_REFUSED: "Give it an https URL with `PUT {path}`.",
    Reason.ADDRESS_REFUSED: (
        "If OpenMeet is in your own network, name that network in `webhooks.allowed_networks` or the host in "
        "`webhooks.allowed_hosts`, else correct the URL with `PUT {path}`."
    ),
    Reason.UNKNOWN_HOST: "Correct the URL with `PUT {path}`, or this machine's DNS.",
    Reason.NOT_CONNECTED: "See whether the receiver runs, and whether a firewall is in between.",
    Reason.TLS_FAILED: "Give the receiver a certificate that this machine trusts for that name.",
    Reason.TIMED_OUT: "Have the receiver answer before it works, or raise `webhooks.timeout`.",
    Reason.CUT_OFF: "See whether an HTTP server listens at that port, and what its log says.",
}


class Poster(Protocol):
    """Sends a webhook; see `GuardedClient`."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Send *body* and return what came of it."""


@dataclass(frozen=True, slots=True)
class WebhookTest:
    """Sends the tests.

    Parameters
    ----------
    new_name
        Makes a fresh random name, for ``webhook-id``.
    """

    client: Poster
    secrets: SecretBox
    now: Now
    new_name: Callable[[], str]

    async def check(self, targets: Sequence[Target]) -> list[Finding]:
        """Test all of them, some at a time."""
        if not targets:
            remedy = "Make one with `PUT /v1/tenants/{tenant}/webhooks/main`."
            return [info("webhooks", "no tenant has an endpoint, so nothing is delivered", remedy)]
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(target: Target) -> Finding:
            async with limit:
                return await self._check(target)

        return list(await asyncio.gather(*map(one, targets)))

    async def _check(self, target: Target) -> Finding:
        name = f"webhook {target.title}"
        try:
            secret = self.secrets.open(target.secret)
            static = {} if target.headers is None else loads(self.secrets.open(target.headers))
        except SecretUnreadable as error:
            remedy = (
                "Put the lost key back into `security.encryption_keys`, or give the endpoint a new secret "
                f"with `PUT {target.path}`."
            )
            return problem(name, f"cannot be signed: {error}", remedy)
        body = self._body(target)
        headers = webhook_headers(
            [secret],
            f"msg_{self.new_name()}",
            self.now(),
            body,
            tenant_id=target.tenant_id or "",
            static=static,
        )
        return _verdict(name, target, await self.client.post(target.url, body, headers))

    def _body(self, target: Target) -> bytes:
        data = {"tenant": target.tenant_id, "endpoint": target.name}
        return dumps({"type": ENDPOINT_TEST, "timestamp": to_rfc3339(self.now()), "data": data}).encode()


def _verdict(name: str, target: Target, result: Answer | NoAnswer) -> Finding:
    host = _host(target.url)
    if isinstance(result, NoAnswer):
        remedy = _BY_REASON[result.reason].format(path=target.path)
        return problem(name, f"{host} gives no answer: {result.detail}", remedy)
    if 200 <= result.status < 300:
        return ok(name, f"{host} took a signed test in {result.seconds * 1000:.0f} ms")
    what = f"{host} answered {result.status} to a signed test"
    remedy = _by_status(result.status).format(path=target.path)
    return (warning if result.status == 429 else problem)(name, what, remedy)


def _by_status(status: int) -> str:
    if 300 <= status < 400:
        return "Redirects are not followed: give it the final URL with `PUT {path}`."
    if status in (401, 403):
        return "Give this endpoint and its receiver the same secret with `PUT {path}` (`secret`)."
    if status in (404, 405, 410):
        return "Correct the URL with `PUT {path}`: nothing takes webhooks there."
    if status == 429:
        return "Have the receiver allow this service more requests."
    return "The receiver's log says why; deliveries are repeated until it takes them."


def _host(url: str) -> str:
    """Where it goes to, without the path and query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

"""What can be done with a webhook endpoint: test, pause, resume, and the change of its secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.webhook_types import ENDPOINT_TEST
from openmeet_appservice.errors import Conflict, SecretUnreadable
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.outbound.signing import webhook_headers
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.webhook_models import (
    RotateSecret,
    WebhookAnswer,
    WebhookTested,
    WebhookWritten,
    etag,
)
from openmeet_appservice.provisioning.webhooks import TAG, Place, answer, checked_secret, find
from openmeet_appservice.store import attempts, endpoints
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.endpoint_row import Endpoint, unseal
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.routes import Request, Response, Route

ANSWER_SHOWN = 1000
"""How many characters of the answer to a test are shown."""

Change = Callable[[Connection, Endpoint], Endpoint]


@dataclass(frozen=True, slots=True)
class WebhookActions:
    """The handlers of what can be done with endpoints in one place of the API."""

    parts: Parts
    place: Place

    def routes(self) -> list[Route]:
        """Return the routes."""
        place = self.place
        rotate = Route(
            method="POST",
            path=f"{place.one}/rotate-secret",
            handler=self.rotate,
            operation=f"rotate_{place.infix}_secret",
            summary="Sign with another secret",
            description="Until the overlap ends both secrets sign, so a receiver that knows either is "
            "satisfied: change the secret there meanwhile. A change before the overlap of the last one has "
            "ended retires the older secret at once.",
            tag=TAG,
            access=place.access,
            body=RotateSecret,
            responses={200: WebhookWritten},
            takes_if_match=True,
            takes_idempotency_key=True,
        )
        test = Route(
            method="POST",
            path=f"{place.one}/test",
            handler=self.test,
            operation=f"test_{place.infix}",
            summary="Send a signed `endpoint.test` now, and say what came of it",
            description="Sent whatever the endpoint takes, and also while it is paused or disabled.",
            tag=TAG,
            access=place.access,
            responses={200: WebhookTested},
            takes_idempotency_key=True,
        )
        return [
            rotate,
            test,
            self._simple("retire-secret", "retire_{}_secret", "Sign no more with the secret of before"),
            self._simple("pause", "pause_{}", "Send nothing more; what comes in is kept for later"),
            self._simple(
                "resume",
                "resume_{}",
                "Send again, whyever nothing was sent: paused, disabled, resting, or rooms parked",
            ),
        ]

    def _simple(self, action: str, operation: str, summary: str) -> Route:
        handlers = {"retire-secret": self.retire, "pause": self.pause, "resume": self.resume}
        return Route(
            method="POST",
            path=f"{self.place.one}/{action}",
            handler=handlers[action],
            operation=operation.format(self.place.infix),
            summary=summary,
            tag=TAG,
            access=self.place.access,
            responses={200: WebhookAnswer},
            takes_if_match=True,
            takes_idempotency_key=True,
        )

    async def rotate(self, request: Request) -> Response:
        """Answer ``POST …/rotate-secret``."""
        asked = request.body_as(RotateSecret)
        given = checked_secret(asked.secret)
        secret = given or self.parts.new_secret()
        now = self.parts.now()

        def rotate(connection: Connection, endpoint: Endpoint) -> Endpoint:
            overlaps = asked.overlap_seconds > 0 and self._is_readable(endpoint.secret)
            return endpoints.rotate_secret(
                connection,
                endpoint,
                secret_encrypted=self.parts.secrets.seal(secret),
                old_until=now + asked.overlap_seconds * 1000 if overlaps else None,
                now=now,
            )

        changed = await self._change(request, rotate)
        made = None if given else secret
        body = WebhookWritten(**changed.model_dump(), secret=made)
        return Response(body=body, etag=body.etag, secret=made is not None)

    async def retire(self, request: Request) -> Response:
        """Answer ``POST …/retire-secret``."""
        now = self.parts.now()
        changed = await self._change(
            request, lambda c, endpoint: endpoints.retire_secret(c, endpoint, now=now)
        )
        return _response(changed)

    async def pause(self, request: Request) -> Response:
        """Answer ``POST …/pause``."""
        now = self.parts.now()
        return _response(
            await self._change(request, lambda c, endpoint: endpoints.pause(c, endpoint, now=now))
        )

    async def resume(self, request: Request) -> Response:
        """Answer ``POST …/resume``."""
        now = self.parts.now()
        changed = await self._change(request, lambda c, endpoint: endpoints.resume(c, endpoint, now=now))
        self.parts.wakeups.wake("deliver")
        self.parts.wakeups.wake("notify")
        return _response(changed)

    def _is_readable(self, sealed: str) -> bool:
        try:
            self.parts.secrets.open(sealed)
        except SecretUnreadable:
            # A new secret is the way out of a lost encryption key: the lost one must not come along.
            return False
        return True

    async def _change(self, request: Request, change: Change) -> WebhookAnswer:
        def write(connection: Connection) -> tuple[str | None, Endpoint]:
            endpoints.lock(connection, find(connection, request)[1].owner)
            tenant_id, found = find(connection, request)
            check_if_match(request.if_match, etag(found))
            return tenant_id, change(connection, found)

        tenant_id, changed = await self.parts.database.write(write)
        return answer(self.parts, tenant_id, changed)

    async def test(self, request: Request) -> Response:
        """Answer ``POST …/test``."""
        tenant_id, found = await self.parts.database.read(find, request)
        now = self.parts.now()
        try:
            unsealed = unseal(found, self.parts.secrets, now=now)
        except SecretUnreadable:
            raise Conflict(
                "The endpoint's secret cannot be decrypted any more; give it a new one with `rotate-secret`.",
                code="secret_unreadable",
            ) from None
        webhook_id = self.parts.new_id("msg")
        data = {"tenant": tenant_id, "endpoint": found.name}
        body = dumps({"type": ENDPOINT_TEST, "timestamp": to_rfc3339(now), "data": data}).encode()
        headers = webhook_headers(
            unsealed.secrets, webhook_id, now, body, tenant_id=tenant_id or "", static=unsealed.headers
        )
        result = await self.parts.post(found.wanted.url, body, headers)
        tested = _tested(result)
        attempt = self._attempt(found, webhook_id, result, tested)

        def record(connection: Connection) -> None:
            # Of an endpoint that was removed meanwhile nobody would ever drop it.
            if endpoints.by_key(connection, found.key) is not None:
                attempts.record(connection, attempt)

        await self.parts.database.write(record)
        return Response(body=tested)

    def _attempt(
        self, endpoint: Endpoint, webhook_id: str, result: Answer | NoAnswer, tested: WebhookTested
    ) -> Attempt:
        return Attempt(
            owner=endpoint.owner,
            endpoint_ref=endpoint.ref,
            at=self.parts.now(),
            id=self.parts.new_id("attempt"),
            tenant=endpoint.owner,
            webhook_id=webhook_id,
            type=ENDPOINT_TEST,
            room_ref=None,
            first=None,
            last=None,
            outcome=result.outcome,
            status=tested.status,
            milliseconds=tested.milliseconds,
            answer=tested.answer or tested.error,
        )


def _response(body: WebhookAnswer) -> Response:
    return Response(body=body, etag=body.etag)


def _tested(result: Answer | NoAnswer) -> WebhookTested:
    milliseconds = round(result.seconds * 1000)
    if isinstance(result, NoAnswer):
        return WebhookTested(
            delivered=False, status=None, milliseconds=milliseconds, error=result.detail, answer=None
        )
    began = result.body_start.decode(errors="replace")[:ANSWER_SHOWN]
    return WebhookTested(
        delivered=200 <= result.status < 300,
        status=result.status,
        milliseconds=milliseconds,
        error=None,
        answer=began or None,
    )

"""Webhook endpoints: ``PUT``, ``GET``, ``DELETE`` and the list; a tenant's, and the platform's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import Connection

from openmeet_appservice.domain import static_headers
from openmeet_appservice.errors import FieldError, Invalid, NotFound, OutboundRefused, SecretUnreadable
from openmeet_appservice.outbound.signing import parse_secret
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.webhook_models import (
    BacklogAnswer,
    PlatformWebhookPut,
    WebhookAnswer,
    WebhookPage,
    WebhookPut,
    WebhookRead,
    WebhookWritten,
    etag,
    shown,
    shown_backlog,
)
from openmeet_appservice.store import endpoints, lanes, notices, replay_queue, tenants, waiting
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint, Wanted
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.models import PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route

TAG = "webhooks"


@dataclass(frozen=True, slots=True)
class Place:
    """Where endpoints are found in the API, and whose they are.

    Parameters
    ----------
    base
        The path of the list.
    access
        Who may call.
    infix
        Part of the operations' names.
    """

    base: str
    access: Access
    infix: str
    put: type[WebhookPut]

    @property
    def one(self) -> str:
        """The path of one endpoint."""
        return f"{self.base}/{{name}}"


OF_TENANTS = Place("/v1/tenants/{tenant}/webhooks", Access.TENANT, "webhook", WebhookPut)
OF_PLATFORM = Place("/v1/webhooks", Access.PLATFORM, "platform_webhook", PlatformWebhookPut)


def owner_of(connection: Connection, request: Request) -> tuple[str, str | None]:
    """Return the owner of the endpoints in the path, and the tenant's id as OpenMeet gave it."""
    if "tenant" not in request.path:
        return PLATFORM, None
    tenant = require_tenant(connection, request.path["tenant"])
    return tenant.tenant, tenant.tenant_id


def find(connection: Connection, request: Request) -> tuple[str | None, Endpoint]:
    """Return the endpoint in the path, and its tenant's id as OpenMeet gave it.

    Raises
    ------
    NotFound
        There is no such tenant or endpoint.
    """
    owner, tenant_id = owner_of(connection, request)
    found = endpoints.get(connection, owner, request.path["name"])
    if found is None:
        raise NotFound("There is no such webhook endpoint.", code="webhook_not_found")
    return tenant_id, found


def checked_secret(secret: SecretStr | None) -> str | None:
    """Return the given secret, if there is one.

    Raises
    ------
    Invalid
        It is no webhook secret.
    """
    if secret is None:
        return None
    try:
        parse_secret(secret.get_secret_value())
    except ValueError as fault:
        raise Invalid(errors=[FieldError("/secret", "invalid_value", f"{fault}.".capitalize())]) from None
    return secret.get_secret_value()


def answer(parts: Parts, tenant_id: str | None, endpoint: Endpoint) -> WebhookAnswer:
    """Return what the API shows of an endpoint."""
    return shown(endpoint, tenant_id, sorted(_headers(parts, endpoint)), now=parts.now())


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The handlers of webhook endpoints in one place of the API."""

    parts: Parts
    place: Place

    def routes(self) -> list[Route]:
        """Return the routes of webhook endpoints."""
        place = self.place
        return [
            Route(
                method="PUT",
                path=place.one,
                handler=self.put,
                operation=f"put_{place.infix}",
                summary="Make an endpoint, or change it",
                description="It receives each room from the first event after it was made. A change makes "
                "everything that waits for it due at once, as `resume` does, unless it is paused.",
                tag=TAG,
                access=place.access,
                body=place.put,
                responses={200: WebhookWritten, 201: WebhookWritten},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=place.one,
                handler=self.get,
                operation=f"get_{place.infix}",
                summary="Read an endpoint, and what waits for it",
                tag=TAG,
                access=place.access,
                responses={200: WebhookRead},
            ),
            Route(
                method="DELETE",
                path=place.one,
                handler=self.delete,
                operation=f"delete_{place.infix}",
                summary="Remove an endpoint, and what was still to be sent to it",
                tag=TAG,
                access=place.access,
                responses={202: None},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=place.base,
                handler=self.list,
                operation=f"list_{place.infix}s",
                summary="List endpoints",
                tag=TAG,
                access=place.access,
                query=PageQuery,
                responses={200: WebhookPage},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        wanted = request.body_as(self.place.put)
        self._check_url(wanted.url)
        headers = _checked_headers(wanted.headers)
        given = checked_secret(wanted.secret)
        fresh = self.parts.new_secret()

        def write(connection: Connection) -> tuple[str | None, endpoints.Put]:
            owner, tenant_id = owner_of(connection, request)
            endpoints.lock(connection, owner)
            found = endpoints.get(connection, owner, request.path["name"])
            check_if_match(request.if_match, None if found is None else etag(found))
            return tenant_id, endpoints.put(
                connection,
                owner,
                request.path["name"],
                self._wanted(connection, wanted, found, headers),
                secret_encrypted=self._sealed_secret(found, given),
                fresh_secret_encrypted=self.parts.secrets.seal(fresh),
                now=self.parts.now(),
                new_id=self.parts.new_id,
            )

        tenant_id, put = await self.parts.database.write(write)
        self.parts.wakeups.wake("deliver")
        self.parts.wakeups.wake("notify")
        secret = fresh if put.created and given is None else None
        shown_now = answer(self.parts, tenant_id, put.endpoint)
        body = WebhookWritten(**shown_now.model_dump(), secret=secret)
        status = 201 if put.created else 200
        return Response(status=status, body=body, etag=body.etag, secret=secret is not None)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""

        def read(connection: Connection) -> tuple[str | None, Endpoint, BacklogAnswer]:
            tenant_id, found = find(connection, request)
            backlog = shown_backlog(
                lanes.backlog(connection, found.key),
                events=waiting.events(connection, found.key),
                replay_events=replay_queue.queued_events(connection, found.key),
                notices=notices.count(connection, found.key),
            )
            return tenant_id, found, backlog

        tenant_id, found, backlog = await self.parts.database.read(read)
        shown_now = answer(self.parts, tenant_id, found)
        body = WebhookRead(**shown_now.model_dump(), backlog=backlog)
        return Response(body=body, etag=body.etag)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE``."""

        def write(connection: Connection) -> None:
            endpoints.lock(connection, owner_of(connection, request)[0])
            _, found = find(connection, request)
            check_if_match(request.if_match, etag(found))
            endpoints.delete(connection, found.owner, found.name)

        await self.parts.database.write(write)
        return Response(status=202)

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[str | None, list[Endpoint]]:
            owner, tenant_id = owner_of(connection, request)
            return tenant_id, endpoints.list_page(connection, owner, after=after, limit=limit)

        tenant_id, found = await self.parts.database.read(read)
        page, token = cut(request, found, lambda endpoint: endpoint.name)
        items = [answer(self.parts, tenant_id, endpoint) for endpoint in page]
        return Response(body=WebhookPage(items=items, next_page_token=token))

    def _wanted(
        self, connection: Connection, put: WebhookPut, found: Endpoint | None, headers: Mapping[str, str]
    ) -> Wanted:
        return Wanted(
            url=put.url,
            types=None if put.types is None else tuple(sorted(put.types)),
            headers=self._sealed_headers(found, headers),
            max_batch=put.max_batch,
            max_batch_bytes=put.max_batch_bytes,
            on_exhausted=put.on_exhausted,
            tenants=_known_tenants(connection, put) if isinstance(put, PlatformWebhookPut) else None,
        )

    def _sealed_secret(self, found: Endpoint | None, given: str | None) -> str | None:
        """Return the new secret encrypted, None where it is the one that is there."""
        if given is None:
            return None
        try:
            if found is not None and self.parts.secrets.open(found.secret) == given:
                return None
        except SecretUnreadable:
            # Giving the secret anew is the way out of a lost encryption key.
            pass
        return self.parts.secrets.seal(given)

    def _sealed_headers(self, found: Endpoint | None, headers: Mapping[str, str]) -> str | None:
        """Return the headers encrypted, as they are stored already where they are the same."""
        if not headers:
            return None
        if found is not None and _headers(self.parts, found) == headers:
            return found.wanted.headers
        return self.parts.secrets.seal(json.dumps(headers))

    def _check_url(self, url: str) -> None:
        try:
            self.parts.check_url(url)
        except OutboundRefused as refusal:
            raise Invalid(errors=[FieldError("/url", "url_refused", str(refusal))]) from None


def _headers(parts: Parts, endpoint: Endpoint) -> dict[str, str]:
    sealed = endpoint.wanted.headers
    if sealed is None:
        return {}
    try:
        found: dict[str, str] = json.loads(parts.secrets.open(sealed))
    except SecretUnreadable:
        # Their names are lost with the key; delivery says so where it matters.
        return {}
    return found


def _checked_headers(given: Mapping[str, SecretStr]) -> dict[str, str]:
    headers = {name: value.get_secret_value() for name, value in given.items()}
    fault = static_headers.fault_in(headers)
    if fault is not None:
        name, detail = fault
        pointer = "/headers/" + name.replace("~", "~0").replace("/", "~1")
        raise Invalid(errors=[FieldError(pointer, "invalid_value", detail)])
    return headers


def _known_tenants(connection: Connection, put: PlatformWebhookPut) -> tuple[str, ...] | None:
    if put.tenants is None:
        return None
    found: list[Tenant] = []
    for index, tenant_id in enumerate(put.tenants):
        tenant = tenants.get(connection, tenant_id)
        if tenant is None:
            detail = "There is no such tenant; make it first."
            raise Invalid(errors=[FieldError(f"/tenants/{index}", "tenant_not_found", detail)])
        found.append(tenant)
    return tuple(sorted({tenant.tenant_id for tenant in found}))

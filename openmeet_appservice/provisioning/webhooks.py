"""A tenant's webhook endpoints: ``PUT``, ``GET``, ``DELETE`` and the list."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, SecretStr
from sqlalchemy import Connection

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.errors import FieldError, Invalid, NotFound, OutboundRefused, SecretUnreadable
from openmeet_appservice.outbound.signing import parse_secret
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.store import endpoints
from openmeet_appservice.store.endpoints import Endpoint
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.models import AnswerModel, ApiModel, Page, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route

_PATH = "/v1/tenants/{tenant}/webhooks/{name}"
_TAG = "webhooks"


class WebhookPut(ApiModel):
    """Where events are to be sent."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="https; http only to the networks that the configuration allows.",
        examples=["https://api.openmeet.net/webhooks/matrix"],
    )
    secret: SecretStr | None = Field(
        default=None,
        description="`whsec_` and the base64 of 24 to 64 bytes. Absent: the one it has, and for a new "
        "endpoint one that is made and shown this once.",
    )


class WebhookAnswer(AnswerModel):
    """A webhook endpoint. Its secret is never shown again."""

    tenant: str
    name: str
    url: str
    created_at: str
    updated_at: str
    etag: str


class WebhookWritten(WebhookAnswer):
    """A webhook endpoint after a write."""

    secret: str | None = Field(description="The secret, if this call made it; it is shown this once.")


class WebhookPage(Page[WebhookAnswer]):
    """Some of the endpoints, by name."""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The handlers of webhook endpoints."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes of webhook endpoints."""
        return [
            Route(
                method="PUT",
                path=_PATH,
                handler=self.put,
                operation="put_webhook",
                summary="Make an endpoint, or change it",
                description="It receives each room from the first event after it was made.",
                tag=_TAG,
                access=Access.TENANT,
                body=WebhookPut,
                responses={200: WebhookWritten, 201: WebhookWritten},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=_PATH,
                handler=self.get,
                operation="get_webhook",
                summary="Read an endpoint",
                tag=_TAG,
                access=Access.TENANT,
                responses={200: WebhookAnswer},
            ),
            Route(
                method="DELETE",
                path=_PATH,
                handler=self.delete,
                operation="delete_webhook",
                summary="Remove an endpoint, and what was still to be sent to it",
                tag=_TAG,
                access=Access.TENANT,
                responses={202: None},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path="/v1/tenants/{tenant}/webhooks",
                handler=self.list,
                operation="list_webhooks",
                summary="List endpoints",
                tag=_TAG,
                access=Access.TENANT,
                query=PageQuery,
                responses={200: WebhookPage},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        wanted = request.body_as(WebhookPut)
        self._check_url(wanted.url)
        given = None if wanted.secret is None else _checked(wanted.secret.get_secret_value())
        fresh = self.parts.new_secret()
        tenant, put = await self.parts.database.write(self._put, request, wanted.url, given, fresh)
        self.parts.wakeups.wake("deliver")
        shown = fresh if put.created and given is None else None
        body = WebhookWritten(**_fields(tenant, put.endpoint), secret=shown)
        status = 201 if put.created else 200
        return Response(status=status, body=body, etag=body.etag, secret=shown is not None)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        tenant, found = await self.parts.database.read(_find, request)
        body = WebhookAnswer(**_fields(tenant, found))
        return Response(body=body, etag=body.etag)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE``."""

        def write(connection: Connection) -> None:
            endpoints.lock(connection, require_tenant(connection, request.path["tenant"]).tenant)
            tenant, found = _find(connection, request)
            check_if_match(request.if_match, _etag(found))
            endpoints.delete(connection, tenant.tenant, found.name)

        await self.parts.database.write(write)
        return Response(status=202)

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[Tenant, list[Endpoint]]:
            tenant = require_tenant(connection, request.path["tenant"])
            return tenant, endpoints.list_page(connection, tenant.tenant, after=after, limit=limit)

        tenant, found = await self.parts.database.read(read)
        shown, token = cut(request, found, lambda endpoint: endpoint.name)
        items = [WebhookAnswer(**_fields(tenant, endpoint)) for endpoint in shown]
        return Response(body=WebhookPage(items=items, next_page_token=token))

    def _put(
        self, connection: Connection, request: Request, url: str, given: str | None, fresh: str
    ) -> tuple[Tenant, endpoints.Put]:
        tenant, name = require_tenant(connection, request.path["tenant"]), request.path["name"]
        endpoints.lock(connection, tenant.tenant)
        found = endpoints.get(connection, tenant.tenant, name)
        check_if_match(request.if_match, None if found is None else _etag(found))
        put = endpoints.put(
            connection,
            tenant.tenant,
            name,
            url=url,
            secret_encrypted=self._sealed(found, given),
            fresh_secret_encrypted=self.parts.secrets.seal(fresh),
            now=self.parts.now(),
            new_id=self.parts.new_id,
        )
        return tenant, put

    def _sealed(self, found: Endpoint | None, given: str | None) -> str | None:
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

    def _check_url(self, url: str) -> None:
        try:
            self.parts.check_url(url)
        except OutboundRefused as refusal:
            raise Invalid(errors=[FieldError("/url", "url_refused", str(refusal))]) from None


def _find(connection: Connection, request: Request) -> tuple[Tenant, Endpoint]:
    tenant = require_tenant(connection, request.path["tenant"])
    found = endpoints.get(connection, tenant.tenant, request.path["name"])
    if found is None:
        raise NotFound("There is no such webhook endpoint.", code="webhook_not_found")
    return tenant, found


def _checked(secret: str) -> str:
    try:
        parse_secret(secret)
    except ValueError as fault:
        raise Invalid(errors=[FieldError("/secret", "invalid_value", f"{fault}.".capitalize())]) from None
    return secret


def _etag(endpoint: Endpoint) -> str:
    return f"{endpoint.ref}.{endpoint.revision}"


def _fields(tenant: Tenant, endpoint: Endpoint) -> dict[str, str]:
    return {
        "tenant": tenant.tenant_id,
        "name": endpoint.name,
        "url": endpoint.url,
        "created_at": to_rfc3339(endpoint.created_at),
        "updated_at": to_rfc3339(endpoint.updated_at),
        "etag": _etag(endpoint),
    }

"""From a name on Matrix back to what it is on OpenMeet."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.errors import FieldError, Invalid, NotFound
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.store import entities, users
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.users import User
from openmeet_appservice.web.models import AnswerModel, ApiModel
from openmeet_appservice.web.routes import Access, Request, Response, Route

_TAG = "resolve"


class ResolveQuery(ApiModel):
    """What to look for: exactly one of these."""

    room_id: str | None = Field(default=None, max_length=255, examples=["!abc:example.org"])
    alias: str | None = Field(
        default=None, max_length=255, description="In any case.", examples=["#event-x-t1:example.org"]
    )
    user_id: str | None = Field(default=None, max_length=255, examples=["@openmeet_t1_ada:example.org"])
    event_id: str | None = Field(
        default=None, max_length=255, description="Of a logged event: finds the room that it is in."
    )


class Resolved(AnswerModel):
    """What it is on OpenMeet."""

    tenant: str
    kind: str = Field(description="`event`, `group`, `direct` or `user`.")
    slug: str
    external_id: str | None


@dataclass(frozen=True, slots=True)
class Resolve:
    """The handlers of both look-ups."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes: within a tenant, and across all."""
        return [
            Route(
                method="GET",
                path="/v1/tenants/{tenant}/resolve",
                handler=self.resolve,
                operation="resolve_in_tenant",
                summary="Find what a name on Matrix stands for",
                tag=_TAG,
                access=Access.TENANT,
                query=ResolveQuery,
                responses={200: Resolved},
            ),
            Route(
                method="GET",
                path="/v1/resolve",
                handler=self.resolve,
                operation="resolve",
                summary="Find what a name on Matrix stands for, in any tenant",
                tag=_TAG,
                access=Access.PLATFORM,
                query=ResolveQuery,
                responses={200: Resolved},
            ),
        ]

    async def resolve(self, request: Request) -> Response:
        """Answer ``GET``."""
        given = request.query_as(ResolveQuery).model_dump(exclude_none=True)
        if len(given) != 1:
            detail = "Give exactly one of room_id, alias, user_id and event_id."
            raise Invalid(errors=[FieldError("?", "exactly_one", detail)])
        [(what, name)] = given.items()
        return Response(body=await self.parts.database.read(_resolve, request, what, name))


def _resolve(connection: Connection, request: Request, what: str, name: str) -> Resolved:
    tenant = None
    if "tenant" in request.path:
        tenant = require_tenant(connection, request.path["tenant"]).tenant
    found = _find(connection, what, name, tenant)
    if found is None:
        raise NotFound(f"Nothing here has this {what}.", code="not_resolved")
    return Resolved(
        tenant=require_tenant(connection, found.tenant).tenant_id,
        kind=found.kind.value if isinstance(found, Entity) else "user",
        slug=found.slug,
        external_id=found.external_id,
    )


def _find(connection: Connection, what: str, name: str, tenant: str | None) -> Entity | User | None:
    if what == "room_id":
        return entities.by_room_id(connection, name, tenant)
    if what == "alias":
        return entities.by_alias(connection, name, tenant)
    if what == "event_id":
        return entities.by_event_id(connection, name, tenant)
    return users.by_user_id(connection, name, tenant)

"""Direct rooms: ``PUT``, ``GET``, ``DELETE`` and the list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.domain.direct import MEMBER, direct_slug
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import Conflict, FieldError, Invalid
from openmeet_appservice.provisioning import entity_writes
from openmeet_appservice.provisioning.entity_writes import Done, Place, Spec
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.slugs import no_entity
from openmeet_appservice.provisioning.specs import stored
from openmeet_appservice.provisioning.states import (
    RoomOnMatrix,
    SyncState,
    entity_etag,
    entity_sync,
    room_on_matrix,
)
from openmeet_appservice.provisioning.texts import ExternalId
from openmeet_appservice.provisioning.writes import Write, WriteQuery, http_status, settle, write_of
from openmeet_appservice.store import entities, members, puppets
from openmeet_appservice.store.entities import EntityView
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.models import AnswerModel, ApiModel, Page, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route

_PATH = "/v1/tenants/{tenant}/direct/{user_a}/{user_b}"
_TAG = "direct"
_BOTH: Final = Standing(MEMBER)


class DirectSpec(ApiModel):
    """The room of two users."""

    encrypted: bool | None = Field(
        default=None,
        description="Whether the room is encrypted. An encrypted room stays so whatever is said later; this "
        "service forwards what it cannot read. Absent: as the tenant's settings say.",
    )
    external_id: ExternalId | None = Field(
        default=None, description="OpenMeet's own id. Once given it stays; another one is refused."
    )


class DirectAnswer(AnswerModel):
    """A direct room."""

    tenant: str
    kind: EntityKind
    slug: str = Field(
        description="The slugs of the two, the lesser first (compared in lower case), joined by `~`.",
        examples=["ada-x8z1q0~bob-k2m7c4"],
    )
    spec: DirectSpec
    matrix: RoomOnMatrix
    sync: SyncState
    etag: str


class DirectWritten(DirectAnswer):
    """A direct room after a write."""

    superseded: bool = Field(description="The write was older than the last accepted: nothing changed.")


class DirectPage(Page[DirectAnswer]):
    """Some of the direct rooms, by slug."""


@dataclass(frozen=True, slots=True)
class Direct:
    """The handlers of direct rooms."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes of direct rooms."""
        written = {200: DirectWritten, 201: DirectWritten, 202: DirectWritten}
        return [
            Route(
                method="PUT",
                path=_PATH,
                handler=self.put,
                operation="put_direct",
                summary="Let two users have a room of their own",
                description=(
                    "In either order they are the same two. A user never `PUT` gets a placeholder. At least "
                    "one of them must be a puppet, else 409 `direct_needs_puppet`. The room has no name, no "
                    "topic and no alias, both own it, and the bot is not in it. After `DELETE` this makes a "
                    "new one."
                ),
                tag=_TAG,
                access=Access.TENANT,
                body=DirectSpec,
                query=WriteQuery,
                responses={**written, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="DELETE",
                path=_PATH,
                handler=self.delete,
                operation="delete_direct",
                summary="Archive it",
                description="Its puppets leave the room. It stays readable until the two have a new one.",
                tag=_TAG,
                access=Access.TENANT,
                query=WriteQuery,
                responses={200: DirectWritten, 202: DirectWritten},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=_PATH,
                handler=self.get,
                operation="get_direct",
                summary="Read the room of two users, the archived one if they have no other",
                tag=_TAG,
                access=Access.TENANT,
                responses={200: DirectAnswer},
            ),
            Route(
                method="GET",
                path="/v1/tenants/{tenant}/direct",
                handler=self.list,
                operation="list_direct",
                summary="List direct rooms, without archived ones",
                tag=_TAG,
                access=Access.TENANT,
                query=PageQuery,
                responses={200: DirectPage},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        write = write_of(self.parts, request)
        body = request.body_as(DirectSpec)
        done = await self.parts.database.write(self._put, request, body, write)
        return await self._answer(request, write, done)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE``: always 202, unless nothing was done."""
        write = write_of(self.parts, request)
        done = await self.parts.database.write(entity_writes.archive, _place(request), write)
        answer = await self._answer(request, write, done)
        return Response(status=200 if done.superseded else 202, body=answer.body, etag=answer.etag)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        place = _place(request)

        def read(connection: Connection) -> tuple[Tenant, EntityView]:
            tenant = require_tenant(connection, place.tenant)
            view = entities.view(connection, tenant.tenant, place.kind, place.slug)
            if view is None:
                raise no_entity(connection, tenant, place.kind, place.slug)
            return tenant, view

        tenant, view = await self.parts.database.read(read)
        return Response(body=DirectAnswer(**_fields(tenant, view)), etag=entity_etag(view.entity))

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[Tenant, list[EntityView]]:
            tenant = require_tenant(connection, request.path["tenant"])
            kind = EntityKind.DIRECT
            return tenant, entities.list_page(connection, tenant.tenant, kind, after=after, limit=limit)

        tenant, found = await self.parts.database.read(read)
        views, token = cut(request, found, lambda view: view.entity.slug_key)
        items = [DirectAnswer(**_fields(tenant, view)) for view in views]
        return Response(body=DirectPage(items=items, next_page_token=token))

    def _put(self, connection: Connection, request: Request, body: DirectSpec, write: Write) -> Done:
        spec = Spec(wanted=stored(body), external_id=body.external_id)
        both = {request.path["user_a"]: _BOTH, request.path["user_b"]: _BOTH}
        done = entity_writes.put(connection, self.parts, _place(request), spec, both, write)
        _require_puppet(connection, request, done)
        return done

    async def _answer(self, request: Request, write: Write, done: Done) -> Response:
        if done.touched:
            self.parts.wakeups.wake("reconcile")

        def read(connection: Connection) -> tuple[Tenant, EntityView]:
            tenant = require_tenant(connection, request.path["tenant"])
            view = entities.view_of(connection, tenant.tenant, done.ref)
            assert view is not None, "entities are never deleted"
            return tenant, view

        async def look() -> SyncState:
            return entity_sync((await self.parts.database.read(read))[1])

        if not done.superseded:
            await settle(self.parts, request, write.now, look)
        tenant, view = await self.parts.database.read(read)
        body = DirectWritten(**_fields(tenant, view), superseded=done.superseded)
        status = http_status(body.sync, created=done.created, superseded=done.superseded)
        return Response(status=status, body=body, etag=body.etag)


def _place(request: Request) -> Place:
    one, other = request.path["user_a"], request.path["user_b"]
    if key(one) == key(other):
        detail = "user_b: it is the same user as user_a, who needs no room for that."
        raise Invalid(errors=[FieldError("path", "same_user", detail)])
    return Place(request.path["tenant"], EntityKind.DIRECT, direct_slug(one, other))


def _require_puppet(connection: Connection, request: Request, done: Done) -> None:
    """Raise `Conflict` where neither of the two is a puppet: then there is nobody who could make the room."""
    tenant = require_tenant(connection, request.path["tenant"]).tenant
    entity = entities.get(connection, tenant, done.ref)
    assert entity is not None, "it was just written"
    people = [member.user_id for member in members.facts(connection, entity)]
    if not puppets.by_user_id(connection, tenant, people):
        raise Conflict(
            "Both use Matrix accounts of their own, so this service cannot make a room for them.",
            code="direct_needs_puppet",
        )


def _fields(tenant: Tenant, view: EntityView) -> dict[str, Any]:
    entity = view.entity
    return {
        "tenant": tenant.tenant_id,
        "kind": entity.kind,
        "slug": entity.slug,
        "spec": DirectSpec.model_validate({**entity.spec, "external_id": entity.external_id}),
        "matrix": room_on_matrix(view),
        "sync": entity_sync(view),
        "etag": entity_etag(entity),
    }

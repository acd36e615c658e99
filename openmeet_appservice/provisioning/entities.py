"""Events and groups: ``PUT``, ``GET``, ``PATCH``, ``DELETE`` and the lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice.errors import Conflict, NotFound
from openmeet_appservice.provisioning import entity_writes
from openmeet_appservice.provisioning.entity_writes import Done, Spec
from openmeet_appservice.provisioning.kinds import Kind, people
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.slugs import no_entity
from openmeet_appservice.provisioning.specs import EventPut, EventSpec, GroupPut, GroupSpec, stored
from openmeet_appservice.provisioning.states import SyncState, entity_etag, entity_sync, room_on_matrix
from openmeet_appservice.provisioning.writes import (
    DeleteQuery,
    RoomWriteQuery,
    Write,
    http_status,
    settle,
    write_of,
)
from openmeet_appservice.store import entities
from openmeet_appservice.store.entities import EntityView
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.models import MergePatch, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route
from openmeet_appservice.web.validation import validate


@dataclass(frozen=True, slots=True)
class Entities:
    """The handlers of one kind."""

    parts: Parts
    kind: Kind

    def routes(self) -> list[Route]:
        """Return the routes of the kind, those of members aside."""
        return [*self._writing(), *self._reading()]

    def _writing(self) -> list[Route]:
        name, written = self.kind.kind.value, self.kind.written
        return [
            Route(
                method="PUT",
                path=self.kind.path,
                handler=self.put,
                operation=f"put_{name}",
                summary=f"Say how the {name} should be",
                description="On a slug whose last use is archived this makes a new one, with a new room.",
                tag=self.kind.tag,
                access=Access.TENANT,
                body=self.kind.put,
                query=RoomWriteQuery,
                responses={200: written, 201: written, 202: written, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="PATCH",
                path=self.kind.path,
                handler=self.patch,
                operation=f"patch_{name}",
                summary="Change some of the spec",
                tag=self.kind.tag,
                access=Access.TENANT,
                body=MergePatch,
                query=RoomWriteQuery,
                responses={200: written, 202: written, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="DELETE",
                path=self.kind.path,
                handler=self.delete,
                operation=f"delete_{name}",
                summary="Archive it",
                description="Alias and listing are taken away, the room is made read-only, everybody is "
                "removed. It stays readable until the slug is used again. With `purge` its rooms, former "
                "ones too, are deleted from the homeserver, and all of it here: its phase is `deleting` "
                "until that is done, then it is 404. Needs `homeserver.admin_token`, else 409 "
                "`purge_unavailable`, and nothing is done.",
                tag=self.kind.tag,
                access=Access.TENANT,
                query=DeleteQuery,
                responses={200: written, 202: written, 409: None},
                takes_if_match=True,
            ),
        ]

    def _reading(self) -> list[Route]:
        name = self.kind.kind.value
        return [
            Route(
                method="GET",
                path=self.kind.path,
                handler=self.get,
                operation=f"get_{name}",
                summary=f"Read the {name}, the archived one if the slug is not used again",
                tag=self.kind.tag,
                access=Access.TENANT,
                responses={200: self.kind.answer},
            ),
            Route(
                method="GET",
                path=f"/v1/tenants/{{tenant}}/{self.kind.tag}",
                handler=self.list,
                operation=f"list_{self.kind.tag}",
                summary=f"List {self.kind.tag}, without archived ones",
                tag=self.kind.tag,
                access=Access.TENANT,
                query=PageQuery,
                responses={200: self.kind.page},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        write = write_of(self.parts, request)
        body: EventPut | GroupPut = request.body_as(self.kind.put)
        listed = None if body.members is None else people(body.members, "/members")
        place = self.kind.place(request)
        done = await self.parts.database.write(
            entity_writes.put, self.parts, place, wanted_spec(body), listed, write
        )
        return await self.answered(request, write, done)

    async def patch(self, request: Request) -> Response:
        """Answer ``PATCH``."""
        write = write_of(self.parts, request)
        change = request.body_as(MergePatch)

        def merged(before: Mapping[str, Any]) -> Spec:
            return wanted_spec(validate(self.kind.spec, change.apply_to(before)))

        place = self.kind.place(request)
        done = await self.parts.database.write(entity_writes.patch, place, merged, write)
        return await self.answered(request, write, done)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE``: always 202, unless nothing was done."""
        write, purge = write_of(self.parts, request), request.query_as(DeleteQuery).purge
        if purge and not self.parts.can_purge:
            raise Conflict(
                "Rooms can only be deleted for good once homeserver.admin_token is configured.",
                code="purge_unavailable",
            )
        place = self.kind.place(request)
        done = await self.parts.database.write(entity_writes.archive, place, write, purge=purge)
        answer = await self.answered(request, write, done)
        status = 200 if done.superseded else 202
        return Response(status=status, body=answer.body, etag=answer.etag)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        place = self.kind.place(request)

        def read(connection: Connection) -> tuple[Tenant, EntityView]:
            tenant = require_tenant(connection, place.tenant)
            view = entities.view(connection, tenant.tenant, place.kind, place.slug)
            if view is None:
                raise no_entity(connection, tenant, place.kind, place.slug)
            return tenant, view

        tenant, view = await self.parts.database.read(read)
        return Response(body=self.kind.answer(**self._fields(tenant, view)), etag=entity_etag(view.entity))

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[Tenant, list[EntityView]]:
            tenant = require_tenant(connection, request.path["tenant"])
            found = entities.list_page(connection, tenant.tenant, self.kind.kind, after=after, limit=limit)
            return tenant, found

        tenant, found = await self.parts.database.read(read)
        views, token = cut(request, found, lambda view: view.entity.slug_key)
        items: list[Any] = [self.kind.answer(**self._fields(tenant, view)) for view in views]
        return Response(body=self.kind.page(items=items, next_page_token=token))

    async def answered(self, request: Request, write: Write, done: Done) -> Response:
        """Answer a write of the entity that *done* names, having waited as the request asks."""
        if done.touched:
            self.parts.wakeups.wake("reconcile")

        def read(connection: Connection) -> tuple[Tenant, EntityView | None]:
            tenant = require_tenant(connection, request.path["tenant"])
            return tenant, entities.view_of(connection, tenant.tenant, done.ref)

        tenant, last = await self.parts.database.read(read)

        async def look() -> SyncState | None:
            nonlocal last
            _, view = await self.parts.database.read(read)
            last = view or last
            return None if view is None else entity_sync(view)

        ignored = done.superseded and not done.touched
        if not ignored:
            await settle(self.parts, request, write.now, look)
            await look()
        view = last
        if view is None:
            raise NotFound(f"This {self.kind.kind} was just deleted.", code=f"{self.kind.kind}_not_found")
        body = self.kind.written(
            **self._fields(tenant, view),
            superseded=done.superseded,
            members_superseded=done.members_superseded,
        )
        status = http_status(body.sync, created=done.created, superseded=ignored)
        return Response(status=status, body=body, etag=body.etag)

    def _fields(self, tenant: Tenant, view: EntityView) -> dict[str, Any]:
        entity = view.entity
        return {
            "tenant": tenant.tenant_id,
            "kind": entity.kind,
            "slug": entity.slug,
            "spec": self.kind.spec.model_validate({**entity.spec, "external_id": entity.external_id}),
            "matrix": room_on_matrix(view),
            "sync": entity_sync(view),
            "etag": entity_etag(entity),
        }


def wanted_spec(model: EventSpec | GroupSpec) -> Spec:
    """Return what is wanted by a spec of the API."""
    return Spec(wanted=stored(model), external_id=model.external_id)

"""The members of an event or group: the list, parts of it, and one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import FieldError, Invalid
from openmeet_appservice.provisioning import entity_writes
from openmeet_appservice.provisioning.entity_writes import Done
from openmeet_appservice.provisioning.kinds import (
    Kind,
    member_model,
    people,
    refuse_doubled,
    standing_of,
)
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.slugs import no_entity
from openmeet_appservice.provisioning.specs import (
    AttendeeDelta,
    AttendeeList,
    GroupMemberDelta,
    GroupMemberList,
)
from openmeet_appservice.provisioning.states import SyncState, entity_sync, members_etag
from openmeet_appservice.provisioning.writes import (
    RoomWriteQuery,
    Write,
    WriteQuery,
    http_status,
    settle,
    write_of,
)
from openmeet_appservice.store import entities, members
from openmeet_appservice.store.entities import Entity, EntityView
from openmeet_appservice.store.members import Member
from openmeet_appservice.web.models import AnswerModel, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route


class MembersWritten(AnswerModel):
    """What a write did to a list of members."""

    tenant: str
    kind: EntityKind
    slug: str
    members: int = Field(description="How many there are now.")
    added: int
    changed: int
    removed: int
    sync: SyncState = Field(description="Of the event or group.")
    etag: str = Field(description="Of the list of members.")
    superseded: bool = Field(description="The write was older than the last accepted: nothing changed.")


@dataclass(frozen=True, slots=True)
class Members:
    """The handlers of the members of one kind."""

    parts: Parts
    kind: Kind

    def routes(self) -> list[Route]:
        """Return the routes of members."""
        return [*self._lists(), *self._single()]

    def _lists(self) -> list[Route]:
        name, path = self.kind.kind.value, f"{self.kind.path}/members"
        return [
            Route(
                method="GET",
                path=path,
                handler=self.list,
                operation=f"list_{name}_members",
                summary=f"List the members of the {name}",
                tag=self.kind.tag,
                access=Access.TENANT,
                query=PageQuery,
                responses={200: self.kind.member_page},
            ),
            Route(
                method="PUT",
                path=path,
                handler=self.put,
                operation=f"put_{name}_members",
                summary=f"Say exactly who belongs to the {name}",
                tag=self.kind.tag,
                access=Access.TENANT,
                body=self.kind.member_list,
                query=RoomWriteQuery,
                responses={200: MembersWritten, 202: MembersWritten, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="PATCH",
                path=path,
                handler=self.patch,
                operation=f"patch_{name}_members",
                summary="Add, change and remove some members",
                tag=self.kind.tag,
                access=Access.TENANT,
                body=self.kind.delta,
                query=RoomWriteQuery,
                responses={200: MembersWritten, 202: MembersWritten, 409: None},
                takes_if_match=True,
            ),
        ]

    def _single(self) -> list[Route]:
        name, path = self.kind.kind.value, f"{self.kind.path}/members/{{user}}"
        return [
            Route(
                method="PUT",
                path=path,
                handler=self.put_one,
                operation=f"put_{name}_member",
                summary="Add or change one member",
                tag=self.kind.tag,
                access=Access.TENANT,
                body=self.kind.standing,
                query=WriteQuery,
                responses={200: MembersWritten, 201: MembersWritten, 202: MembersWritten, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="DELETE",
                path=path,
                handler=self.delete_one,
                operation=f"delete_{name}_member",
                summary="Remove one member",
                description="Who is no member is none afterwards either.",
                tag=self.kind.tag,
                access=Access.TENANT,
                query=WriteQuery,
                responses={200: MembersWritten, 202: MembersWritten, 409: None},
                takes_if_match=True,
            ),
        ]

    async def list(self, request: Request) -> Response:
        """Answer ``GET``."""
        place = self.kind.place(request)
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[Entity, list[Member]]:
            tenant = require_tenant(connection, place.tenant)
            entity = entities.find(connection, tenant.tenant, place.kind, place.slug)
            if entity is None:
                raise no_entity(connection, tenant, place.kind, place.slug)
            return entity, members.list_page(connection, entity, after=after, limit=limit)

        entity, found = await self.parts.database.read(read)
        shown, token = cut(request, found, lambda member: member.user_ref)
        items: list[Any] = [member_model(self.kind, m.user, m.standing) for m in shown]
        etag = members_etag(entity)
        page = self.kind.member_page(items=items, next_page_token=token, etag=etag)
        return Response(body=page, etag=etag)

    async def put(self, request: Request) -> Response:
        """Answer ``PUT`` of the exact list."""
        write = write_of(self.parts, request)
        body: AttendeeList | GroupMemberList = request.body_as(self.kind.member_list)
        listed = people(body.members, "/members")
        done = await self.parts.database.write(
            entity_writes.put_people, self.parts, self.kind.place(request), listed, write
        )
        return await self._answer(request, write, done)

    async def patch(self, request: Request) -> Response:
        """Answer ``PATCH``."""
        write = write_of(self.parts, request)
        body: AttendeeDelta | GroupMemberDelta = request.body_as(self.kind.delta)
        listed = people(body.upsert, "/upsert")
        refuse_doubled(body.remove, "/remove")
        _refuse_both([member.user for member in body.upsert], body.remove)
        done = await self.parts.database.write(
            entity_writes.change_people, self.parts, self.kind.place(request), listed, body.remove, write
        )
        return await self._answer(request, write, done)

    async def put_one(self, request: Request) -> Response:
        """Answer ``PUT`` of one member."""
        write = write_of(self.parts, request)
        standing = standing_of(request.body_as(self.kind.standing))
        done = await self.parts.database.write(
            entity_writes.change_people,
            self.parts,
            self.kind.place(request),
            {request.path["user"]: standing},
            (),
            write,
        )
        if done.change is not None and done.change.added:
            done = replace(done, created=True)
        return await self._answer(request, write, done)

    async def delete_one(self, request: Request) -> Response:
        """Answer ``DELETE`` of one member: always 202, unless nothing was done."""
        write = write_of(self.parts, request)
        done = await self.parts.database.write(
            entity_writes.change_people,
            self.parts,
            self.kind.place(request),
            {},
            [request.path["user"]],
            write,
            explicit=True,
        )
        answer = await self._answer(request, write, done)
        status = 200 if done.superseded else 202
        return Response(status=status, body=answer.body, etag=answer.etag)

    async def _answer(self, request: Request, write: Write, done: Done) -> Response:
        if done.touched:
            self.parts.wakeups.wake("reconcile")

        tenant = key(request.path["tenant"])

        def read(connection: Connection) -> EntityView:
            view = entities.view_of(connection, tenant, done.ref)
            if view is None:
                # Deleted for good meanwhile.
                known = require_tenant(connection, tenant)
                raise no_entity(connection, known, self.kind.kind, self.kind.place(request).slug)
            return view

        def read_all(connection: Connection) -> tuple[str, EntityView, int]:
            view = read(connection)
            # What the write knows need not be read again.
            tenant_id = done.tenant_id or require_tenant(connection, tenant).tenant_id
            number = members.count(connection, view.entity) if done.change is None else done.change.after
            return tenant_id, view, number

        async def look() -> SyncState:
            return entity_sync(await self.parts.database.read(read))

        if not done.superseded:
            await settle(self.parts, request, write.now, look)
        tenant_id, view, number = await self.parts.database.read(read_all)
        body = _written(tenant_id, view, number, done)
        status = http_status(body.sync, created=done.created, superseded=done.superseded)
        return Response(status=status, body=body, etag=body.etag)


def _written(tenant_id: str, view: EntityView, count: int, done: Done) -> MembersWritten:
    change = done.change or members.Change(added=0, changed=0, removed=0, before=count)
    return MembersWritten(
        tenant=tenant_id,
        kind=view.entity.kind,
        slug=view.entity.slug,
        members=count,
        added=change.added,
        changed=change.changed,
        removed=change.removed,
        sync=entity_sync(view),
        etag=members_etag(view.entity),
        superseded=done.superseded,
    )


def _refuse_both(added: list[str], removed: list[str]) -> None:
    """Raise `Invalid` where somebody is to be added and removed at once."""
    kept = {key(user) for user in added}
    faults = [
        FieldError(f"/remove/{position}", "contradiction", "This user is in upsert as well.")
        for position, user in enumerate(removed)
        if key(user) in kept
    ]
    if faults:
        raise Invalid(errors=faults[:100])

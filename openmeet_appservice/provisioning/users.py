"""Users: ``PUT``, ``GET``, ``PATCH`` and the list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.errors import NotFound
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import (
    Parts,
    is_older,
    joined_external_id,
    newest,
    puppet_id,
    require_tenant,
    user_id_taken,
)
from openmeet_appservice.provisioning.specs import UserSpec, stored
from openmeet_appservice.provisioning.states import (
    SyncState,
    UserOnMatrix,
    user_etag,
    user_sync,
)
from openmeet_appservice.provisioning.writes import Write, WriteQuery, http_status, settle, write_of
from openmeet_appservice.store import sync, users
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.store.users import User, UserView
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.models import AnswerModel, MergePatch, Page, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route
from openmeet_appservice.web.validation import validate

_PATH = "/v1/tenants/{tenant}/users/{user}"
_TAG = "users"


class UserAnswer(AnswerModel):
    """A user."""

    tenant: str
    kind: str = "user"
    slug: str
    spec: UserSpec
    placeholder: bool = Field(description="A list of members named this user, who was never `PUT`.")
    matrix: UserOnMatrix
    sync: SyncState
    etag: str


class UserWritten(UserAnswer):
    """A user after a write."""

    superseded: bool = Field(description="The write was older than the last accepted: nothing changed.")


class UserPage(Page[UserAnswer]):
    """Some of the users, by slug."""


@dataclass(frozen=True, slots=True)
class UserDone:
    """What a write of a user did."""

    created: bool = False
    touched: bool = False
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Users:
    """The handlers of users."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes of users."""
        written = {200: UserWritten, 201: UserWritten, 202: UserWritten, 409: None}
        return [
            Route(
                method="PUT",
                path=_PATH,
                handler=self.put,
                operation="put_user",
                summary="Say how a user should be",
                tag=_TAG,
                access=Access.TENANT,
                body=UserSpec,
                query=WriteQuery,
                responses=written,
                takes_if_match=True,
            ),
            Route(
                method="PATCH",
                path=_PATH,
                handler=self.patch,
                operation="patch_user",
                summary="Change some of a user",
                tag=_TAG,
                access=Access.TENANT,
                body=MergePatch,
                query=WriteQuery,
                responses={200: UserWritten, 202: UserWritten, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=_PATH,
                handler=self.get,
                operation="get_user",
                summary="Read a user",
                tag=_TAG,
                access=Access.TENANT,
                responses={200: UserAnswer},
            ),
            Route(
                method="GET",
                path="/v1/tenants/{tenant}/users",
                handler=self.list,
                operation="list_users",
                summary="List users",
                description="Placeholders are among them.",
                tag=_TAG,
                access=Access.TENANT,
                query=PageQuery,
                responses={200: UserPage},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        write = write_of(self.parts, request)
        spec = request.body_as(UserSpec)
        done = await self.parts.database.write(
            self.write_spec, request.path["tenant"], request.path["user"], spec, write
        )
        return await self._answer(request, write, done)

    async def patch(self, request: Request) -> Response:
        """Answer ``PATCH``."""
        write = write_of(self.parts, request)
        done = await self.parts.database.write(self._patch, request, write)
        return await self._answer(request, write, done)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        tenant, view = await self.parts.database.read(_view, request)
        return Response(body=UserAnswer(**_fields(tenant, view)), etag=user_etag(view.user))

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)

        def read(connection: Connection) -> tuple[Tenant, list[UserView]]:
            tenant = require_tenant(connection, request.path["tenant"])
            return tenant, users.list_page(connection, tenant.tenant, after=after, limit=limit)

        tenant, found = await self.parts.database.read(read)
        views, token = cut(request, found, lambda view: view.user.slug_key)
        items = [UserAnswer(**_fields(tenant, view)) for view in views]
        return Response(body=UserPage(items=items, next_page_token=token))

    def write_spec(
        self, connection: Connection, tenant_id: str, slug: str, spec: UserSpec, write: Write
    ) -> UserDone:
        """Make *spec* what is wanted of the user, in one transaction."""
        tenant = require_tenant(connection, tenant_id)
        found = users.find(connection, tenant.tenant, slug, lock=True)
        check_if_match(write.if_match, None if found is None else user_etag(found))
        if found is not None:
            return self._change(connection, found, spec, write)
        made = users.create(
            connection,
            tenant.tenant,
            slug,
            user_id=puppet_id(self.parts, tenant, slug),
            spec=stored(spec),
            external_id=spec.external_id,
            as_of=write.as_of,
            now=write.now,
            new_id=self.parts.new_id,
        )
        if made is not None:
            sync.touch(connection, tenant.tenant, "user", made.ref, now=write.now)
            return UserDone(created=True, touched=True)
        # Somebody was faster, with the slug or with the user id.
        found = users.find(connection, tenant.tenant, slug, lock=True)
        if found is None:
            raise user_id_taken(slug)
        return self._change(connection, found, spec, write)

    def _patch(self, connection: Connection, request: Request, write: Write) -> UserDone:
        tenant = require_tenant(connection, request.path["tenant"])
        found = users.find(connection, tenant.tenant, request.path["user"], lock=True)
        if found is None:
            raise _no_user()
        check_if_match(write.if_match, user_etag(found))
        before = {**found.spec, "external_id": found.external_id}
        spec = validate(UserSpec, request.body_as(MergePatch).apply_to(before))
        return self._change(connection, found, spec, write)

    def _change(self, connection: Connection, user: User, spec: UserSpec, write: Write) -> UserDone:
        """Give a known user the wanted spec; the row is locked."""
        if is_older(write.as_of, user.as_of):
            return UserDone(superseded=True)
        external_id = joined_external_id(user.external_id, spec.external_id)
        as_of = newest(write.as_of, user.as_of)
        wanted = stored(spec)
        if user.placeholder or (wanted, external_id) != (user.spec, user.external_id):
            changed = users.change(
                connection, user, spec=wanted, external_id=external_id, as_of=as_of, now=write.now
            )
            # A placeholder may be registered already, but nothing keeps its name right until now.
            if user.placeholder or changed.display_name != user.display_name:
                sync.touch(connection, user.tenant, "user", user.ref, now=write.now)
                return UserDone(created=user.placeholder, touched=True)
        elif as_of is not None and as_of != user.as_of:
            users.note_as_of(connection, user, as_of)
        return UserDone()

    async def _answer(self, request: Request, write: Write, done: UserDone) -> Response:
        if done.touched:
            self.parts.wakeups.wake("reconcile")

        async def look() -> SyncState:
            _, view = await self.parts.database.read(_view, request)
            return user_sync(view)

        if not done.superseded:
            await settle(self.parts, request, write.now, look)
        tenant, view = await self.parts.database.read(_view, request)
        body = UserWritten(**_fields(tenant, view), superseded=done.superseded)
        status = http_status(body.sync, created=done.created, superseded=done.superseded)
        return Response(status=status, body=body, etag=body.etag)


def _view(connection: Connection, request: Request) -> tuple[Tenant, UserView]:
    tenant = require_tenant(connection, request.path["tenant"])
    view = users.view(connection, tenant.tenant, request.path["user"])
    if view is None:
        raise _no_user()
    return tenant, view


def _no_user() -> NotFound:
    return NotFound("There is no such user.", code="user_not_found")


def _fields(tenant: Tenant, view: UserView) -> dict[str, Any]:
    user = view.user
    name = user.spec.get("display_name", user.slug)
    return {
        "tenant": tenant.tenant_id,
        "slug": user.slug,
        "spec": UserSpec(display_name=name, external_id=user.external_id),
        "placeholder": user.placeholder,
        "matrix": UserOnMatrix(user_id=user.user_id),
        "sync": user_sync(view),
        "etag": user_etag(user),
    }

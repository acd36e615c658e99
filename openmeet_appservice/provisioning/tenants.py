"""Tenants: ``PUT``, ``GET`` and the list, for admins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from sqlalchemy import Connection

from openmeet_appservice.domain.drift import Bans, Drift
from openmeet_appservice.domain.invitations import InvitationPolicy
from openmeet_appservice.domain.kinds import Access as RoomAccess
from openmeet_appservice.domain.kinds import AttendeeStatus, JoinPolicy
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.topic import DEFAULT_TEMPLATE, check_template
from openmeet_appservice.provisioning.lookup_overrides import LookupOverrides, check_lookup, secret_to_show
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.texts import MAX_TOPIC, Name
from openmeet_appservice.store import entities, tenants
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.models import AnswerModel, ApiModel, Page, PageQuery
from openmeet_appservice.web.routes import Access, Request, Response, Route

_PATH = "/v1/tenants/{tenant}"
_TAG = "tenants"

Level = Annotated[int, Field(ge=0, le=100)]


class PowerLevels(ApiModel):
    """Power levels by role; a role that is not named keeps the service's."""

    host: Level | None = None
    owner: Level | None = None
    admin: Level | None = None
    moderator: Level | None = None
    speaker: Level | None = None


class DriftOverrides(ApiModel):
    """What is done about what others change in a room; a field that is not named keeps the service's."""

    name: Drift | None = None
    topic: Drift | None = None
    avatar: Drift | None = None
    aliases: Drift | None = None
    join_rule: Drift | None = None
    power_levels: Drift | None = None
    bans: Bans | None = None


class RoomOverrides(ApiModel):
    """What this tenant's rooms have otherwise than the service's configuration says."""

    access: RoomAccess | None = Field(
        default=None, description="Who may walk into rooms of entities that say nothing themselves."
    )
    private_alias: bool | None = Field(default=None, description="Whether private rooms have an alias too.")
    federate: bool | None = Field(
        default=None, description="Whether people of other servers can be in new rooms."
    )
    version: Literal["11", "12"] | None = Field(default=None, description="The version of new rooms.")
    topic: Annotated[str, AfterValidator(check_template)] | None = Field(
        default=None,
        max_length=MAX_TOPIC,
        description="The template of topics: text with {name}, {description}, {when} and {url}; a line "
        "whose fields are all empty is left out.",
        examples=[DEFAULT_TEMPLATE],
    )
    encrypted: bool | None = Field(
        default=None, description="Whether rooms of entities that say nothing themselves are encrypted."
    )
    join: JoinPolicy | None = Field(
        default=None,
        description="Which members join a room at once: `eager` all; `lazy` those whose role has a power "
        "level above 0, the others when they first speak; `auto` all where at most `join_auto_limit` may "
        "chat, else as `lazy`.",
    )
    join_auto_limit: int | None = Field(default=None, ge=0, description="See `join`.")
    power_levels: PowerLevels | None = None
    chat_statuses: list[AttendeeStatus] | None = Field(
        default=None, min_length=1, description="The attendee statuses that may chat."
    )
    drift: DriftOverrides | None = Field(
        default=None,
        description="What is done about what others change in a room: `correct` sets it right, `accept` "
        "leaves it until OpenMeet says something new of that field. A moderator's ban is never taken back: "
        "`keep` reports it where OpenMeet wants the person in the room, `accept` does not.",
    )

    @field_validator("chat_statuses", mode="after")
    @classmethod
    def _each_once(cls, statuses: list[AttendeeStatus] | None) -> list[AttendeeStatus] | None:
        if statuses is not None and len(set(statuses)) < len(statuses):
            raise ValueError("A status is there twice.")
        return statuses


class UserOverrides(ApiModel):
    """What this tenant's users have otherwise than the service's configuration says."""

    direct_invitations: InvitationPolicy | None = Field(
        default=None,
        description="What puppets answer to people on Matrix who invite them to a direct chat; OpenMeet is "
        "told by `user.invited`. Invitations into other rooms are always declined.",
    )


class TenantSettings(ApiModel):
    """What a tenant chose for itself. Absent: as the service's configuration says."""

    users: UserOverrides = UserOverrides()
    rooms: RoomOverrides = RoomOverrides()
    lookup: LookupOverrides = LookupOverrides()


class TenantPut(ApiModel):
    """A tenant."""

    name: Name = Field(examples=["OpenMeet Berlin"])
    settings: TenantSettings = TenantSettings()


class TenantAnswer(AnswerModel):
    """A tenant."""

    tenant: str
    name: str
    settings: dict[str, Any] = Field(
        description="Only what was set.", examples=[{"rooms": {"access": "anyone"}}]
    )
    created_at: str
    updated_at: str
    etag: str


class TenantWritten(TenantAnswer):
    """A tenant after a write."""

    lookup_secret: str | None = Field(
        description="What signs the questions to its `lookup.url`, shown when that is newly given."
    )


class TenantPage(Page[TenantAnswer]):
    """Some of the tenants, by id."""


@dataclass(frozen=True, slots=True)
class _Put:
    """The tenant, its settings *before*, whether it is new and whether its rooms have to be looked at."""

    tenant: Tenant
    before: Mapping[str, Any]
    created: bool = False
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Tenants:
    """The handlers of tenants."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes of tenants."""
        return [
            Route(
                method="PUT",
                path=_PATH,
                handler=self.put,
                operation="put_tenant",
                summary="Make a tenant, or change its name and settings",
                tag=_TAG,
                access=Access.ADMIN,
                body=TenantPut,
                responses={200: TenantWritten, 201: TenantWritten, 409: None},
                takes_if_match=True,
            ),
            Route(
                method="GET",
                path=_PATH,
                handler=self.get,
                operation="get_tenant",
                summary="Read a tenant",
                tag=_TAG,
                access=Access.ADMIN,
                responses={200: TenantAnswer},
            ),
            Route(
                method="GET",
                path="/v1/tenants",
                handler=self.list,
                operation="list_tenants",
                summary="List tenants",
                tag=_TAG,
                access=Access.ADMIN,
                query=PageQuery,
                responses={200: TenantPage},
            ),
        ]

    async def put(self, request: Request) -> Response:
        """Answer ``PUT``."""
        wanted = request.body_as(TenantPut)
        check_lookup(self.parts, wanted.settings.lookup)
        put = await self.parts.database.write(self._put, request, wanted, self.parts.now())
        if put.touched:
            self.parts.wakeups.wake("reconcile")
        secret = secret_to_show(self.parts, put.before, put.tenant)
        body = TenantWritten(**_answer(put.tenant).model_dump(), lookup_secret=secret)
        status = 201 if put.created else 200
        return Response(status=status, body=body, etag=body.etag, secret=secret is not None)

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        body = _answer(await self.parts.database.read(require_tenant, request.path["tenant"]))
        return Response(body=body, etag=body.etag)

    async def list(self, request: Request) -> Response:
        """Answer ``GET`` of the list."""
        after, limit = bounds(request)
        found = await self.parts.database.read(tenants.list_page, after=after, limit=limit)
        shown, token = cut(request, found, lambda tenant: tenant.tenant)
        return Response(body=TenantPage(items=[_answer(t) for t in shown], next_page_token=token))

    def _put(self, connection: Connection, request: Request, wanted: TenantPut, now: int) -> _Put:
        settings = _only_set(wanted.settings.model_dump(mode="json"))
        tenant_id = request.path["tenant"]
        found = tenants.get(connection, tenant_id, lock=True)
        check_if_match(request.if_match, None if found is None else _etag(found))
        if found is None:
            made = tenants.create(connection, tenant_id, name=wanted.name, settings=settings, now=now)
            if made is not None:
                return _Put(made, {}, created=True)
            found = tenants.get(connection, tenant_id, lock=True)
            assert found is not None, "somebody was faster, and tenants are never deleted"
        if (wanted.name, settings) == (found.name, found.settings):
            return _Put(found, found.settings)
        changed = tenants.update_tenant(connection, found, name=wanted.name, settings=settings, now=now)
        touched = (
            _for_rooms(settings) != _for_rooms(found.settings)
            and entities.touch_all(connection, found.tenant, now=now) > 0
        )
        return _Put(changed, found.settings, touched=touched)


def _for_rooms(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the settings shows in rooms."""
    return dict(settings.get("rooms") or {})


def _only_set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* without what is null or, having been emptied by that, says nothing."""
    inner = {k: _only_set(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    return {name: value for name, value in inner.items() if value not in (None, {})}


def _answer(tenant: Tenant) -> TenantAnswer:
    return TenantAnswer(
        tenant=tenant.tenant_id,
        name=tenant.name,
        settings=dict(tenant.settings),
        created_at=to_rfc3339(tenant.created_at),
        updated_at=to_rfc3339(tenant.updated_at),
        etag=_etag(tenant),
    )


def _etag(tenant: Tenant) -> str:
    return f"{tenant.tenant}.{tenant.created_at}.{tenant.revision}"

"""``…/members/{user}/explain``: why somebody is, or is not, in the room of an event or group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.domain.entitlement import all_join
from openmeet_appservice.domain.explain_member import Case, Membership, Reason, Seen, Trouble, advice, why
from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.rooms import MemberFacts, RoomSettings, desired_member, desired_room
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.provisioning.entity_writes import Place
from openmeet_appservice.provisioning.kinds import EVENTS, GROUPS, Kind
from openmeet_appservice.provisioning.parts import require_tenant
from openmeet_appservice.provisioning.slugs import no_entity
from openmeet_appservice.store import entities, member_errors, members, parts, users, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import EntityView
from openmeet_appservice.store.members import Standing
from openmeet_appservice.web.models import AnswerModel
from openmeet_appservice.web.routes import Access, Request, Response, Route


class Identity(AnswerModel):
    """Who the user is on Matrix."""

    kind: Literal["puppet"] = "puppet"
    user_id: str
    registered: bool = Field(description="Whether the homeserver has the account; it is made when needed.")


class MembershipSeen(AnswerModel):
    """What the homeserver says of the user in the room, just now."""

    state: Membership
    by: str | None = Field(description="Who made it so.")
    at: str | None
    reason: str | None


class Invitation(AnswerModel):
    """An invitation that is open."""

    by: str | None
    at: str | None


class Refusal(AnswerModel):
    """What went wrong last."""

    code: str
    detail: str
    at: str


class MemberExplanation(AnswerModel):
    """One user and the room of one event or group."""

    tenant: str
    kind: EntityKind
    slug: str
    user: str
    entitled: bool = Field(description="Whether the user belongs into the room.")
    reason: Reason
    why: str = Field(description="The same in words.")
    joins: Literal["at_once", "when_speaking"] | None = Field(
        description="When the user joins: in a large room most do with the first message through OpenMeet. "
        "Null: not at all."
    )
    identity: Identity | None = Field(description="Null: OpenMeet never named such a user.")
    room_id: str | None
    membership: MembershipSeen
    last_invitation: Invitation | None
    last_error: Refusal | None = Field(description="About this user, else about the whole room.")
    advice: list[str] = Field(description="What to do. Empty: all is as it should be.")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store knows: a case without what the homeserver says."""

    tenant_id: str
    room_id: str | None
    case: Case


@dataclass(frozen=True, slots=True)
class Explaining:
    """Answers the question.

    Parameters
    ----------
    homeserver
        Asked what the user is in the room.
    defaults
        What the configuration says of rooms; a tenant may have chosen otherwise.
    bot
        The bot's user id.
    """

    database: Database
    homeserver: Homeserver
    defaults: RoomSettings
    bot: str

    def routes(self) -> list[Route]:
        """Return the routes for events and groups."""
        return [self._route(kind) for kind in (EVENTS, GROUPS)]

    def _route(self, kind: Kind) -> Route:
        async def get(request: Request) -> Response:
            return Response(body=await self.explain(kind.place(request), request.path["user"]))

        return Route(
            method="GET",
            path=f"{kind.path}/members/{{user}}/explain",
            handler=get,
            operation=f"explain_{kind.kind}_member",
            summary="Say why somebody is, or is not, in the room",
            description="Also of who is no member. The homeserver is asked, with one request.",
            tag=kind.tag,
            access=Access.TENANT,
            responses={200: MemberExplanation},
        )

    async def explain(self, place: Place, user: str) -> MemberExplanation:
        """Return what there is to say of that user; raises `NotFound` where there is no such entity."""
        known = await self.database.read(_known, place, user, self.defaults, self.bot)
        case = known.case
        if case.user_id is not None and known.room_id is not None:
            seen = await self._seen(known.room_id, case.user_id)
            case = replace(case, seen=seen)
        return _shown(known, case)

    async def _seen(self, room_id: str, user_id: str) -> Seen:
        try:
            event = await self.homeserver.membership(room_id, user_id)
        except HomeserverRefused as error:
            return Seen(Membership.UNKNOWN, reason=f"the homeserver refused to tell: {error}")
        except HomeserverError as error:
            return Seen(Membership.UNKNOWN, reason=f"the homeserver did not answer: {error}")
        return _read(event)


def _read(event: Mapping[str, Any] | None) -> Seen:
    if event is None:
        return Seen(Membership.NONE)
    content = event.get("content")
    fields: Mapping[str, Any] = content if isinstance(content, dict) else {}
    state, by, at = fields.get("membership"), event.get("sender"), event.get("origin_server_ts")
    reason = fields.get("reason")
    return Seen(
        Membership(state) if state in _STATES else Membership.UNKNOWN,
        by=by if isinstance(by, str) else None,
        at=at if type(at) is int else None,
        reason=reason if isinstance(reason, str) else None,
    )


_STATES = frozenset(Membership) - {Membership.NONE, Membership.UNKNOWN}


def _known(connection: Connection, place: Place, slug: str, defaults: RoomSettings, bot: str) -> _Known:
    tenant = require_tenant(connection, place.tenant)
    view = entities.view(connection, tenant.tenant, place.kind, place.slug)
    if view is None:
        raise no_entity(connection, tenant, place.kind, place.slug)
    entity = view.entity
    settings = room_settings(defaults, tenant.settings)
    facts = wanted.facts_of(entity, (), has_room=view.has_room, avatar=None)
    user = users.find(connection, tenant.tenant, key(slug))
    standing = None if user is None else members.one(connection, entity, user.ref)
    member = None if user is None or standing is None else _facts(user.user_id, standing)
    number = parts.entitled(connection, entity, settings)
    everybody = all_join(settings.join, settings.join_auto_limit, number)
    refused = None
    if user is not None:
        refused = member_errors.of(connection, tenant.tenant, entity.ref, user.user_id)
    case = Case(
        kind=place.kind,
        slug=entity.slug,
        user=slug if user is None else user.slug,
        wanted=desired_room(facts, (), settings, bot=bot, default_version="").wanted,
        has_room=view.room_id is not None,
        user_id=None if user is None else user.user_id,
        registered=user is not None and user.registered_at is not None,
        member=member,
        joins=member is not None and desired_member(member, settings, everybody=everybody).joins,
        chat_statuses=settings.chat_statuses,
        seen=Seen(Membership.NONE),
        settled=view.sync is not None and view.sync.observed_generation >= view.sync.generation,
        trouble=None if refused is None else Trouble("member_refused", *refused),
        room_trouble=_room_trouble(view),
        bot=bot,
    )
    return _Known(tenant.tenant_id, view.room_id, case)


def _facts(user_id: str, standing: Standing) -> MemberFacts:
    status = None if standing.status is None else AttendeeStatus(standing.status)
    return MemberFacts(user_id, standing.role, status, standing.banned, standing.muted)


def _room_trouble(view: EntityView) -> Trouble | None:
    error = None if view.sync is None else view.sync.error
    return None if error is None else Trouble(error.code, error.detail, error.at)


def _shown(known: _Known, case: Case) -> MemberExplanation:
    entitled, seen, trouble = case.reason is Reason.MEMBER, case.seen, case.trouble or case.room_trouble
    at = None if seen.at is None else to_rfc3339(seen.at)
    identity = None
    if case.user_id is not None:
        identity = Identity(user_id=case.user_id, registered=case.registered)
    return MemberExplanation(
        tenant=known.tenant_id,
        kind=case.kind,
        slug=case.slug,
        user=case.user,
        entitled=entitled,
        reason=case.reason,
        why=why(case),
        joins=("at_once" if case.joins else "when_speaking") if entitled else None,
        identity=identity,
        room_id=known.room_id,
        membership=MembershipSeen(state=seen.membership, by=seen.by, at=at, reason=seen.reason),
        last_invitation=Invitation(by=seen.by, at=at) if seen.membership is Membership.INVITE else None,
        last_error=None
        if trouble is None
        else Refusal(code=trouble.code, detail=trouble.detail, at=to_rfc3339(trouble.at)),
        advice=list(advice(case)),
    )

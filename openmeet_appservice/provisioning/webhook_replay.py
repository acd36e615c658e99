"""Sending again what an endpoint was sent before, or was never sent: replay, and redrive of dead letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.replay import Asked, Only
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.errors import Conflict, FieldError, Invalid
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.texts import Moment, SlugText
from openmeet_appservice.provisioning.webhooks import TAG, Place, find
from openmeet_appservice.store import entities, rooms, tenants
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.replays import replay
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.web.models import AnswerModel, ApiModel
from openmeet_appservice.web.routes import Access, Request, Response, Route

MOST_LETTERS = 500

_WAITS = (
    "A room that is parked, and an endpoint that is paused or disabled, gets them when it is resumed. Events "
    "keep their `event_id` and `sequence` and come in webhooks with ids of their own. What is queued already "
    "or was not taken yet comes anyway and is not counted again."
)


class ReplayRoom(ApiModel):
    """One room: by what it is for (then the room in use, or the last one), or by its id."""

    kind: EntityKind | None = None
    slug: SlugText | None = None
    room_id: str | None = Field(default=None, max_length=255, examples=["!abc:example.org"])

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        by_slug = (self.kind is not None, self.slug is not None)
        if by_slug not in ((True, True), (False, False)) or by_slug[0] == (self.room_id is not None):
            raise ValueError("Give either kind and slug, or room_id.")
        return self


class Redrive(ApiModel):
    """Which dead letters to send again; all of them unless something is said."""

    ids: list[Annotated[str, Field(max_length=64)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_LETTERS,
        description="Only these. What is not a dead letter any more is passed over.",
    )
    room: ReplayRoom | None = Field(default=None, description="Only those of this room.")
    dry_run: bool = Field(default=False, description="Only count; nothing is changed.")


class PlatformRedrive(Redrive):
    """Which dead letters of the platform's endpoint to send again."""

    tenant: str | None = Field(default=None, max_length=64, description="Only those of this tenant.")


class ReplayEvents(ApiModel):
    """Which events to send again."""

    only: Only = Field(
        description="`failed`: the dead letters; `missing`: these, and what was stored before the endpoint "
        "received the room; `all`: everything in the log."
    )
    since: Moment | None = Field(default=None, description="Only what was stored then or later.")
    until: Moment | None = Field(
        default=None,
        description="Only what was stored before. A dead letter is sent whole if any of its events is meant.",
    )
    from_sequence: int | None = Field(
        default=None, ge=1, description="Only from this event of the room on; needs `room`."
    )
    room: ReplayRoom | None = Field(default=None, description="Only this room; absent: every room.")
    dry_run: bool = Field(default=False, description="Only count; nothing is changed.")


class PlatformReplayEvents(ReplayEvents):
    """Which events to send the platform's endpoint again."""

    tenant: str | None = Field(default=None, max_length=64, description="Only this tenant's.")


class ReplayAnswer(AnswerModel):
    """What was queued to be sent again, or, in a dry run, would be."""

    rooms: int
    events: int


@dataclass(frozen=True, slots=True)
class WebhookReplay:
    """The handlers of replay and redrive in one place of the API."""

    parts: Parts
    place: Place

    def routes(self) -> list[Route]:
        """Return the routes."""
        place = self.place
        of_platform = place.access is Access.PLATFORM
        return [
            Route(
                method="POST",
                path=f"{place.one}/replay",
                handler=self.replay,
                operation=f"replay_{place.infix}",
                summary="Send events of the log again",
                description=f"Each room's come in order and before its new events. {_WAITS}",
                tag=TAG,
                access=place.access,
                body=PlatformReplayEvents if of_platform else ReplayEvents,
                responses={200: ReplayAnswer},
                takes_idempotency_key=True,
            ),
            Route(
                method="POST",
                path=f"{place.one}/redrive",
                handler=self.redrive,
                operation=f"redrive_{place.infix}",
                summary="Send dead letters again",
                description="They are dead letters no more; events that fail again become new ones. An empty "
                f"body means all. {_WAITS}",
                tag=TAG,
                access=place.access,
                body=PlatformRedrive if of_platform else Redrive,
                responses={200: ReplayAnswer},
                takes_idempotency_key=True,
            ),
        ]

    async def replay(self, request: Request) -> Response:
        """Answer ``POST …/replay``."""
        body = request.body_as(ReplayEvents)
        _check(body)

        def asked(tenant: str | None, room_ref: str | None) -> Asked:
            return Asked(
                body.only,
                since=body.since,
                until=body.until,
                from_sequence=body.from_sequence,
                tenant=tenant,
                room_ref=room_ref,
            )

        return await self._queue(request, body, asked)

    async def redrive(self, request: Request) -> Response:
        """Answer ``POST …/redrive``."""
        body = request.body_as(Redrive)
        letters = None if body.ids is None else tuple(body.ids)

        def asked(tenant: str | None, room_ref: str | None) -> Asked:
            return Asked(Only.FAILED, tenant=tenant, room_ref=room_ref, letters=letters)

        return await self._queue(request, body, asked)

    async def _queue(
        self,
        request: Request,
        body: ReplayEvents | Redrive,
        asked: Callable[[str | None, str | None], Asked],
    ) -> Response:
        parts = self.parts

        def read(connection: Connection) -> tuple[Endpoint, str | None, str | None]:
            _, endpoint = find(connection, request)
            _check_takes_events(endpoint)
            return endpoint, *_where(connection, endpoint, body)

        endpoint, tenant, room_ref = await parts.database.read(read)
        counts = await replay(
            parts.database,
            endpoint.key,
            asked(tenant, room_ref),
            now=parts.now,
            new_id=parts.new_id,
            dry_run=body.dry_run,
        )
        if not body.dry_run:
            parts.wakeups.wake("deliver")
        return Response(body=ReplayAnswer(rooms=counts.rooms, events=counts.events))


def _check(body: ReplayEvents) -> None:
    if body.from_sequence is not None and body.room is None:
        detail = "Sequences count the events of one room: say which, with room."
        raise Invalid(errors=[FieldError("/from_sequence", "needs_room", detail)])
    if body.since is not None and body.until is not None and body.until <= body.since:
        raise Invalid(errors=[FieldError("/until", "out_of_range", "It is not after since.")])


def _check_takes_events(endpoint: Endpoint) -> None:
    types = endpoint.wanted.types
    if types is not None and ROOM_EVENTS not in types:
        raise Conflict(f"This endpoint does not take {ROOM_EVENTS}.", code="takes_no_room_events")


def _where(
    connection: Connection, endpoint: Endpoint, body: ReplayEvents | Redrive
) -> tuple[str | None, str | None]:
    """Return of which tenant and which room alone, as far as the body says.

    Raises
    ------
    Invalid
        There is no such tenant or room, or the endpoint is not for it.
    """
    tenant = endpoint.owner or _tenant(connection, endpoint, body)
    if body.room is None:
        return tenant, None
    room = _room(connection, tenant, body.room)
    if room is None or not _is_for(endpoint, room.tenant):
        raise Invalid(errors=[FieldError("/room", "room_not_found", "There is no such room.")])
    return room.tenant, room.ref


def _tenant(connection: Connection, endpoint: Endpoint, body: ReplayEvents | Redrive) -> str | None:
    """Return the tenant to which a call to the platform's endpoint is narrowed."""
    assert isinstance(body, PlatformReplayEvents | PlatformRedrive)
    if body.tenant is None:
        if body.room is not None and body.room.slug is not None:
            detail = "A slug means something within a tenant only: say which."
            raise Invalid(errors=[FieldError("/tenant", "required", detail)])
        return None
    found = tenants.get(connection, body.tenant)
    if found is None:
        raise Invalid(errors=[FieldError("/tenant", "tenant_not_found", "There is no such tenant.")])
    if not _is_for(endpoint, found.tenant):
        detail = "This endpoint does not get this tenant's webhooks."
        raise Invalid(errors=[FieldError("/tenant", "tenant_not_served", detail)])
    return found.tenant


def _is_for(endpoint: Endpoint, tenant: str) -> bool:
    if endpoint.owner != PLATFORM:
        return endpoint.owner == tenant
    served = endpoint.wanted.tenants
    return served is None or tenant in map(key, served)


def _room(connection: Connection, tenant: str | None, asked: ReplayRoom) -> Room | None:
    if asked.room_id is not None:
        return rooms.by_room_id(connection, asked.room_id, tenant)
    assert tenant is not None
    assert asked.kind is not None
    assert asked.slug is not None
    entity = entities.find(connection, tenant, asked.kind, asked.slug)
    return None if entity is None else rooms.latest(connection, tenant, entity.ref)

"""``…/messages`` of an event, group or direct room: what people say through OpenMeet's own pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final

import orjson
from pydantic import Field

from openmeet_appservice import errors
from openmeet_appservice.chat.sending import Sending
from openmeet_appservice.domain.direct import direct_slug
from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind
from openmeet_appservice.domain.names import SLUG, key
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.store import messages
from openmeet_appservice.store.messages import Sender
from openmeet_appservice.web.models import AnswerModel, ApiModel
from openmeet_appservice.web.routes import Access, Request, Response, Route

MAX_CONTENT_BYTES = 60_000
"""Matrix allows 65,536 bytes for the whole event, of which its envelope needs a part."""


_PLACES: Final[Mapping[EntityKind, str]] = MappingProxyType(
    {
        EntityKind.EVENT: "events/{event}",
        EntityKind.GROUP: "groups/{group}",
        EntityKind.DIRECT: "direct/{user_a}/{user_b}",
    }
)

_NAMES: Final[Mapping[EntityKind, str]] = MappingProxyType(
    {EntityKind.EVENT: "event", EntityKind.GROUP: "group", EntityKind.DIRECT: "direct room"}
)

_ROOMS: Final[Mapping[EntityKind, str]] = MappingProxyType(
    {
        EntityKind.EVENT: "the room of an event",
        EntityKind.GROUP: "the room of a group",
        EntityKind.DIRECT: "a direct room",
    }
)


def _slug(kind: EntityKind, request: Request) -> str:
    """Return the slug of what the path names."""
    if kind is EntityKind.DIRECT:
        return direct_slug(request.path["user_a"], request.path["user_b"])
    return request.path[kind.value]


class NewMessage(ApiModel):
    """A message to send."""

    sender: Annotated[str, Field(pattern=f"^{SLUG.pattern}$", description="The slug of the user who speaks.")]
    body: Annotated[str, Field(min_length=1, description="Plain text.")]


class SentMessage(AnswerModel):
    """A message that is in its room."""

    event_id: str


@dataclass(frozen=True, slots=True)
class MessageRoutes:
    """The handlers.

    Parameters
    ----------
    defaults
        What the configuration says of rooms; a tenant may have chosen otherwise.
    new_transaction_id
        Makes a transaction id that no puppet has used.
    new_message_id
        Makes the id of a message that came without an ``Idempotency-Key``.
    """

    sending: Sending
    defaults: RoomSettings
    new_transaction_id: Callable[[], str]
    new_message_id: Callable[[], str]

    def routes(self) -> list[Route]:
        """Return the routes for every kind of room."""
        return [self._route(kind) for kind in EntityKind]

    def _route(self, kind: EntityKind) -> Route:
        async def post(request: Request) -> Response:
            return await self._post(kind, request)

        return Route(
            method="POST",
            path=f"/v1/tenants/{{tenant}}/{_PLACES[kind]}/messages",
            handler=post,
            operation=f"send_{kind}_message",
            summary=f"Speak in {_ROOMS[kind]} as a user",
            description=(
                "Sends plain text and answers once it is in the room. With an `Idempotency-Key` the request "
                "may be repeated after any failure: the message is sent once. In a large room, a member who "
                "is not inside yet joins first (see the setting `rooms.join`)."
            ),
            tag="messages",
            access=Access.TENANT,
            body=NewMessage,
            responses={201: SentMessage, 409: None, 503: None},
            takes_idempotency_key=True,
            resumes=True,
        )

    async def _post(self, kind: EntityKind, request: Request) -> Response:
        asked = request.body_as(NewMessage)
        content = {"msgtype": "m.text", "body": asked.body}
        if len(orjson.dumps(content)) > MAX_CONTENT_BYTES:
            raise errors.Invalid(
                errors=[
                    errors.FieldError(
                        "/body", "too_long", f"A message holds at most {MAX_CONTENT_BYTES} bytes."
                    )
                ]
            )
        tenant = key(request.path["tenant"])
        slug = _slug(kind, request)
        sender = await self.sending.database.read(
            messages.sender, tenant, kind.value, key(slug), key(asked.sender)
        )
        if sender == "no entity":
            raise errors.NotFound(f"There is no such {_NAMES[kind]}.")
        if sender == "no user":
            raise errors.Invalid(
                errors=[errors.FieldError("/sender", "unknown_user", "There is no user with this slug.")]
            )
        self._check(kind, sender)
        event_id = await self.sending.send(
            tenant, self._message_id(kind, request, asked), sender, self.new_transaction_id(), content
        )
        return Response(status=201, body=SentMessage(event_id=event_id))

    def _check(self, kind: EntityKind, sender: Sender) -> None:
        chosen = room_settings(self.defaults, sender.settings)
        status = None if sender.status is None else AttendeeStatus(sender.status)
        if sender.silenced:
            raise errors.Conflict(
                f"This user is banned or muted in the {_NAMES[kind]}.", code="sender_may_not_chat"
            )
        if sender.role is None and kind is EntityKind.DIRECT:
            raise errors.Conflict("This user is neither of the two.", code="sender_may_not_chat")
        if sender.role is None or not may_chat(kind, sender.role, status, chosen.chat_statuses):
            raise errors.Conflict(
                f"This user may not chat here: first make them a member of the {kind}, "
                "with a role and a status that may.",
                code="sender_may_not_chat",
            )
        if sender.room_ref is None or sender.room_id is None:
            raise errors.Unavailable(
                f"The room of this {_NAMES[kind]} is not made yet; its `sync` says how far it is.",
                code="room_not_ready",
                retry_after=2,
            )

    def _message_id(self, kind: EntityKind, request: Request, asked: NewMessage) -> str:
        """Return an id that the same request with the same key has again, in whichever process."""
        if request.idempotency_key is None:
            return self.new_message_id()
        where = [key(request.path["tenant"]), kind.value, key(_slug(kind, request))]
        parts = [*where, request.idempotency_key, key(asked.sender), asked.body]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"msg_{digest[:32]}"

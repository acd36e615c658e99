"""What a receiver may rely on in each type of webhook, as the OpenAPI document shows it.

Every model is open: fields, and types of webhooks, are only ever added. Bodies are built where what they tell
of happens; nothing is validated with these models while the service runs.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Told(BaseModel):
    """A part of a webhook's body; more may be added to it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class WebhookRoom(Told):
    """A room, and what it is the room of."""

    kind: Literal["event", "group", "direct"]
    slug: str = Field(description="As it was when the webhook was made.")
    external_id: str | None = Field(description="OpenMeet's own id, where it gave one.")
    room_id: str
    alias: str | None = Field(description="Null where it has none.")
    log_id: str = Field(
        description="Which count of the room's events this is. Another one begins at 1 again, when the "
        "database was restored or rebuilt."
    )


class DegradedRoom(WebhookRoom):
    """A room that may not exist yet."""

    room_id: str | None  # type: ignore[assignment]
    log_id: str | None  # type: ignore[assignment]


class WebhookSender(Told):
    """Whose doing something was."""

    user_id: str
    kind: Literal["puppet", "linked", "bot", "other"] = Field(
        description="`puppet`: one of OpenMeet's users, through this service. `linked`: one of OpenMeet's "
        "users, with a Matrix account of their own. `bot`: this service. `other`: somebody else on Matrix."
    )
    user: str | None = Field(description="The slug of OpenMeet's user, where it is one.")
    external_id: str | None


class MatrixEvent(Told):
    """An event as the homeserver pushed it (`ClientEvent` of the client-server API), nothing dropped.

    Whoever may speak in the room decides what is in it: rely on no other field, or its type, without looking.
    """

    event_id: str
    room_id: str


class LoggedRoomEvent(Told):
    """One event of a room."""

    sequence: int = Field(ge=1, description="Its number in the room and `log_id`, from 1 without gaps.")
    origin: Literal["openmeet", "matrix"] = Field(
        description="`openmeet`: this service did it, mostly because OpenMeet wanted it."
    )
    sender: WebhookSender
    encrypted: bool = Field(default=False, description="Its content cannot be read here. Absent: false.")
    repaired: bool = Field(
        default=False,
        description="The homeserver never pushed it; it was found in the room's history later, so it stands "
        "behind younger events. Absent: false.",
    )
    after_event_id: str | None = Field(
        default=None,
        description="Of a repaired event: which one it comes after in the room's history; null: before all. "
        "Absent otherwise.",
    )
    event: MatrixEvent


class RoomEventsData(Told):
    """Successive events of one room."""

    tenant: str = Field(description="As OpenMeet gave it.")
    room: WebhookRoom
    events: list[LoggedRoomEvent] = Field(min_length=1)


class Typing(Told):
    """Who is typing now: everybody who is."""

    users: list[WebhookSender]


class Receipt(Told):
    """How far somebody has read."""

    event_id: str
    receipt_type: str = Field(examples=["m.read"])
    sender: WebhookSender
    ts: int = Field(description="In milliseconds since the epoch.")
    thread_id: str | None = Field(default=None, description="Absent: in no thread in particular.")


class RoomEphemeralData(Told):
    """What is true of a room just now."""

    tenant: str
    room: WebhookRoom
    typing: Typing | None = Field(default=None, description="Absent: unchanged.")
    receipts: list[Receipt] | None = Field(default=None, description="Absent: none are new.")


class RoomReadyData(Told):
    """A room that is as OpenMeet wants it."""

    tenant: str
    room: WebhookRoom
    room_version: str


class WebhookLastError(Told):
    """Why Matrix does not agree with OpenMeet yet: `sync.last_error` of the provisioning API."""

    code: str
    detail: str
    at: str
    attempts: int
    next_attempt_at: str | None


class RoomDegradedData(Told):
    """A room that is not as OpenMeet wants it."""

    tenant: str
    room: DegradedRoom
    error: WebhookLastError


class RoomArchivedData(Told):
    """A room that was closed for good."""

    tenant: str
    room: WebhookRoom


class ReplacedRoom(Told):
    """A room that is in use no more."""

    room_id: str
    log_id: str


class RoomReplacedData(Told):
    """A room in the place of another."""

    tenant: str
    room: WebhookRoom = Field(description="The new one.")
    replaced: ReplacedRoom


class ReadyUser(Told):
    """One of OpenMeet's users, who is on Matrix now."""

    user: str
    external_id: str | None
    user_id: str


class UserReadyData(Told):
    """A user who is on Matrix as OpenMeet wants it."""

    tenant: str
    user: ReadyUser


class SomebodyOnMatrix(Told):
    """Who it is; `user` and `external_id` are null for a stranger."""

    user_id: str
    user: str | None
    external_id: str | None


class UserInvitedData(Told):
    """An invitation of one of OpenMeet's users into a room that is none of OpenMeet's, and the answer."""

    tenant: str
    user: ReadyUser
    room_id: str
    inviter: SomebodyOnMatrix
    direct: bool = Field(description="The inviter meant a direct chat.")
    accepted: bool = Field(
        description="The user's puppet has joined. What is said in that room is not sent to OpenMeet."
    )


class MemberDeniedData(Told):
    """Somebody who came into a room, or wanted to, and may not."""

    tenant: str
    room: WebhookRoom
    member: SomebodyOnMatrix
    reason: str


class DisabledEndpoint(Told):
    """An endpoint of the same tenant, or of the platform."""

    name: str
    url: str
    platform: bool


class EndpointDisabledData(Told):
    """An endpoint that gets nothing any more until it is resumed."""

    tenant: str | None = Field(description="Null: it is the platform's.")
    endpoint: DisabledEndpoint
    reason: str


class LetterEndpoint(Told):
    """An endpoint of the same tenant, or of the platform."""

    name: str
    platform: bool


class DeliveryDeadData(Told):
    """Events that an endpoint did not get and, without a redrive, never will."""

    tenant: str
    endpoint: LetterEndpoint
    room: WebhookRoom
    first_sequence: int
    last_sequence: int
    reason: Literal["refused", "exhausted", "truncated"]
    detail: str


class EndpointTestData(Told):
    """A test."""

    tenant: str | None = Field(description="Null: the endpoint is the platform's.")
    endpoint: str = Field(description="Its name.")


class AnyWebhook(Told):
    """What every webhook has."""

    timestamp: str = Field(
        description="When this body was made, RFC 3339 in UTC with milliseconds.",
        json_schema_extra={"format": "date-time"},
    )


class RoomEventsWebhook(AnyWebhook):
    """What happened in a room."""

    type: Literal["room.events"]
    data: RoomEventsData


class RoomEphemeralWebhook(AnyWebhook):
    """Typing and receipts."""

    type: Literal["room.ephemeral"]
    data: RoomEphemeralData


class RoomReadyWebhook(AnyWebhook):
    """A room is there, as it should be."""

    type: Literal["room.ready"]
    data: RoomReadyData


class RoomDegradedWebhook(AnyWebhook):
    """A room is not as it should be."""

    type: Literal["room.degraded"]
    data: RoomDegradedData


class RoomArchivedWebhook(AnyWebhook):
    """A room is closed."""

    type: Literal["room.archived"]
    data: RoomArchivedData


class RoomReplacedWebhook(AnyWebhook):
    """A room took another's place."""

    type: Literal["room.replaced"]
    data: RoomReplacedData


class UserReadyWebhook(AnyWebhook):
    """A user is on Matrix."""

    type: Literal["user.ready"]
    data: UserReadyData


class UserInvitedWebhook(AnyWebhook):
    """Somebody invited a user."""

    type: Literal["user.invited"]
    data: UserInvitedData


class MemberDeniedWebhook(AnyWebhook):
    """Somebody may not be in a room."""

    type: Literal["member.denied"]
    data: MemberDeniedData


class EndpointDisabledWebhook(AnyWebhook):
    """Another endpoint was disabled."""

    type: Literal["endpoint.disabled"]
    data: EndpointDisabledData


class DeliveryDeadWebhook(AnyWebhook):
    """Another endpoint will not get some events."""

    type: Literal["delivery.dead"]
    data: DeliveryDeadData


class EndpointTestWebhook(AnyWebhook):
    """Somebody asked for a test."""

    type: Literal["endpoint.test"]
    data: EndpointTestData

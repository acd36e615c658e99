"""The types of webhooks as the OpenAPI document shows them: when each comes, and what its answers do."""

from __future__ import annotations

from openmeet_appservice.delivery.schemas import (
    DeliveryDeadWebhook,
    EndpointDisabledWebhook,
    EndpointTestWebhook,
    MemberDeniedWebhook,
    RoomArchivedWebhook,
    RoomDegradedWebhook,
    RoomEphemeralWebhook,
    RoomEventsWebhook,
    RoomReadyWebhook,
    RoomReplacedWebhook,
    UserInvitedWebhook,
    UserReadyWebhook,
)
from openmeet_appservice.web.webhooks import Webhook

_OF_EVENTS = {
    "2XX": "It was taken: the room goes on with the next events. Answer so once it is stored.",
    "400": "Refused, as by 422: retried on the schedule; after three such answers the events go one by one.",
    "410": "The endpoint is gone: it is disabled, and everything is kept until somebody resumes it.",
    "413": "Too large: the same events go again in smaller webhooks; a single one becomes a dead letter.",
    "422": "As 400.",
    "429": "As 503.",
    "503": "Retried on the schedule; with `Retry-After`, the whole endpoint is left alone for so long.",
    "default": "Retried on the schedule, as is no answer at all. Redirects are not followed.",
}
_OF_NOTICES = {
    "2XX": "It was taken.",
    "410": "The endpoint is gone: it is disabled until somebody resumes it.",
    "default": "Tried again on the schedule, then given up.",
}
_OF_EPHEMERAL = {
    "2XX": "It was taken.",
    "default": "It is not sent again: the next one says what is true then.",
}
_OF_TEST = {"default": "Shown to whoever asked for the test. It is not sent again."}

WEBHOOKS = (
    Webhook(
        "room.events",
        "What happened in a room",
        "Ordered for each room, at least once: drop what came before by its `event_id`. A retry is the same "
        "bytes under the same `webhook-id`.",
        RoomEventsWebhook,
        _OF_EVENTS,
    ),
    Webhook(
        "room.ephemeral",
        "Who is typing, and how far people have read",
        "Best effort, in no order with other webhooks.",
        RoomEphemeralWebhook,
        _OF_EPHEMERAL,
    ),
    Webhook("room.ready", "A room is as OpenMeet wants it", "", RoomReadyWebhook, _OF_NOTICES),
    Webhook(
        "room.degraded",
        "A room is not as OpenMeet wants it",
        "Sent when that begins; it is tried again at `next_attempt_at`.",
        RoomDegradedWebhook,
        _OF_NOTICES,
    ),
    Webhook("room.archived", "A room was closed for good", "", RoomArchivedWebhook, _OF_NOTICES),
    Webhook(
        "room.replaced",
        "A room took the place of another",
        "The new one counts its events from 1, under a `log_id` of its own.",
        RoomReplacedWebhook,
        _OF_NOTICES,
    ),
    Webhook("user.ready", "A user is on Matrix", "", UserReadyWebhook, _OF_NOTICES),
    Webhook(
        "user.invited",
        "Somebody on Matrix invited a user",
        "Into a room that is none of OpenMeet's; `users.direct_invitations` says what is answered.",
        UserInvitedWebhook,
        _OF_NOTICES,
    ),
    Webhook("member.denied", "Somebody may not be in a room", "", MemberDeniedWebhook, _OF_NOTICES),
    Webhook(
        "endpoint.disabled",
        "Another endpoint was disabled",
        "Sent to the tenant's other endpoints, and the platform's.",
        EndpointDisabledWebhook,
        _OF_NOTICES,
    ),
    Webhook(
        "delivery.dead",
        "Another endpoint will not get some events",
        "Sent to the tenant's other endpoints, and the platform's. The events stay in the log for as long as "
        "all others.",
        DeliveryDeadWebhook,
        _OF_NOTICES,
    ),
    Webhook(
        "endpoint.test",
        "Somebody asked for a test",
        "Sent whatever the endpoint takes, and also while it is paused or disabled.",
        EndpointTestWebhook,
        _OF_TEST,
    ),
)
"""Every type, in the order in which people read of them."""

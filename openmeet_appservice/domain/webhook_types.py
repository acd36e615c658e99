"""The types of webhooks: what an endpoint can ask for."""

from __future__ import annotations

ROOM_EVENTS = "room.events"
"""What happened in a room: ordered, at least once."""

ROOM_EPHEMERAL = "room.ephemeral"
"""Who is typing, and who has read how far: best effort, in no order."""

ROOM_READY = "room.ready"
"""An event's or group's room is as OpenMeet wants it, for the first time or again."""

ROOM_DEGRADED = "room.degraded"
"""It is not, and why."""

ROOM_ARCHIVED = "room.archived"
"""The room of something that was deleted is closed."""

ROOM_REPLACED = "room.replaced"
"""An event or group has another room than before."""

USER_READY = "user.ready"
"""A user's puppet exists and has its name."""

USER_INVITED = "user.invited"
"""Somebody invited a user's puppet into a room that is none of OpenMeet's."""

MEMBER_DENIED = "member.denied"
"""Somebody was removed from a room who is not on OpenMeet's list."""

ENDPOINT_DISABLED = "endpoint.disabled"
"""Another endpoint answered 410 and is called no more."""

DELIVERY_DEAD = "delivery.dead"
"""Another endpoint did not get some events."""

ENDPOINT_TEST = "endpoint.test"
"""Sent when somebody asks for it, whatever the endpoint takes."""

OPERATIONAL = (
    ROOM_READY,
    ROOM_DEGRADED,
    ROOM_ARCHIVED,
    ROOM_REPLACED,
    USER_READY,
    USER_INVITED,
    MEMBER_DENIED,
    ENDPOINT_DISABLED,
    DELIVERY_DEAD,
)
"""Those of which each webhook tells of one change: at least once, in no order."""

DELIVERABLE = (ROOM_EVENTS, ROOM_EPHEMERAL, *OPERATIONAL)
"""What an endpoint may choose from."""

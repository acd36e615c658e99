"""The types of webhooks: what an endpoint can ask for."""

from __future__ import annotations

ROOM_EVENTS = "room.events"
"""What happened in a room: ordered, at least once."""

ENDPOINT_TEST = "endpoint.test"
"""Sent when somebody asks for it, whatever the endpoint takes."""

DELIVERABLE = (ROOM_EVENTS,)
"""What an endpoint may choose from."""

"""The Matrix client, and nothing else."""

from __future__ import annotations

from openmeet_appservice.homeserver.admin import AdminCalls
from openmeet_appservice.homeserver.calls import JsonObject
from openmeet_appservice.homeserver.client import MatrixApi, TimeLimits, open_session
from openmeet_appservice.homeserver.directory import RoomVisibility
from openmeet_appservice.homeserver.facade import Homeserver
from openmeet_appservice.homeserver.retries import RetryPolicy
from openmeet_appservice.homeserver.server import Capabilities, Versions
from openmeet_appservice.homeserver.timeline import Direction, MessagesPage, new_txn_id

__all__ = [
    "AdminCalls",
    "Capabilities",
    "Direction",
    "Homeserver",
    "JsonObject",
    "MatrixApi",
    "MessagesPage",
    "RetryPolicy",
    "RoomVisibility",
    "TimeLimits",
    "Versions",
    "new_txn_id",
    "open_session",
]

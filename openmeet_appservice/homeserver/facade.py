"""The homeserver as the rest of the program sees it."""

from __future__ import annotations

from openmeet_appservice.homeserver.directory import DirectoryCalls
from openmeet_appservice.homeserver.media import MediaCalls
from openmeet_appservice.homeserver.rooms import RoomCalls
from openmeet_appservice.homeserver.server import ServerCalls
from openmeet_appservice.homeserver.timeline import TimelineCalls
from openmeet_appservice.homeserver.users import UserCalls


class Homeserver(ServerCalls, UserCalls, DirectoryCalls, RoomCalls, TimelineCalls, MediaCalls):
    """Everything we ask of the homeserver, in Matrix's terms, as the bot or as one of our users.

    Every method raises `HomeserverRefused` (or `HomeserverLimited`) when the homeserver says no and
    `HomeserverUnreachable` when it is not known what it did. Nothing but the homeserver's own
    ``M_NOT_FOUND`` is ever read as "there is none".

    Parameters
    ----------
    api
        The client.
    appservice_id
        The ``id`` in our registration.
    """

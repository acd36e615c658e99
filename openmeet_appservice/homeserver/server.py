"""Calls about the homeserver itself and about us in its eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mautrix.api import Method, Path

from openmeet_appservice.homeserver.calls import Calls, member
from openmeet_appservice.homeserver.client import MatrixApi

# Synapse waits 60 s for our answer to its ping; its verdict on that should reach us.
_PING_SECONDS = 75.0


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of the client-server API are spoken, and which unstable features are on."""

    versions: tuple[str, ...]
    unstable_features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The room version that rooms get by default, and all of them with their stability."""

    default_room_version: str
    room_versions: Mapping[str, str]


class ServerCalls(Calls):
    """What the homeserver is, and whether it and we reach each other.

    Parameters
    ----------
    api
        The client.
    appservice_id
        The ``id`` in our registration.
    """

    def __init__(self, api: MatrixApi, appservice_id: str) -> None:
        super().__init__(api)
        self._appservice_id = appservice_id

    async def versions(self) -> Versions:
        """Ask which versions of Matrix are spoken."""
        answer = await self._api.call("versions", Method.GET, Path.versions)
        versions = member(answer, "versions", list)
        features = answer.get("unstable_features") or {}
        return Versions(tuple(versions), frozenset(name for name, is_on in features.items() if is_on))

    async def whoami(self, as_user: str | None = None) -> str:
        """Return the user id that our token, or our acting as *as_user*, stands for."""
        path = Path.v3.account.whoami
        answer = await self._api.call("whoami", Method.GET, path, as_user=as_user)
        return member(answer, "user_id", str)

    async def capabilities(self) -> Capabilities:
        """Ask which room versions there are."""
        answer = await self._api.call("capabilities", Method.GET, Path.v3.capabilities)
        rooms = member(member(answer, "capabilities", dict), "m.room_versions", dict)
        return Capabilities(member(rooms, "default", str), member(rooms, "available", dict))

    async def ping(self, transaction_id: str) -> int:
        """Have the homeserver ping us and return how many milliseconds that took.

        Once only, without repetition: each answer is the finding. A ping that succeeds also makes
        Synapse send what it has kept for us at once.

        Raises
        ------
        HomeserverRefused
            By ``errcode`` (specification, *Application service API, pinging*):
            ``M_FORBIDDEN`` our id is not the one of this token; ``M_URL_NOT_SET`` the registration
            names no URL; ``M_CONNECTION_FAILED`` and ``M_CONNECTION_TIMEOUT`` nobody answers at that
            URL, or too late; ``M_BAD_STATUS`` somebody answers, but not 2xx.
        """
        answer = await self._api.call(
            "ping",
            Method.POST,
            Path.v1.appservice[self._appservice_id].ping,
            body={"transaction_id": transaction_id},
            repeatable=False,
            timeout=_PING_SECONDS,
        )
        return member(answer, "duration_ms", int)

"""Calls about users: making puppets and naming them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mautrix.api import Method, Path

from openmeet_appservice.errors import HomeserverRefused, HomeserverUnreachable
from openmeet_appservice.homeserver.calls import Calls, JsonObject, is_not_found, member


class UserCalls(Calls):
    """Puppets and their profiles."""

    async def register(self, localpart: str) -> bool:
        """Make the user *localpart*, without a login; return whether it is new.

        Synapse checks the name against our namespace only, not against Matrix's grammar or length:
        that is the caller's.

        Raises
        ------
        HomeserverRefused
            Such as 400 ``M_EXCLUSIVE`` outside our namespace.
        """
        body = {
            "type": "m.login.application_service",
            "username": localpart,
            "inhibit_login": True,
        }
        try:
            await self._api.call("register", Method.POST, Path.v3.register, body=body, repeatable=True)
        except HomeserverRefused as error:
            if error.errcode == "M_USER_IN_USE":
                return False
            raise
        return True

    async def display_name(self, user_id: str) -> str | None:
        """Return the display name of *user_id*, None where there is none or no such user."""
        path = Path.v3.profile[user_id].displayname
        try:
            answer = await self._api.call("display_name", Method.GET, path)
        except HomeserverRefused as error:
            if is_not_found(error):
                return None
            raise
        # Synapse leaves the key out where no name is set.
        if answer == {}:
            return None
        return member(answer, "displayname", str)

    async def set_display_name(self, user_id: str, name: str) -> None:
        """Name our own user *user_id*; Synapse carries the name into every room it is in."""
        path = Path.v3.profile[user_id].displayname
        body = {"displayname": name}
        await self._api.call("set_display_name", Method.PUT, path, body=body, as_user=user_id)

    async def account_data(self, user_id: str, data_type: str) -> JsonObject | None:
        """Return what our own user *user_id* keeps for its clients under *data_type*, None for nothing."""
        path = Path.v3.user[user_id].account_data[data_type]
        try:
            answer = await self._api.call("account_data", Method.GET, path, as_user=user_id)
        except HomeserverRefused as error:
            if is_not_found(error):
                return None
            raise
        if not isinstance(answer, dict):
            raise HomeserverUnreachable("the account data is not an object")
        return answer

    async def set_account_data(self, user_id: str, data_type: str, content: Mapping[str, Any]) -> None:
        """Replace what our own user *user_id* keeps under *data_type*."""
        path = Path.v3.user[user_id].account_data[data_type]
        await self._api.call("set_account_data", Method.PUT, path, body=content, as_user=user_id)

    async def joined_rooms(self, as_user: str | None = None) -> set[str]:
        """Return the ids of the rooms that *as_user*, or the bot, has joined."""
        path = Path.v3.joined_rooms
        answer = await self._api.call("joined_rooms", Method.GET, path, as_user=as_user)
        return set(member(answer, "joined_rooms", list))

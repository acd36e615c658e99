"""Rooms of a former service that were not taken over yet."""

from __future__ import annotations

from openmeet_appservice.domain.rooms import DesiredRoom
from openmeet_appservice.errors import NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.store.wanted import WantedEntity


async def refuse_second_room(homeserver: Homeserver, entity: WantedEntity, desired: DesiredRoom) -> None:
    """Return if a room may be made for the entity.

    Where the room will have the very alias that a former service's would have, that alias is the lock
    already; only other aliases have to be asked for, and only of entities that were imported.

    Raises `NotReconciled` where a former service made a room for it.
    """
    alias = entity.former_alias
    if alias is None or alias == desired.alias:
        return
    room_id = await homeserver.resolve_alias(alias)
    if room_id is not None:
        raise NotReconciled(
            "alias_taken",
            f"{alias} leads to {room_id}, which this service did not make: `openmeet-appservice adopt` takes "
            "over the rooms of OpenMeet's former service",
        )

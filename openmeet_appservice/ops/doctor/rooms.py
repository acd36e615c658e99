"""What can only be seen in a room: whether it may be published, and whether Synapse encrypts new ones."""

from __future__ import annotations

from collections.abc import Sequence

from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning

NEWEST = 5
"""How many of our newest rooms are looked at."""

_REMEDY = "Set `encryption_enabled_by_default_for_room_type: off` in homeserver.yaml and restart Synapse"


async def check_directory(homeserver: Homeserver, control_room: str, bot: str) -> Finding:
    """Put the control room into the public directory and take it out again at once."""
    name = "room directory"
    try:
        await homeserver.set_room_visibility(control_room, "public")
    except HomeserverError as error:
        if isinstance(error, HomeserverRefused) and error.status == 403:
            return _not_published(name, error, bot)
        # It may be listed all the same.
        await homeserver.set_room_visibility(control_room, "private")
        raise
    try:
        await homeserver.set_room_visibility(control_room, "private")
    except HomeserverError as error:
        what = f"the bot's control room {control_room} could not be taken out of it again: {error}"
        return warning(name, what, "Run `openmeet-appservice doctor` again.")
    return ok(name, "the bot may publish rooms")


def _not_published(name: str, error: HomeserverRefused, bot: str) -> Finding:
    return problem(
        name,
        f"Synapse does not let the bot publish rooms: {error}",
        f'Put `- {{user_id: "{bot}", action: allow}}` first into `room_list_publication_rules` in '
        "homeserver.yaml (see to it that `enable_room_list_search` is not false) and restart Synapse.",
    )


async def check_encryption(homeserver: Homeserver, newest: Sequence[str], control_room: str) -> Finding:
    """See whether Synapse adds encryption to new rooms.

    No call tells its setting, but rooms that it encrypted by itself do. Ours are made with a preset that only
    ``all`` encrypts, the control room with one that ``invite`` encrypts as well.

    Parameters
    ----------
    newest
        Our rooms that OpenMeet does not want encrypted, the newest first.
    """
    plain = None
    for room_id in newest:
        encrypted = await _is_encrypted(homeserver, room_id)
        if encrypted:
            return _encrypts_all(room_id)
        if encrypted is False:
            plain = room_id
            break
    encrypted = await _is_encrypted(homeserver, control_room)
    if encrypted:
        return _encrypts_some(control_room, plain)
    if encrypted is None and plain is None:
        return info("encryption", "not checked: the bot is not inside its control room")
    return ok("encryption", "Synapse leaves new rooms unencrypted")


async def _is_encrypted(homeserver: Homeserver, room_id: str) -> bool | None:
    """Tell whether the room is encrypted, None where the bot is not inside."""
    try:
        return await homeserver.state_event(room_id, "m.room.encryption") is not None
    except HomeserverRefused:
        return None


def _encrypts_all(room_id: str) -> Finding:
    return problem(
        "encryption",
        f"{room_id} is encrypted, which OpenMeet did not ask for: Synapse encrypts all new rooms, so that "
        "OpenMeet can read nothing in them",
        f"{_REMEDY}; encrypted rooms stay so, and this line goes with the next room that is made.",
    )


def _encrypts_some(control_room: str, plain: str | None) -> Finding:
    which = "private rooms" if plain else "private rooms, perhaps all"
    return warning(
        "encryption",
        f"Synapse encrypted the bot's control room {control_room} by itself, so it encrypted new {which} "
        "when that was made; those of events and groups escape this unless the setting is `all`",
        f"{_REMEDY}. Was it set off since, nothing is to be done.",
    )

"""What can only be seen in a room: whether it may be published, and whether Synapse encrypts new ones."""

from __future__ import annotations

from collections.abc import Sequence

from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning

NEWEST = 5
"""How many of our newest rooms are looked at."""


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

    Its setting may concern only rooms that people are invited to. So the newest such room tells, and where
    there is none the control room, which is one.

    Parameters
    ----------
    newest
        Our rooms, the newest first.
    """
    for room_id in newest:
        try:
            content = await homeserver.state_event(room_id, "m.room.encryption")
            rule = await homeserver.state_event(room_id, "m.room.join_rules")
        except HomeserverRefused:
            # The bot is not inside: another room tells.
            continue
        if content is not None:
            return _encrypted(room_id)
        if (rule or {}).get("join_rule") == "invite":
            return ok("encryption", "Synapse leaves new rooms unencrypted")
    try:
        content = await homeserver.state_event(control_room, "m.room.encryption")
    except HomeserverRefused as error:
        return info("encryption", f"not checked: the bot cannot see its control room ({error})")
    if content is not None:
        return _encrypted(control_room)
    return ok("encryption", "Synapse leaves new rooms unencrypted")


def _encrypted(room_id: str) -> Finding:
    return problem(
        "encryption",
        f"Synapse encrypted the room {room_id} by itself, so OpenMeet could read nothing in new rooms",
        "Set `encryption_enabled_by_default_for_room_type: off` in homeserver.yaml and restart Synapse; "
        "encrypted rooms stay so, and this line goes with the next room that is made.",
    )

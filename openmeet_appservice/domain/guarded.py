"""Power levels in a room that was adopted: until that is enforced, nobody has less than they had.

The room has people whom OpenMeet's list may not know yet, and levels that were given for reasons nobody has
written down. So whoever is to have more gets it, and all else in the event stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openmeet_appservice.domain.adoption import power_of
from openmeet_appservice.domain.power_levels import MAX_USERS_BYTES, highest_level
from openmeet_appservice.domain.rooms import ActualRoom

_POWER = "m.room.power_levels"


@dataclass(frozen=True, slots=True)
class Raised:
    """The whole event with those raised who are to have more, None where nobody is; who did not fit in."""

    content: Mapping[str, Any] | None
    left_out: tuple[str, ...] = ()


def raised_levels(actual: ActualRoom, levels: Mapping[str, int]) -> Raised:
    """Raise people of the room to *levels*, capped to what people may have; lower nobody."""
    content = actual.content(_POWER)
    listed = content.get("users")
    users = dict(listed) if isinstance(listed, Mapping) else {}
    top = highest_level(actual.version)
    wanted = {user: min(level, top) for user, level in levels.items()}
    more = [user for user, level in wanted.items() if level > power_of(user, content)]
    size = len(json.dumps(users, ensure_ascii=False, separators=(",", ":")).encode())
    left_out = []
    for user in sorted(more, key=lambda user: (-wanted[user], user)):
        size += len(json.dumps({user: wanted[user]}, ensure_ascii=False).encode())
        if size > MAX_USERS_BYTES:
            left_out.append(user)
        else:
            users[user] = wanted[user]
    changed = len(more) > len(left_out)
    return Raised({**content, "users": users} if changed else None, tuple(left_out))

"""A room as OpenMeet wants it, as Matrix has it, and what would be done about the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.people import entitled_levels, listed_now
from openmeet_appservice.domain.plan import Plan
from openmeet_appservice.domain.power_levels import listed_levels
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom
from openmeet_appservice.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be done for one event or group, and why.

    *actual* is None where no room is recorded yet.
    """

    desired: DesiredRoom
    actual: ActualRoom | None
    verdict: Verdict

    @property
    def plan(self) -> Plan:
        """What would be done, held and noted."""
        return self.verdict.plan

    def sides(self) -> dict[str, Mapping[str, Any] | None]:
        """Both sides in short: ``desired`` and ``actual``, None where there is no room."""
        return {
            "desired": _desired(self.desired, self.actual),
            "actual": None if self.actual is None else _actual(self.actual),
        }


def _desired(desired: DesiredRoom, actual: ActualRoom | None) -> dict[str, Any]:
    version = desired.version if actual is None else actual.version
    shown: dict[str, Any] = {"wanted": desired.wanted.value}
    if desired.wanted is not Wanted.OPEN:
        return shown
    return shown | {
        "name": desired.name or None,
        "topic": desired.topic or None,
        "alias": desired.alias,
        "join_rule": desired.join_rule,
        "listed": desired.listed,
        "encrypted": desired.encrypted,
        "power_levels": dict(listed_levels(version, entitled_levels(desired)).users),
        "members": {"entitled": len(entitled_levels(desired)), "banned": len(desired.banned)},
    }


def _actual(actual: ActualRoom) -> dict[str, Any]:
    return {
        "name": actual.content("m.room.name").get("name"),
        "topic": actual.content("m.room.topic").get("topic"),
        "alias": actual.content("m.room.canonical_alias").get("alias"),
        "join_rule": actual.content("m.room.join_rules").get("join_rule"),
        "listed": actual.listed,
        "encrypted": bool(actual.content("m.room.encryption").get("algorithm")),
        "power_levels": listed_now(actual),
        "members": dict(sorted(Counter(actual.members.values()).items())),
    }

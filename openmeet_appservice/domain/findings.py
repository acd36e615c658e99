"""What a plan reports beside its actions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Held:
    """A removal of many people that waits for a person to confirm it.

    *users* are those who would be removed, of *members* people who are in the room or invited.
    """

    users: tuple[str, ...]
    members: int
    code: str = "mass_removal_held"

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{len(self.users)} of {self.members} members would be removed at once; "
            "this waits until it is confirmed (confirm_removals)"
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"code": self.code, "users": list(self.users), "members": self.members}


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the plan cannot or must not put right.

    Parameters
    ----------
    code
        ``alias_taken``, ``bot_demoted``, ``direct_needs_puppet``, ``drift_contested``, ``member_banned``,
        ``power_out_of_reach``, ``power_levels_full`` or ``tombstoned``.
    detail
        What it means, for people.
    subject
        The alias, user id or field (`drift.Field`) it is about, None where it is about the room.
    """

    code: str
    detail: str
    subject: str | None = None

    def describe(self) -> str:
        """One line for people."""
        return f"{self.subject}: {self.detail}" if self.subject else self.detail

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

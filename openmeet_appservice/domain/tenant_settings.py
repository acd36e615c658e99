"""What a tenant chose differently from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from openmeet_appservice.domain.drift import drift_policy
from openmeet_appservice.domain.durations import parse_duration
from openmeet_appservice.domain.invitations import InvitationPolicy
from openmeet_appservice.domain.kinds import Access, AttendeeStatus, JoinPolicy
from openmeet_appservice.domain.rooms import RoomSettings


def room_settings(defaults: RoomSettings, settings: Mapping[str, Any]) -> RoomSettings:
    """Return the settings of one tenant's rooms.

    Parameters
    ----------
    defaults
        The configuration's.
    settings
        The tenant's own, as stored: an object whose ``rooms`` may hold ``access``, ``private_alias``,
        ``federate``, ``version``, ``topic``, ``encrypted``, ``join``, ``join_auto_limit``, ``power_levels``
        (merged by role), ``chat_statuses`` (replaced) and ``drift`` (merged by field).
    """
    chosen: Mapping[str, Any] = settings.get("rooms") or {}
    changes: dict[str, Any] = {
        name: chosen[name]
        for name in ("private_alias", "federate", "version", "topic", "encrypted", "join_auto_limit")
        if chosen.get(name) is not None
    }
    if chosen.get("access") is not None:
        changes["access"] = Access(chosen["access"])
    if chosen.get("join") is not None:
        changes["join"] = JoinPolicy(chosen["join"])
    if chosen.get("power_levels") is not None:
        changes["power_levels"] = MappingProxyType({**defaults.power_levels, **chosen["power_levels"]})
    if chosen.get("chat_statuses") is not None:
        changes["chat_statuses"] = frozenset(AttendeeStatus(status) for status in chosen["chat_statuses"])
    if chosen.get("drift") is not None:
        changes["drift"] = drift_policy({**asdict(defaults.drift), **chosen["drift"]})
    return replace(defaults, **changes)


def invitation_policy(default: InvitationPolicy, settings: Mapping[str, Any]) -> InvitationPolicy:
    """Return what one tenant's puppets answer to people who invite them to a direct chat.

    Parameters
    ----------
    default
        The configuration's.
    settings
        The tenant's own, as stored: an object whose ``users`` may hold ``direct_invitations``.
    """
    chosen: Mapping[str, Any] = settings.get("users") or {}
    return InvitationPolicy(chosen.get("direct_invitations") or default)


@dataclass(frozen=True, slots=True)
class LookupSettings:
    """How OpenMeet is asked about what belongs to a tenant.

    Parameters
    ----------
    url
        Where; None: it is not asked.
    alias_timeout, timeout
        How long it may take, in seconds: while somebody waits who looks for an alias, and otherwise.
    resync_interval
        Within how many seconds everything in use is asked about once.
    own
        Whether the URL is the tenant's own; then so are the secrets.
    """

    url: str | None
    alias_timeout: float
    timeout: float
    resync_interval: float
    own: bool = False


def lookup_settings(defaults: LookupSettings, settings: Mapping[str, Any]) -> LookupSettings:
    """Return how OpenMeet is asked about one tenant.

    Parameters
    ----------
    defaults
        The configuration's.
    settings
        The tenant's own, as stored: an object whose ``lookup`` may hold ``url`` and, as texts with their
        unit, ``alias_timeout``, ``timeout`` and ``resync_interval``.
    """
    chosen: Mapping[str, Any] = settings.get("lookup") or {}
    changes: dict[str, Any] = {
        name: parse_duration(chosen[name]).total_seconds()
        for name in ("alias_timeout", "timeout", "resync_interval")
        if chosen.get(name) is not None
    }
    if chosen.get("url") is not None:
        changes |= {"url": chosen["url"], "own": True}
    return replace(defaults, **changes)

"""Synapse itself: whether it answers, what it is, and what time it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout
from mautrix.api import Method, Path, SynapseAdminPath

from openmeet_appservice.config import Config
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver, MatrixApi
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning

OLDEST_SYNAPSE = (1, 132)
ROOM_VERSIONS = ("12", "11")
"""The room versions that this service knows, the preferred first."""

CLOCK_SECONDS = 30
_SECONDS = ClientTimeout(total=15, sock_connect=5)
_UNREACHABLE = "See whether Synapse runs, and whether `homeserver.url` is right from here."
_NO_HOMESERVER = (
    "Correct `homeserver.url`: it is Synapse's address with the port of its client listener, without "
    "`/_matrix` at its end."
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    date: str | None
    body: bytes
    at: int
    """Halfway between question and answer, in milliseconds since the epoch."""


async def check_reachable(config: Config, session: ClientSession, now: Now) -> tuple[list[Finding], bool]:
    """Ask for the versions of Matrix, as anybody may, and return whether a homeserver answered."""
    url = config.homeserver.url
    try:
        answer = await _ask(session, f"{url}/_matrix/client/versions", now)
    except TimeoutError:
        return [problem("homeserver", f"{url} gives no answer", _UNREACHABLE)], False
    except ClientError as error:
        what = f"{url} cannot be reached ({_words(error)})"
        return [problem("homeserver", what, _UNREACHABLE)], False
    versions = _versions(answer)
    if versions is None:
        what = f"what answers at {url} is no homeserver (HTTP {answer.status})"
        return [problem("homeserver", what, _NO_HOMESERVER)], False
    newest = versions[-1] if versions else "no version"
    return [ok("homeserver", f"{url} speaks Matrix up to {newest}"), _clock(answer)], True


async def check_release(api: MatrixApi) -> Finding:
    """Tell which release of Synapse it is, and whether it is new enough."""
    oldest = ".".join(map(str, OLDEST_SYNAPSE))
    try:
        path = SynapseAdminPath.v1.server_version
        answer = await api.call("server_version", Method.GET, path)
        text = str(answer["server_version"])
    except (HomeserverError, KeyError, TypeError) as error:
        return info("Synapse", f"its release is unknown ({_words(error)}); it has to be {oldest} or newer")
    found = re.match(r"(\d+)\.(\d+)", text)
    if found and (int(found[1]), int(found[2])) < OLDEST_SYNAPSE:
        return problem("Synapse", f"release {text} is too old", f"Upgrade Synapse to {oldest} or newer.")
    return ok("Synapse", f"release {text}")


async def check_login(api: MatrixApi) -> list[Finding]:
    """Tell where Synapse leaves logins to somebody else (Matrix 1.15, ``/auth_metadata``)."""
    try:
        await api.call("auth_metadata", Method.GET, Path.v1.auth_metadata)
    except HomeserverRefused:
        return []
    what = "delegated to an authentication service; nothing here depends on it"
    return [info("authentication", what)]


async def check_room_version(config: Config, homeserver: Homeserver) -> Finding:
    """Tell whether new rooms get a version that Synapse offers and this service knows."""
    name = "room version"
    known = await homeserver.capabilities()
    offered = [one for one in ROOM_VERSIONS if known.room_versions.get(one) == "stable"]
    wanted = config.rooms.version or known.default_room_version
    origin = "`rooms.version`" if config.rooms.version else "Synapse's `default_room_version`"
    if wanted in offered:
        return ok(name, f"{wanted}, from {origin}")
    if not offered:
        both = " nor ".join(ROOM_VERSIONS)
        return problem(name, f"Synapse offers neither {both}", "Upgrade Synapse.")
    remedy = f'Set `rooms.version: "{offered[0]}"`.'
    return problem(name, f"{origin} is {wanted}, which cannot be used here", remedy)


async def _ask(session: ClientSession, url: str, now: Now) -> _Answer:
    before = now()
    async with session.get(url, allow_redirects=False, timeout=_SECONDS) as response:
        after = now()
        return _Answer(
            response.status, response.headers.get("Date"), await response.read(), (before + after) // 2
        )


def _versions(answer: _Answer) -> list[Any] | None:
    if answer.status != 200:
        return None
    try:
        content = orjson.loads(answer.body)
    except ValueError:
        return None
    versions = content.get("versions") if isinstance(content, Mapping) else None
    return versions if isinstance(versions, list) else None


def _clock(answer: _Answer) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.date or "").timestamp()
    except ValueError:
        return info("clock", "the homeserver's answer does not tell its time")
    seconds = round(answer.at / 1000 - theirs)
    if abs(seconds) <= CLOCK_SECONDS:
        return ok("clock", "ours and the homeserver's agree")
    ahead = "ahead of" if seconds > 0 else "behind"
    what = f"ours is {abs(seconds)} s {ahead} the homeserver's; receivers refuse webhooks that are 5 min off"
    return warning("clock", what, "Have both machines set their clocks by NTP (`timedatectl set-ntp true`).")


def _words(error: Exception) -> str:
    # The library's own words for this repeat the address three times.
    inner = error.os_error if isinstance(error, ClientConnectorError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__

"""Headers that an endpoint's owner may have sent with each webhook."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST = 20
"""How many an endpoint may have."""

MOST_CHARACTERS = 1024
"""How long the value of one may be."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", re.ASCII)

_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-tenant-id",
    }
)
_OUR_PREFIXES = ("content-", "webhook-")


def fault_in(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the name of the first header that cannot be sent and why, None where all can.

    Ours are those that say what is sent and who sends it, and those that steer the connection: with them a
    webhook could be made to look like another, or to smuggle a second request.
    """
    seen = set()
    for name, value in headers.items():
        lowered = name.lower()
        if not _NAME.fullmatch(name):
            return name, "A header's name is 1 to 64 letters, digits or hyphens."
        if lowered in _OURS or lowered.startswith(_OUR_PREFIXES):
            return name, "This service sets that header itself, or the connection needs it."
        if lowered in seen:
            return name, "This header is there twice; case does not matter."
        if len(value) > MOST_CHARACTERS or not _VALUE.fullmatch(value):
            return name, f"A header's value is 1 to {MOST_CHARACTERS} printable ASCII characters."
        seen.add(lowered)
    return None

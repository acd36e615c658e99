"""What a room says about its aliases: the content of ``m.room.canonical_alias``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def named_aliases(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the aliases that the content names, the main one first; odd values count as absent."""
    others = content.get("alt_aliases")
    listed = [content.get("alias"), *(others if isinstance(others, list) else [])]
    return tuple(alias for alias in listed if isinstance(alias, str) and alias)


def without_alias(content: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """Return the content that names the same aliases but for *alias*."""
    main = content.get("alias")
    others = [other for other in named_aliases(content) if other not in (main, alias)]
    kept = {"alias": main} if isinstance(main, str) and main and main != alias else {}
    return kept | ({"alt_aliases": others} if others else {})

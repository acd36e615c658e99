"""The rules for the two name templates that an admin may write: puppets' localparts and aliases.

A template is plain text with placeholders, such as ``openmeet_{tenant}_{user}``. Both must give
different names to different things, whatever tenants and slugs there are, and what they claim of the
homeserver must not hold other people's names: the registration's exclusive namespaces are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

RESERVED_ALIAS_PREFIX = "_"
"""Aliases on this prefix are the service's own (temporary locks, the control room)."""

_USER_LITERAL = re.compile(r"[a-z0-9._=/+-]*")
_PIECE = re.compile(r"\{([^{}]*)\}|([{}])|([^{}]+)")


def pieces(template: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of *template* in order, each with True where it is a placeholder's name.

    Raises
    ------
    ValueError
        A brace without its partner.
    """
    for name, brace, literal in _PIECE.findall(template):
        if brace:
            raise ValueError(f"holds a lone {brace}")
        yield (literal, False) if literal else (name, True)


def check_user_template(template: str) -> str:
    """Return *template* if it can name puppets.

    It begins with a text of its own: the namespace is exclusive, and one that begins with a placeholder would
    take in the accounts of ordinary people. Its letters are those of Matrix user ids (spec, appendix
    "User Identifiers").
    """
    found = list(pieces(template))
    _check_placeholders(found, ("tenant", "user"))
    for text, is_placeholder in found:
        if not is_placeholder and not _USER_LITERAL.fullmatch(text):
            raise ValueError("may hold a-z, 0-9 and . _ = / + - beside its placeholders")
    if found[0][1] or len(found[0][0]) < 2:
        raise ValueError(
            "must begin with two letters or more of its own, such as openmeet_, "
            "else it would claim the accounts of other people"
        )
    _check_parted(found, "tenant", "user")
    return template


def check_alias_template(template: str) -> str:
    """Return *template* if it can name rooms.

    Localparts of aliases hold no colon, white space or NUL (spec, appendix "Room Aliases"); ours are always
    lower-case.
    """
    found = list(pieces(template))
    _check_placeholders(found, ("kind", "slug", "tenant"))
    for text, is_placeholder in found:
        if not is_placeholder and re.search(r"[\s:#@\x00-\x1f\x7f]", text):
            raise ValueError("must not hold spaces, control characters or any of : # @")
        if not is_placeholder and text != text.lower():
            raise ValueError("must be lower-case: aliases are always made lower-case")
    if template.startswith(RESERVED_ALIAS_PREFIX):
        raise ValueError(
            f"must not begin with {RESERVED_ALIAS_PREFIX!r}: those aliases are the service's own"
        )
    _check_parted(found, "tenant", "slug")
    return template


def literal_length(template: str) -> int:
    """Return how many bytes of *template* are its own."""
    return sum(len(text.encode()) for text, is_placeholder in pieces(template) if not is_placeholder)


def _check_placeholders(found: Sequence[tuple[str, bool]], wanted: Sequence[str]) -> None:
    names = [text for text, is_placeholder in found if is_placeholder]
    for name in names:
        if name not in wanted:
            known = ", ".join(f"{{{one}}}" for one in wanted)
            raise ValueError(f"holds the unknown placeholder {{{name}}}; there are {known}")
    for name in wanted:
        if names.count(name) != 1:
            raise ValueError(f"must hold {{{name}}} {'once' if name in names else ''}".rstrip())


def _check_parted(found: Sequence[tuple[str, bool]], tenant: str, other: str) -> None:
    # A tenant id is of letters and digits only, so any other character between the two tells where it ends.
    names = [text if is_placeholder else None for text, is_placeholder in found]
    first, last = sorted((names.index(tenant), names.index(other)))
    between = "".join(text for text, is_placeholder in found[first:last] if not is_placeholder)
    if not re.search(r"[^A-Za-z0-9]", between):
        raise ValueError(
            f"must have something between {{{tenant}}} and {{{other}}} that is no letter or digit, "
            "such as '_' or '-', else two tenants could get the same name"
        )


def user_pattern(template: str) -> str:
    """Return a regular expression for the localparts that *template* can give to puppets."""
    return _pattern(template, {"tenant": "[a-z0-9]+", "user": "[a-z0-9._=/+-]+"})


def alias_pattern(template: str) -> str:
    """Return a regular expression for the alias localparts that *template* can give to rooms.

    Our aliases are lower-case, but Matrix compares aliases letter by letter and people type capitals: those
    are ours too, so that we are asked and nobody else can take them.
    """
    slug = "[A-Za-z0-9][A-Za-z0-9_.-]*"  # a cut slug holds a dot
    return _pattern(template, {"kind": "(event|group)", "slug": slug, "tenant": "[A-Za-z0-9]+"})


def matches(pattern: str, localpart: str) -> bool:
    """Tell whether the whole of *localpart* is as *pattern* says."""
    return re.fullmatch(pattern, localpart) is not None


def _pattern(template: str, placeholders: Mapping[str, str]) -> str:
    return "".join(
        placeholders[text] if is_placeholder else escaped(text) for text, is_placeholder in pieces(template)
    )


def escaped(text: str) -> str:
    """Return *text* for use in a regular expression; a hyphen needs no escape outside of brackets."""
    return re.escape(text).replace(r"\-", "-")


OWN_ALIAS_PATTERN = "_openmeet_[a-z0-9]+"
"""The service's own aliases: temporary locks while a room is made, and the control room."""

"""Ids, slugs, and the Matrix names made from them.

Tenant ids and slugs are kept as they were given and compared without regard to case. Localparts
are always lower-case: user ids must be (Matrix specification, appendix "User identifiers"), and
aliases are because Matrix compares them with regard to case and people do not.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass, field

from openmeet_appservice.errors import InvalidName

TENANT_ID = re.compile(r"[A-Za-z0-9]{1,64}")
"""What a tenant id looks like (use ``fullmatch``)."""

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
"""What the slug of a user, event or group looks like (use ``fullmatch``)."""

MAX_BYTES = 255
"""The longest user id or alias, sigil and server name included (Matrix specification, appendices)."""

CONTROL_ALIAS_LOCALPART = "_openmeet_control"
"""The alias of the bot's own control room."""

_TEMPORARY_PREFIX = "_openmeet_"
_CLAIM = re.compile(r"[a-z0-9]{16,64}")
_USER_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
_ALIAS_LITERAL = re.compile(r"[^\s:#@\x00-\x1f\x7f]*")
_CUT_MARK = "."
_HASH_DIGITS = 10
_ALIAS_PARTS = {"kind": "event|group", "slug": "[a-z0-9][a-z0-9_-]{0,254}", "tenant": "[a-z0-9]{1,64}"}
_ALIAS_FIELDS = frozenset(_ALIAS_PARTS)
_USER_FIELDS = frozenset({"tenant", "user"})


def check_tenant_id(text: str) -> str:
    """Return *text* if it is a tenant id, else raise `InvalidName`."""
    if not TENANT_ID.fullmatch(text):
        raise InvalidName("A tenant id is 1 to 64 letters (a-z, A-Z) and digits.")
    return text


def check_slug(text: str) -> str:
    """Return *text* if it is a slug, else raise `InvalidName`."""
    if not SLUG.fullmatch(text):
        raise InvalidName(
            "A slug is 1 to 255 letters (a-z, A-Z), digits, '_' and '-', and begins with a letter or digit."
        )
    return text


def key(text: str) -> str:
    """The form in which tenant ids and slugs are compared: ASCII letters in lower case."""
    return text.translate(_TO_LOWER)


_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def full_alias(localpart: str, server: str) -> str:
    """``#localpart:server``; raises `InvalidName` if that is longer than Matrix allows."""
    return _checked_length(f"#{localpart}:{server}")


def full_user_id(localpart: str, server: str) -> str:
    """``@localpart:server``; raises `InvalidName` if Matrix does not allow it."""
    if not _USER_LOCALPART.fullmatch(localpart):
        raise InvalidName("The part of a user id before ':' holds only a-z, 0-9 and ._=/+-")
    return _checked_length(f"@{localpart}:{server}")


def temporary_alias_localpart(claim: str) -> str:
    """The alias that locks a room which has no public one, while it is being made.

    *claim* is 16 to 64 lower-case letters and digits, at random. No template can produce the prefix.
    """
    if not _CLAIM.fullmatch(claim):
        raise InvalidName("A claim is 16 to 64 lower-case letters and digits.")
    return _TEMPORARY_PREFIX + claim


@dataclass(frozen=True, slots=True)
class AliasParts:
    """Of what an alias could be the alias; *tenant* and *slug* in lower case."""

    kind: str
    slug: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Template:
    """A template for localparts, such as ``{kind}-{slug}-{tenant}`` or ``openmeet_{tenant}_{user}``.

    Parameters
    ----------
    text
        Literal text and fields. An alias has ``{kind}``, ``{slug}`` and ``{tenant}``, a user id
        ``{tenant}`` and ``{user}``; which of the two it is, the fields say. Each field stands in it
        exactly once, so that different things never get one name by leaving a part out.
    server
        The server name, needed for the limit of 255 bytes.

    Raises
    ------
    InvalidName
        The text is no such template, or its literal parts are not allowed in such a name.
    """

    text: str
    server: str
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", _parse(self.text))

    @property
    def is_alias(self) -> bool:
        """Whether this makes aliases; otherwise it makes user ids."""
        return self.fields == _ALIAS_FIELDS

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields in the template."""
        return frozenset(name for _, name in self._parts if name is not None)

    def localpart(self, **values: str) -> str:
        """Fill the template, in lower case.

        Where the whole name would exceed 255 bytes the slug is cut and ends in ``.`` and ten digits
        of a hash of all of it. No slug holds a ``.``, so a cut name is never another slug's own.

        Raises
        ------
        InvalidName
            Not even a cut slug fits.
        TypeError
            *values* are not exactly the template's fields.
        """
        if values.keys() != self.fields:
            raise TypeError(f"this template needs exactly {sorted(self.fields)}")
        long = "slug" if self.is_alias else "user"
        lower = {name: key(value) for name, value in values.items()}
        rest = self._fill({**lower, long: ""})
        space = MAX_BYTES - len(f"#{rest}:{self.server}".encode())
        return self._fill({**lower, long: _cut(lower[long], space)})

    def alias(self, *, kind: str, slug: str, tenant: str) -> str:
        """The full alias of an event or group."""
        return full_alias(self.localpart(kind=kind, slug=slug, tenant=tenant), self.server)

    def read_alias(self, alias: str) -> AliasParts | None:
        """Return of what *alias* could be the alias, None if this template makes no such alias.

        Only a guess, good for asking OpenMeet: what was given out is stored and looked up. A slug that was
        cut cannot be guessed.
        """
        localpart, _, server = alias.removeprefix("#").partition(":")
        found = self._pattern().fullmatch(localpart) if alias.startswith("#") else None
        if found is None or server != self.server:
            return None
        parts = AliasParts(kind=found["kind"], slug=found["slug"], tenant=found["tenant"])
        try:
            made = self.alias(kind=parts.kind, slug=parts.slug, tenant=parts.tenant)
        except InvalidName:
            return None
        return parts if made == alias else None

    def _pattern(self) -> re.Pattern[str]:
        return re.compile(
            "".join(
                re.escape(literal) + ("" if name is None else f"(?P<{name}>{_ALIAS_PARTS[name]})")
                for literal, name in self._parts
            )
        )

    def user_id(self, *, tenant: str, user: str) -> str:
        """The full user id of somebody's puppet."""
        return full_user_id(self.localpart(tenant=tenant, user=user), self.server)

    def _fill(self, values: dict[str, str]) -> str:
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self._parts)


def _parse(text: str) -> tuple[tuple[str, str | None], ...]:
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as fault:
        raise InvalidName(f"The template {text!r} has a lone brace.") from fault
    names = [name for _, name, _, _ in found if name is not None]
    if sorted(names) not in (sorted(_ALIAS_FIELDS), sorted(_USER_FIELDS)):
        raise InvalidName(
            f"The template {text!r} must hold each of {{kind}}, {{slug}}, {{tenant}} (an alias) "
            "or each of {tenant}, {user} (a user id) exactly once, and no other field."
        )
    if any(form or conversion for _, _, form, conversion in found):
        raise InvalidName(f"The fields of the template {text!r} take no format.")
    parts = tuple((key(literal), name) for literal, name, _, _ in found)
    is_alias = "slug" in names
    literals = "".join(literal for literal, _ in parts)
    if literals and not (_ALIAS_LITERAL if is_alias else _USER_LOCALPART).fullmatch(literals):
        raise InvalidName(f"The template {text!r} holds characters that are not allowed there.")
    if is_alias and parts[0][0].startswith("_"):
        raise InvalidName(f"The template {text!r} must not begin with '_': that is kept for locks.")
    return parts


def _cut(slug: str, space: int) -> str:
    """*slug* in at most *space* characters (it is ASCII)."""
    if len(slug) <= space:
        return slug
    kept = space - len(_CUT_MARK) - _HASH_DIGITS
    if kept < 1:
        raise InvalidName("The server name, tenant id and template leave no place for a slug.")
    digest = hashlib.blake2s(slug.encode()).hexdigest()[:_HASH_DIGITS]
    return slug[:kept] + _CUT_MARK + digest


def _checked_length(name: str) -> str:
    if len(name.encode()) > MAX_BYTES:
        raise InvalidName(f"A name on Matrix has at most {MAX_BYTES} bytes, ':' and server included.")
    return name

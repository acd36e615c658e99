"""Page tokens: where a list goes on, as text that means nothing to the caller.

A token holds the sort key of the last item shown, so a page costs the same wherever it is and no item is
shown twice or left out because others came or went. It grants nothing: the tenant is never part of it.
"""

from __future__ import annotations

import base64
import binascii

import orjson

from openmeet_appservice.errors import FieldError, Invalid

_MAX_INTEGER = 2**63 - 1


def encode_page_token(*key: str | int) -> str:
    """Return the token that stands for the sort key of a page's last item."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def decode_page_token(token: str, *types: type[str] | type[int]) -> tuple[str | int, ...]:
    """Return the sort key in *token*, whose parts must have these *types*.

    Raises
    ------
    Invalid
        The token is not one that `encode_page_token` makes for such a key.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        key = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise _bad_token() from None
    if not isinstance(key, list) or len(key) != len(types):
        raise _bad_token()
    if not all(_fits(part, kind) for part, kind in zip(key, types, strict=True)):
        raise _bad_token()
    return tuple(key)


def _fits(part: object, kind: type[str] | type[int]) -> bool:
    if type(part) is not kind:
        return False
    if isinstance(part, int):
        return -_MAX_INTEGER <= part <= _MAX_INTEGER
    return isinstance(part, str) and "\0" not in part


def _bad_token() -> Invalid:
    fault = FieldError(
        "?page_token", "invalid_value", "Not a token of this list: give next_page_token unchanged."
    )
    return Invalid(errors=[fault])

"""Cutting what the store returned into a page and its token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from openmeet_appservice.web.models import PageQuery
from openmeet_appservice.web.paging import decode_page_token, encode_page_token
from openmeet_appservice.web.routes import Request

T = TypeVar("T")


def bounds(request: Request) -> tuple[str | None, int]:
    """Return after which key the page begins, and how many items to read: one more than it shows.

    Raises `Invalid` where the page token is not one of ours.
    """
    query = request.query_as(PageQuery)
    if query.page_token is None:
        return None, query.limit + 1
    (after,) = decode_page_token(query.page_token, str)
    return str(after), query.limit + 1


def cut(request: Request, found: Sequence[T], key: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Return the items of the page, and the token of the next one if the store had more."""
    limit = request.query_as(PageQuery).limit
    if len(found) <= limit:
        return found, None
    return found[:limit], encode_page_token(key(found[limit - 1]))

"""Entity tags and ``If-Match`` (RFC 9110 §8.8.3, §13.1.1)."""

from __future__ import annotations

import re

from openmeet_appservice.errors import BadRequest, PreconditionFailed

_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_LIST = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*", re.ASCII)
_ONE = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"', re.ASCII)


def quoted(etag: str) -> str:
    """Return *etag* as the ``ETag`` header shows it: a strong tag, in quotes."""
    return f'"{etag}"'


def check_if_match(header: str | None, etag: str | None) -> None:
    """Return if a request with this ``If-Match`` *header* may change what now has *etag*.

    Parameters
    ----------
    header
        The raw header; None where the request had none, which always passes.
    etag
        The present tag without quotes; None where the thing does not exist.

    Raises
    ------
    PreconditionFailed
        None of the tags is the present one. A weak tag never is: ``If-Match`` compares strongly.
    BadRequest
        The header is neither ``*`` nor a list of quoted tags.
    """
    if header is None:
        return
    wanted = header.strip()
    if wanted == "*":
        matches = etag is not None
    elif _LIST.fullmatch(wanted):
        strong = {tag for weak, tag in _ONE.findall(wanted) if not weak}
        matches = etag in strong
    else:
        raise BadRequest('If-Match takes entity tags in quotes, such as "abc", or *.', code="bad_if_match")
    if not matches:
        raise PreconditionFailed

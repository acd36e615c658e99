"""API keys, and who may call what.

A key is opaque and random; only its SHA-256 is stored, so the database shows none, and comparing digests
leaks nothing about the key through time. What a key may do is found by its digest, never read from its
text: the prefix is for people and for scanners that look for leaked secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Protocol

from openmeet_appservice.domain.names import key as folded
from openmeet_appservice.errors import Forbidden, NotAuthenticated, NotFound
from openmeet_appservice.web.routes import Access, Caller, Scope

_BEARER = re.compile(r"bearer +([A-Za-z0-9_-]{1,256})", re.IGNORECASE | re.ASCII)
_RANDOM_PART = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)
_LEAST_DIFFERENT = 8


class KeyLookup(Protocol):
    """Finds whose key has a digest."""

    async def __call__(self, digest: str) -> Caller | None:
        """Return the caller whose key has this SHA-256 (hex), None where no valid key has."""


def new_key(scope: Scope, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a fresh key of *scope*, with 256 random bits."""
    return f"omk_{scope.value}_{random_bytes(32).hex()}"


def check_supplied_key(scope: Scope, key: str) -> str:
    """Return *key*, which somebody else made, if it is fit to be a key of *scope*.

    Raises
    ------
    ValueError
        It has another form, or its random part has fewer than 32 characters or hardly any different
        ones. The message never shows the key.
    """
    prefix = f"omk_{scope.value}_"
    random_part = key.removeprefix(prefix)
    if not key.startswith(prefix) or not _RANDOM_PART.fullmatch(random_part):
        raise ValueError(f"a key is {prefix} and then 32 to 128 random letters, digits, '_' or '-'")
    if len(set(random_part)) < _LEAST_DIFFERENT:
        raise ValueError(f"what follows {prefix} is not random")
    return key


def digest(key: str) -> str:
    """Return what is stored of a key: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


async def authenticate(authorization: list[str], lookup: KeyLookup) -> Caller:
    """Return whose key the request's ``Authorization`` headers hold.

    Raises
    ------
    NotAuthenticated
        There is not exactly one header of the form ``Bearer <key>`` (RFC 6750), or nobody has the key.
    """
    if len(authorization) != 1:
        raise NotAuthenticated
    found = _BEARER.fullmatch(authorization[0].strip())
    if found is None:
        raise NotAuthenticated
    caller = await lookup(digest(found[1]))
    if caller is None:
        raise NotAuthenticated("Nobody has this API key, or it was revoked.", code="unknown_key")
    return caller


def authorize(caller: Caller, access: Access, path_tenant: str | None) -> None:
    """Return if *caller* may call a route of *access* that names *path_tenant*.

    A tenant's key must not be able to tell which other tenants exist, so their objects are simply not
    there for it; routes that are no tenant's business say so, whichever tenant they name.

    Raises
    ------
    Forbidden
        The route needs a key of a wider scope.
    NotFound
        The route is fit for this kind of key, but names another tenant.
    """
    if caller.scope is Scope.ADMIN or access is Access.ANYONE_WITH_KEY:
        return
    if access is Access.ADMIN:
        raise Forbidden("Only the admin key may do that.")
    if caller.scope is Scope.PLATFORM:
        return
    if access is Access.PLATFORM:
        raise Forbidden("Only a platform key or the admin key may do that.")
    if path_tenant is None or caller.tenant is None or folded(path_tenant) != caller.tenant:
        raise NotFound

"""How an endpoint is named inside: by whose it is and its id."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import and_
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.tables import endpoints

EndpointKey: TypeAlias = tuple[str, str]
"""``(owner, endpoint_ref)``; the owner is a tenant, or `PLATFORM`."""

PLATFORM = ""
"""The owner of the platform's endpoints."""

EPOCHS = 1 << 32
"""So many epochs of its lanes' leases has each revision of an endpoint. Lanes are given up only by a new
revision, so one that is made anew has no epoch of the one before, and takes no late result for its own."""


def is_endpoint(endpoint: EndpointKey) -> ColumnElement[bool]:
    """Return whether a row of ``endpoints`` is this one, as SQL."""
    owner, ref = endpoint
    return and_(endpoints.c.tenant == owner, endpoints.c.id == ref)

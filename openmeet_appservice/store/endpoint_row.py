"""An endpoint as it stands in its row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.store import breaker
from openmeet_appservice.store.endpoint_key import PLATFORM, EndpointKey
from openmeet_appservice.store.secretbox import SecretBox

STATES = ("active", "paused", "disabled", "breaker_open")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What OpenMeet says of an endpoint, besides its secret.

    Parameters
    ----------
    types
        The types of webhooks it takes; None: all.
    headers
        Sent with each, by name, the values encrypted as one text; None: none.
    max_batch, max_batch_bytes, on_exhausted
        None: as the configuration says.
    tenants
        Of the platform's: whose events it gets, by their ids as first given, sorted; None: everybody's.
    """

    url: str
    types: tuple[str, ...] | None = None
    headers: str | None = None
    max_batch: int | None = None
    max_batch_bytes: int | None = None
    on_exhausted: str | None = None
    tenants: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint. Secrets are encrypted; moments are milliseconds since the epoch.

    Parameters
    ----------
    owner
        The tenant, or `PLATFORM`.
    old_secret, old_secret_until
        The secret of before, which signs as well until then.
    """

    owner: str
    ref: str
    name: str
    wanted: Wanted
    secret: str
    revision: int
    created_at: int
    updated_at: int
    old_secret: str | None = None
    old_secret_until: int | None = None
    paused_at: int | None = None
    disabled_at: int | None = None
    rest_until: int | None = None
    breaker: str = breaker.CLOSED
    breaker_failures: int = 0
    breaker_until: int | None = None

    @property
    def key(self) -> EndpointKey:
        """How it is named inside."""
        return self.owner, self.ref

    @property
    def state(self) -> str:
        """One of `STATES`, for people and metrics."""
        if self.disabled_at is not None:
            return "disabled"
        if self.paused_at is not None:
            return "paused"
        return "active" if self.breaker == breaker.CLOSED else "breaker_open"


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What is stored encrypted: its headers, and the secrets that sign now, the newest first."""

    secrets: tuple[str, ...]
    headers: Mapping[str, str]


def unseal(endpoint: Endpoint, box: SecretBox, *, now: int) -> Unsealed:
    """Decrypt what is needed to send to the endpoint *now* (milliseconds since the epoch).

    Raises
    ------
    SecretUnreadable
        No key that we have opens it.
    """
    secrets = [box.open(endpoint.secret)]
    if endpoint.old_secret is not None and now < (endpoint.old_secret_until or 0):
        secrets.append(box.open(endpoint.old_secret))
    sealed = endpoint.wanted.headers
    return Unsealed(tuple(secrets), {} if sealed is None else json.loads(box.open(sealed)))


def read_row(row: Row[Any]) -> Endpoint:
    """Return the endpoint that a row holds; its ``wanted.tenants`` are not read."""
    return Endpoint(
        owner=row.tenant,
        ref=row.id,
        name=row.name,
        wanted=Wanted(
            url=row.url,
            types=None if row.types is None else tuple(json.loads(row.types)),
            headers=row.headers,
            max_batch=row.max_batch,
            max_batch_bytes=row.max_batch_bytes,
            on_exhausted=row.on_exhausted,
            tenants=() if row.tenant == PLATFORM and not row.every_tenant else None,
        ),
        secret=row.secret,
        old_secret=row.old_secret,
        old_secret_until=row.old_secret_until,
        paused_at=row.paused_at,
        disabled_at=row.disabled_at,
        rest_until=row.rest_until,
        breaker=row.breaker,
        breaker_failures=row.breaker_failures,
        breaker_until=row.breaker_until,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def values(endpoint: Endpoint) -> dict[str, object]:
    """Return what to write of it: all but what `store.breaker` keeps, which a worker may be changing."""
    wanted = endpoint.wanted
    return {
        "url": wanted.url,
        "types": None if wanted.types is None else json.dumps(wanted.types),
        "takes_events": wanted.types is None or ROOM_EVENTS in wanted.types,
        "every_tenant": endpoint.owner == PLATFORM and wanted.tenants is None,
        "headers": wanted.headers,
        "max_batch": wanted.max_batch,
        "max_batch_bytes": wanted.max_batch_bytes,
        "on_exhausted": wanted.on_exhausted,
        "secret": endpoint.secret,
        "old_secret": endpoint.old_secret,
        "old_secret_until": endpoint.old_secret_until,
        "paused_at": endpoint.paused_at,
        "revision": endpoint.revision,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    }

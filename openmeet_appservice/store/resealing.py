"""Replacing an encryption key: what an older key has encrypted is encrypted anew with the first.

It goes through the endpoints a page at a time. What was read is decrypted and encrypted outside any
transaction, and replaces only the very text that was read: whoever writes a new secret in between wins. So
it may be cut off anywhere and begun again, and several processes may do it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, tuple_, update

from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import endpoints, tenants

log = logging.getLogger(__name__)

PAGE = 100
"""How many endpoints are read, and written, in one transaction."""

COLUMNS = ("secret", "old_secret", "headers")
"""What of an endpoint is encrypted."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an endpoint has encrypted, by column. *tenant_id* is as given, empty for the platform's."""

    key: EndpointKey
    tenant_id: str
    name: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Under which keys the endpoints are.

    Attributes
    ----------
    texts
        How many encrypted texts there are.
    older
        How many of them are under another key than the first.
    lost
        Tenant (as given, empty for the platform's) and name of the endpoints with a text that no key opens.
    """

    texts: int
    older: int
    lost: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Change:
    key: EndpointKey
    column: str
    old: str
    new: str


async def reseal(database: Database, box: SecretBox) -> int:
    """Encrypt anew whatever is not under the first key; return how many texts that were.

    What no key opens is left as it is, and logged.

    Raises
    ------
    DatabaseUnavailable
        The database went away; what was done stays done.
    """
    done = 0
    after: EndpointKey | None = None
    while found := await database.read(page, after=after):
        changes = [change for endpoint in found for change in _changes(endpoint, box)]
        if changes:
            done += await database.write(_replace, changes)
        after = found[-1].key
    if done:
        log.info("%d secrets were encrypted anew with the first of security.encryption_keys", done)
    return done


async def standing(database: Database, box: SecretBox) -> Standing:
    """Return under which keys everything is."""
    texts = older = 0
    lost: list[tuple[str, str]] = []
    after: EndpointKey | None = None
    while found := await database.read(page, after=after):
        for endpoint in found:
            keys = [box.key_of(text) for _, text in endpoint.texts]
            texts += len(keys)
            older += sum(1 for key in keys if key)
            if None in keys:
                lost.append((endpoint.tenant_id, endpoint.name))
        after = found[-1].key
    return Standing(texts, older, tuple(lost))


def page(connection: Connection, *, after: EndpointKey | None = None, limit: int = PAGE) -> list[Sealed]:
    """Return up to *limit* endpoints of whichever owner, in the order of their keys, those behind *after*."""
    query = (
        select(
            endpoints.c.tenant,
            endpoints.c.id,
            endpoints.c.name,
            tenants.c.tenant_id,
            *(endpoints.c[column] for column in COLUMNS),
        )
        .outerjoin(tenants, tenants.c.tenant == endpoints.c.tenant)
        .order_by(endpoints.c.tenant, endpoints.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(endpoints.c.tenant, endpoints.c.id) > after)
    return [
        Sealed(
            (row.tenant, row.id),
            row.tenant_id or "",
            row.name,
            tuple((column, text) for column in COLUMNS if (text := getattr(row, column)) is not None),
        )
        for row in connection.execute(query)
    ]


def _changes(endpoint: Sealed, box: SecretBox) -> list[_Change]:
    changes: list[_Change] = []
    for column, text in endpoint.texts:
        key = box.key_of(text)
        if key is None:
            log.error(
                "%s of the webhook endpoint %s of %s opens with none of security.encryption_keys",
                column,
                endpoint.name,
                endpoint.tenant_id or "the platform",
            )
        elif key:
            changes.append(_Change(endpoint.key, column, text, box.seal(box.open(text))))
    return changes


def _replace(connection: Connection, changes: Sequence[_Change]) -> int:
    done = 0
    for change in changes:
        column = endpoints.c[change.column]
        owner, ref = change.key
        found = connection.execute(
            update(endpoints)
            .where(endpoints.c.tenant == owner, endpoints.c.id == ref, column == change.old)
            .values({change.column: change.new})
        )
        done += found.rowcount
    return done

"""Taking a slug, giving it up for another, and telling who has gone to where."""

from __future__ import annotations

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import Conflict, NotFound
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import entities, former_slugs, sync
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.tenants import Tenant


def take(
    connection: Connection, parts: Parts, tenant: Tenant, kind: EntityKind, slug: str, *, now: int
) -> str | None:
    """Return the alias of a slug, which nobody else can take any more; None where something live has it.

    What was called so before a renaming loses it.

    Raises
    ------
    Conflict
        The alias belongs to something with another slug, by another template.
    """
    alias = parts.aliases.alias(kind=kind.value, slug=slug, tenant=tenant.tenant)
    # The lock on the alias comes first: whoever gave the slug up a moment ago is known after it.
    entities.lock_alias(connection, alias)
    known = entities.find(connection, tenant.tenant, kind, slug)
    if known is not None and known.archived_at is None:
        return None
    loser = former_slugs.release(connection, tenant.tenant, kind, slug)
    if loser is not None:
        sync.poke(connection, tenant.tenant, "entity", loser, now=now)
    if not entities.alias_is_free(connection, alias):
        raise Conflict(f"The alias {alias} belongs to something else.", code="alias_taken")
    return alias


def renamed(connection: Connection, tenant: Tenant, kind: EntityKind, slug: str) -> Entity | None:
    """Return what was called *slug*, if nothing else has taken that since."""
    ref = former_slugs.holder(connection, tenant.tenant, kind, slug)
    return None if ref is None else entities.get(connection, tenant.tenant, ref)


def no_entity(connection: Connection, tenant: Tenant, kind: EntityKind, slug: str) -> NotFound:
    """Return the refusal for what is unknown, with the new slug of an event or group that was renamed."""
    known = renamed(connection, tenant, kind, slug)
    what = "direct room" if kind is EntityKind.DIRECT else kind
    detail = f"There is no such {what}."
    if known is not None:
        detail = f"This {kind} is called {known.slug} now."
    return NotFound(detail, code=f"{kind}_not_found")


def is_same(one: str, other: str) -> bool:
    """Whether two slugs are the same, case aside."""
    return key(one) == key(other)

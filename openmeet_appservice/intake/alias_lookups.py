"""Aliases that nobody has provisioned: OpenMeet is asked, by way of the store, before the answer is no.

Anybody can cause this, with no account at all. So only what the template could have made for a tenant that
there is gets that far, only so often, and what OpenMeet did not know is not asked again for a minute. An
unknown tenant leaves nothing behind at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.tenant_settings import LookupSettings, lookup_settings
from openmeet_appservice.store import alias_lookups, queries, tenants
from openmeet_appservice.store.alias_lookups import AliasLookup, State
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.queries import AliasOwner
from openmeet_appservice.store.wakeups import Wakeups

log = logging.getLogger(__name__)

BURST = 20
"""How many look-ups of one tenant strangers can cause at once."""

PER_SECOND = 2.0
"""How many they can cause for good."""

LOOK_AGAIN = 0.5
"""Seconds after which a waiting query looks by itself, for a wake-up may be lost."""


@dataclass(slots=True)
class Allowance:
    """How many look-ups may still be begun: some at once, and so many more each second.

    *clock* counts seconds.
    """

    clock: Callable[[], float]
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, tenant: str) -> bool:
        """Return whether one more may be begun for the tenant, of which there are only known ones."""
        now = self.clock()
        left, at = self._left.get(tenant, (float(BURST), now))
        left = min(float(BURST), left + (now - at) * PER_SECOND)
        self._left[tenant] = (left - 1 if left >= 1 else left, now)
        return left >= 1


@dataclass(frozen=True, slots=True)
class AliasLookups:
    """Has aliases looked up.

    Parameters
    ----------
    template
        Makes our aliases.
    defaults
        How OpenMeet is asked about tenants that chose nothing themselves.
    allowance
        How often.
    now, clock
        Milliseconds since the epoch; seconds that never go back.
    """

    database: Database
    wakeups: Wakeups
    template: Template
    defaults: LookupSettings
    allowance: Allowance
    now: Now
    clock: Callable[[], float]

    async def owner(self, alias: str) -> AliasOwner | None:
        """Return the entity that OpenMeet says the alias is for, once it is stored; None: there is none."""
        parts = self.template.read_alias(alias)
        if parts is None:
            return None
        tenant = await self.database.read(tenants.get, parts.tenant)
        if tenant is None:
            return None
        settings = lookup_settings(self.defaults, tenant.settings)
        if settings.url is None or not self.allowance.take(tenant.tenant):
            return None
        wanted = AliasLookup(tenant.tenant, EntityKind(parts.kind), parts.slug)
        until = self.clock() + settings.alias_timeout
        now = self.now()
        asked = await self.database.write(
            alias_lookups.ask, wanted, now=now, wait_until=now + round(settings.alias_timeout * 1000)
        )
        if asked is State.ABSENT:
            return None
        log.info(
            "somebody looks for %s, which nobody has provisioned", alias, extra={"tenant": tenant.tenant}
        )
        # The ticket before the look: what is done in between must not be waited for.
        ticket = self.wakeups.ticket("looked_up")
        self.wakeups.wake("look_up")
        while True:
            owner = await self.database.read(queries.alias_owner, alias)
            left = until - self.clock()
            if owner is not None or left <= 0:
                return owner
            if await self.database.read(alias_lookups.state, wanted, now=self.now()) is not State.WAITING:
                return await self.database.read(queries.alias_owner, alias)
            await self.wakeups.wait("looked_up", ticket, timeout=min(left, LOOK_AGAIN))
            ticket = self.wakeups.ticket("looked_up")

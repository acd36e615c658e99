"""Look-up endpoints: each is asked, signed, about something that cannot be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openmeet_appservice.domain.tenant_settings import lookup_settings
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning
from openmeet_appservice.provisioning.lookup import Absent, Found, Lookup, Outcome
from openmeet_appservice.store.tenants import Tenant

MOST = 20
"""How many endpoints are asked."""

_REMEDIES = {
    "no_answer": "See whether OpenMeet runs and is reached from here; what is private has to be in "
    "`webhooks.allowed_networks` or `webhooks.allowed_hosts`.",
    "refused": "Give OpenMeet's look-up controller the secret of `lookup.secrets` (a tenant's own URL has "
    "one of its own), and see that the URL is the final one.",
    "failed": "OpenMeet's log says why.",
    "not_configured": "Put a secret into `lookup.secrets`.",
    "invalid": "It has to answer 404 to what it does not know, and otherwise exactly what "
    "docs/openmeet-integration.md shows.",
}


@dataclass(frozen=True, slots=True)
class LookupTest:
    """Asks.

    Parameters
    ----------
    new_name
        Makes a fresh random name, so that nothing can have it.
    """

    lookup: Lookup
    new_name: Callable[[], str]

    async def check(self, tenants: Sequence[Tenant]) -> list[Finding]:
        """Ask each endpoint once, about the first tenant that it is for."""
        asked: dict[str, Tenant] = {}
        for tenant in tenants:
            url = lookup_settings(self.lookup.defaults, tenant.settings).url
            if url is not None:
                asked.setdefault(url, tenant)
        if not asked:
            return [self._nothing(bool(tenants))]
        return [await self._check(tenant) for tenant in list(asked.values())[:MOST]]

    def _nothing(self, has_tenants: bool) -> Finding:
        if self.lookup.defaults.url is None:
            remedy = "Set `lookup.url`, so that hints and aliases nobody has provisioned can be looked up."
            return info("look-ups", "there is no lookup.url, so OpenMeet is asked about nothing", remedy)
        return info("look-ups", "there is no tenant to ask about", "Make one with `tenant add`.")

    async def _check(self, tenant: Tenant) -> Finding:
        own = lookup_settings(self.lookup.defaults, tenant.settings).own
        name = f"look-ups of {tenant.tenant_id}" if own else "look-ups"
        outcome = await self.lookup.ask(tenant, "event", f"doctor-{self.new_name()}", reason="doctor")
        return _verdict(name, outcome)


def _verdict(name: str, outcome: Outcome) -> Finding:
    if isinstance(outcome, Absent):
        return ok(name, "OpenMeet answered a signed question about something that is not there with 404")
    if isinstance(outcome, Found):
        remedy = "It must answer 404 to what it does not know, else rooms are made for anything."
        return problem(name, "OpenMeet told of something that cannot be there", remedy)
    finding = warning if outcome.result == "failed" else problem
    what = f"OpenMeet could not be asked: {outcome.detail}"
    return finding(name, what, _REMEDIES[outcome.result])

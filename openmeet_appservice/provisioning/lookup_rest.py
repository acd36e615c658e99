"""Leaving an endpoint alone that gives no usable answers, and letting no tenant take all the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from openmeet_appservice.domain.moments import Now

FIRST_REST = 2_000
LONGEST_REST = 300_000
"""Milliseconds for which a tenant's endpoint is left alone: the first time, and at most."""

AT_ONCE = 4
"""How many questions about one tenant may be on their way at once."""


@dataclass(slots=True)
class Rests:
    """Which tenants are not to be asked about just now. In memory: a new process finds out for itself.

    Parameters
    ----------
    now, random
        Milliseconds since the epoch; a number in [0, 1).
    """

    now: Now
    random: Callable[[], float]
    _failures: Counter[str] = field(default_factory=Counter)
    _until: dict[str, int] = field(default_factory=dict)
    _busy: Counter[str] = field(default_factory=Counter)

    def begin(self, tenant: str) -> None:
        """Note that a question is on its way."""
        self._busy[tenant] += 1

    def end(self, tenant: str) -> None:
        """Note that it is no longer."""
        self._busy[tenant] -= 1
        if self._busy[tenant] <= 0:
            del self._busy[tenant]

    def answered(self, tenant: str) -> None:
        """Note that the endpoint answers."""
        self._failures.pop(tenant, None)
        self._until.pop(tenant, None)

    def failed(self, tenant: str, retry_after: float) -> int:
        """Note that it does not, or asks to be left alone for *retry_after* seconds; return until when it is.

        Several questions that fail together count once.
        """
        if (until := self._until.get(tenant, 0)) > self.now():
            return until
        self._failures[tenant] += 1
        full = min(LONGEST_REST, FIRST_REST << min(self._failures[tenant] - 1, 10))
        asked = min(LONGEST_REST, retry_after * 1000)
        until = self.now() + round(max(full * (0.5 + self.random() / 2), asked))
        self._until[tenant] = until
        return until

    def resting(self) -> set[str]:
        """Return the tenants to leave alone."""
        now = self.now()
        probing = {tenant for tenant in self._failures if self._busy[tenant]}
        busy = {tenant for tenant, number in self._busy.items() if number >= AT_ONCE}
        return busy | probing | {tenant for tenant, until in self._until.items() if until > now}

    def next_end(self) -> int | None:
        """Return when the next rest ends (milliseconds since the epoch)."""
        now = self.now()
        return min((until for until in self._until.values() if until > now), default=None)

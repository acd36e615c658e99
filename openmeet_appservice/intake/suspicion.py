"""Signs that Synapse may have lost events, gathered from everywhere for gap repair.

Synapse keeps events in memory while one transaction is under way, and forgets them when it is restarted, in
order or not. Whoever sees a sign of that says so here, at no cost; `intake.gap_repair` does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from openmeet_appservice.domain.arrival import Arrival
from openmeet_appservice.metrics import REPAIR_SUSPICIONS

log = logging.getLogger(__name__)

LATE_MS = 30_000
"""From what age in milliseconds on a pushed event is one that Synapse had kept for a while."""

MOST_IN_LINE = 1024

Reason = Literal["start", "homeserver", "not_stored", "hung_up", "transaction_id", "late"]
"""``start``: we have just begun, and do not know what was before. ``homeserver``: it could not be reached,
or failed inside. ``not_stored``: a transaction was answered 5xx. ``hung_up``: whoever sent one was gone
before the answer. ``transaction_id``: the ids do not go up by one. ``late``: Synapse pushes what it kept."""


@dataclass(slots=True)
class TransactionIds:
    """Tells by their ids whether transactions come as they should.

    Synapse numbers its transactions one by one, for all its application services together. A number that
    is repeated or goes back means that it was restarted or could not reach us. One that was left out is a
    transaction for somebody else, or one of ours that was not sent again. So it is only taken for a sign
    where numbers use to go up by one, and each such sign doubles how many have to before the next.
    """

    _last: int | None = None
    _in_line: int = 0
    _enough: int = 2

    def are_odd(self, txn_id: str) -> bool:
        """Take note of a transaction's id; tell whether it is a sign that something was lost."""
        if not txn_id.isascii() or not txn_id.isdigit() or len(txn_id) > 18:
            return False
        number, last = int(txn_id), self._last
        self._last = number
        if last is None:
            return False
        if number == last + 1:
            self._in_line += 1
            return False
        in_line, self._in_line = self._in_line, 0
        if number <= last:
            return True
        if in_line < self._enough:
            return False
        self._enough = min(self._enough * 2, MOST_IN_LINE)
        return True


@dataclass(slots=True)
class Suspicion:
    """Whether events may have been lost since somebody last asked."""

    _ids: TransactionIds = field(default_factory=TransactionIds)
    _reasons: set[Reason] = field(default_factory=set)
    _raised: asyncio.Event = field(default_factory=asyncio.Event)
    _late: bool = False

    def suspect(self, reason: Reason) -> None:
        """Say that events may have been lost."""
        if reason in self._reasons:
            return
        self._reasons.add(reason)
        REPAIR_SUSPICIONS.labels(reason).inc()
        log.debug("Synapse may have lost events: %s", reason)
        self._raised.set()

    def transaction(self, txn_id: str, arrivals: Iterable[Arrival]) -> None:
        """Take note of a transaction that was pushed."""
        if self._ids.are_odd(txn_id):
            self.suspect("transaction_id")
        if any(arrival.age is not None and arrival.age >= LATE_MS for arrival in arrivals):
            self._late = True
            self.suspect("late")

    def take(self) -> bool:
        """Tell whether there was a sign, and forget it."""
        found = bool(self._reasons)
        self._reasons.clear()
        self._raised.clear()
        return found

    def take_late(self) -> bool:
        """Tell whether Synapse has pushed something that it had kept, and forget it."""
        was, self._late = self._late, False
        return was

    async def wait(self, seconds: float) -> None:
        """Wait for a sign, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._raised.wait()
        except TimeoutError:
            return

"""What a failure is called, and how long it waits."""

from __future__ import annotations

import asyncio

import pytest

from openmeet_appservice.errors import (
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
    NotReconciled,
)
from openmeet_appservice.reconciler import failures
from openmeet_appservice.reconciler.outage import Outage


def full(attempts: int, error: Exception | None = None) -> int:
    """The wait without what chance takes off."""
    return failures.describe(error or NotReconciled("x", "y"), attempts, lambda: 1.0).wait_ms


def test_the_wait_doubles_up_to_five_minutes() -> None:
    assert [full(attempts) for attempts in range(4)] == [1_000, 2_000, 4_000, 8_000]
    assert full(9) == full(10_000) == 300_000
    assert failures.backoff_ms(3, lambda: 0.0) == 4_000


def test_without_an_answer_it_never_waits_long() -> None:
    assert full(2, HomeserverUnreachable("away")) == 4_000
    assert full(50, HomeserverUnreachable("away")) == 15_000
    assert full(50, HomeserverRefused(401, "M_UNKNOWN_TOKEN", "who?")) == 15_000
    assert full(50, HomeserverRefused(403, "M_FORBIDDEN", "no")) == 300_000


def test_the_homeserver_may_ask_for_more_patience_but_not_for_less() -> None:
    assert full(0, HomeserverLimited("M_LIMIT_EXCEEDED", "slow down", 90.0)) == 90_000
    assert full(5, HomeserverLimited("M_LIMIT_EXCEEDED", "slow down", 1.0)) == 32_000
    assert full(1, HomeserverLimited("M_LIMIT_EXCEEDED", "slow down", None)) == 2_000


def test_what_needs_a_person_waits_an_hour() -> None:
    assert full(0, NotReconciled("mass_removal_held", "many", patient=True)) == 3_600_000


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HomeserverUnreachable("away"), "homeserver_unreachable"),
        (HomeserverRefused(401, "M_UNKNOWN_TOKEN", "who?"), "as_token_refused"),
        (HomeserverRefused(403, "M_FORBIDDEN", "no"), "homeserver_refused"),
        (HomeserverLimited("M_LIMIT_EXCEEDED", "slow down", None), "homeserver_limited"),
        (NotReconciled("alias_taken", "it is"), "alias_taken"),
        (KeyError("secret detail"), "internal_error"),
    ],
)
def test_codes(error: Exception, code: str) -> None:
    failure = failures.describe(error, 0, lambda: 0.5)
    assert failure.code == code
    assert "secret detail" not in failure.detail


class Probe:
    """A probe that fails as often as it is told; counts when the outage ended."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []
        self.ended = 0

    async def __call__(self) -> None:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)

    async def end(self) -> None:
        """Take note."""
        self.ended += 1

    async def sleep(self, seconds: float) -> None:
        """Take note, and take no time."""
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def outage(self) -> Outage:
        """Make the outage that this probes for."""
        return Outage(self, self.end, sleep=self.sleep, random_number=lambda: 1.0)


async def finished(outage: Outage) -> None:
    """Let the prober come to its end."""
    task = outage._prober
    assert task is not None
    async with asyncio.timeout(5):
        await task


async def test_one_request_without_an_answer_is_no_outage() -> None:
    probe = Probe()
    outage = probe.outage()
    outage.suspect(HomeserverUnreachable("a slow one"))
    await finished(outage)
    assert (outage.reason, probe.ended, probe.pauses) == (None, 0, [])


async def test_an_outage_ends_once_with_longer_and_longer_pauses() -> None:
    probe = Probe(*[HomeserverUnreachable("away")] * 8)
    outage = probe.outage()
    outage.suspect(HomeserverUnreachable("away"))
    outage.suspect(HomeserverUnreachable("away"))
    await finished(outage)
    assert (outage.reason, probe.ended) == (None, 1)
    assert probe.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


async def test_what_failed_before_the_start_is_tried_again() -> None:
    probe = Probe()
    outage = probe.outage()
    outage.start()
    await finished(outage)
    assert probe.ended == 1


async def test_a_refusal_is_an_answer() -> None:
    probe = Probe(HomeserverRefused(403, "M_FORBIDDEN", "no"))
    outage = probe.outage()
    outage.suspect(HomeserverUnreachable("away"))
    await finished(outage)
    assert (outage.reason, probe.pauses) == (None, [])


async def test_other_failures_raise_no_suspicion() -> None:
    outage = Probe().outage()
    outage.suspect(HomeserverRefused(403, "M_FORBIDDEN", "no"))
    outage.suspect(NotReconciled("alias_taken", "it is"))
    assert outage._prober is None

"""When a request is made again."""

from __future__ import annotations

import pytest

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import RetryPolicy

POLICY = RetryPolicy(attempts=4, first_wait=1.0, longest_wait=3.0, budget=20.0)


def wait(error: HomeserverError, attempt: int = 1, elapsed: float = 0.0, random: float = 0.0) -> float | None:
    return POLICY.wait(error, attempt, elapsed, lambda: random)


def test_waits_double_up_to_the_longest_and_half_of_each_is_chance() -> None:
    lowest = [wait(HomeserverUnreachable(), attempt) for attempt in (1, 2, 3)]
    highest = [wait(HomeserverUnreachable(), attempt, random=1.0) for attempt in (1, 2, 3)]
    assert lowest == [0.5, 1.0, 1.5]
    assert highest == [1.0, 2.0, 3.0]


def test_the_last_attempt_is_the_last() -> None:
    assert wait(HomeserverUnreachable(), attempt=4) is None


def test_nothing_begins_after_the_budget() -> None:
    assert wait(HomeserverUnreachable(), elapsed=19.5) == 0.5
    assert wait(HomeserverUnreachable(), elapsed=19.6) is None


def test_a_limit_is_waited_out_if_it_is_short_enough() -> None:
    assert wait(HomeserverLimited("M_LIMIT_EXCEEDED", "", 15.0), random=0.5) == 15.5
    assert wait(HomeserverLimited("M_LIMIT_EXCEEDED", "", 21.0)) is None
    assert wait(HomeserverLimited("M_LIMIT_EXCEEDED", "", None)) == 0.5


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_passes_is_tried_again(status: int) -> None:
    assert wait(HomeserverRefused(status, "M_UNKNOWN", "")) is not None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413, 500])
def test_a_refusal_is_final(status: int) -> None:
    assert wait(HomeserverRefused(status, "M_UNKNOWN", "")) is None

"""What follows from a try."""

from __future__ import annotations

import pytest

from openmeet_appservice.delivery.policy import (
    LONGEST_REST_MS,
    Decision,
    Disable,
    Health,
    Park,
    Refused,
    Retry,
    Skip,
    Split,
    Taken,
    Try,
    decide,
    describe,
    health,
    rest_until,
)
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason

SCHEDULE = (5.0, 300.0, 1800.0)
NOW = 1_795_374_000_000
NO_ANSWER = NoAnswer(Reason.TIMED_OUT, "There was no answer in time.", 15.0)


def answer(status: int, **headers: str) -> Answer:
    return Answer(status, b"secret words", {name.replace("_", "-"): headers[name] for name in headers}, 0.1)


def after(
    result: Answer | NoAnswer,
    *,
    events: int = 10,
    attempts: int = 0,
    refusals: int = 0,
    skip: bool = False,
    random: float = 0.5,
) -> Decision:
    tried = Try(events, attempts, refusals)
    return decide(result, tried, retry=SCHEDULE, skip=skip, now=NOW, random=random)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("attempts", [0, 3, 99])
def test_any_2xx_is_taken_whenever_it_comes(status: int, attempts: int) -> None:
    assert after(answer(status), attempts=attempts) == Taken()
    assert health(answer(status), NOW) is Health.SOUND


@pytest.mark.parametrize(
    "result",
    [answer(status) for status in (100, 199, 300, 302, 401, 403, 404, 429, 500, 503)] + [NO_ANSWER],
)
@pytest.mark.parametrize(("skip", "end"), [(False, Park()), (True, Skip())])
def test_most_failures_follow_the_schedule_to_its_end(
    result: Answer | NoAnswer, skip: bool, end: Decision
) -> None:
    decisions = [after(result, attempts=attempts, skip=skip) for attempts in range(5)]
    assert decisions == [Retry(NOW + 5_000), Retry(NOW + 300_000), Retry(NOW + 1_800_000), end, end]
    assert health(result, NOW) is Health.FAILED


@pytest.mark.parametrize("attempts", [0, 3, 99])
def test_410_disables_the_endpoint(attempts: int) -> None:
    assert after(answer(410), attempts=attempts) == Disable()
    assert health(answer(410), NOW) is Health.GONE


def test_413_halves_the_batch_and_gives_up_a_single_event() -> None:
    assert [after(answer(413), events=events) for events in (50, 3, 2)] == [Split(25), Split(1), Split(1)]
    assert after(answer(413), events=1) == Refused()
    assert health(answer(413), NOW) is Health.SOUND


@pytest.mark.parametrize("status", [400, 422])
def test_a_batch_refused_three_times_goes_one_by_one(status: int) -> None:
    tries = [after(answer(status), attempts=n, refusals=n) for n in range(3)]
    assert tries == [Retry(NOW + 5_000), Retry(NOW + 300_000), Split(1)]
    alone = [after(answer(status), events=1, attempts=n, refusals=n) for n in range(4)]
    assert alone == [Retry(NOW + 5_000), Retry(NOW + 300_000), Retry(NOW + 1_800_000), Park()]
    # Other failures in between do not count as refusals.
    assert after(answer(status), attempts=2, refusals=1) == Retry(NOW + 1_800_000)
    assert health(answer(status), NOW) is Health.SOUND


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_but_never_hurries(status: int) -> None:
    resting = answer(status, retry_after="60")
    assert rest_until(resting, NOW) == NOW + 60_000
    assert health(resting, NOW) is Health.RESTING
    assert after(resting) == Retry(NOW + 60_000)
    assert after(resting, attempts=1) == Retry(NOW + 300_000)
    assert after(answer(status, retry_after="Sun, 22 Nov 2026 19:02:00 GMT")) == Retry(NOW + 120_000)


@pytest.mark.parametrize("given", ["9" * 5000, "86400", "Sun, 22 Nov 2099 19:02:00 GMT"])
def test_nobody_can_ask_for_more_than_an_hour(given: str) -> None:
    assert rest_until(answer(503, retry_after=given), NOW) == NOW + LONGEST_REST_MS


@pytest.mark.parametrize(
    "given", ["", "soon", "-5", "0", "٣", "Sun, 22 Nov 2020 19:02:00 GMT", "Sun, 99 Nov"]
)
def test_a_retry_after_that_says_nothing_is_passed_over(given: str) -> None:
    assert rest_until(answer(429, retry_after=given), NOW) is None
    assert health(answer(429, retry_after=given), NOW) is Health.FAILED


def test_retry_after_counts_with_429_and_503_only() -> None:
    assert rest_until(answer(500, retry_after="60"), NOW) is None
    assert rest_until(NO_ANSWER, NOW) is None


def test_waits_are_up_to_a_fifth_shorter_or_longer() -> None:
    def wait(random: float) -> Decision:
        return after(NO_ANSWER, attempts=1, random=random)

    assert wait(0.0) == Retry(NOW + 240_000)
    assert wait(0.999999) == Retry(NOW + 360_000)
    assert wait(0.25) == Retry(NOW + 270_000)


def test_results_have_a_name_and_words_without_the_answers_body() -> None:
    assert [answer(status).outcome for status in (204, 404, 503)] == ["2xx", "4xx", "5xx"]
    assert NO_ANSWER.outcome == "timed_out"
    assert describe(answer(404)) == "the answer was 404"
    assert describe(NO_ANSWER) == "There was no answer in time."

"""What follows from a try."""

from __future__ import annotations

import pytest

from openmeet_appservice.delivery.policy import Park, Retry, Taken, decide, describe, outcome
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason

SCHEDULE = (5.0, 300.0, 1800.0)


def answer(status: int) -> Answer:
    return Answer(status, b"secret words", {}, 0.1)


NO_ANSWER = NoAnswer(Reason.TIMED_OUT, "There was no answer in time.", 15.0)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("attempts", [0, 3, 99])
def test_any_2xx_is_taken_whenever_it_comes(status: int, attempts: int) -> None:
    assert decide(answer(status), attempts=attempts, retry=SCHEDULE, now=0, random=0.5) == Taken()


@pytest.mark.parametrize(
    "result",
    [answer(status) for status in (100, 199, 300, 302, 400, 401, 404, 410, 413, 429, 500)] + [NO_ANSWER],
)
def test_everything_else_follows_the_schedule_and_is_then_parked(result: Answer | NoAnswer) -> None:
    decisions = [
        decide(result, attempts=attempts, retry=SCHEDULE, now=1000, random=0.5) for attempts in range(5)
    ]
    assert decisions == [Retry(1000 + 5_000), Retry(1000 + 300_000), Retry(1000 + 1_800_000), Park(), Park()]


def test_waits_are_up_to_a_fifth_shorter_or_longer() -> None:
    def wait(random: float) -> Retry | Taken | Park:
        return decide(NO_ANSWER, attempts=1, retry=SCHEDULE, now=0, random=random)

    assert wait(0.0) == Retry(240_000)
    assert wait(0.999999) == Retry(360_000)
    assert wait(0.25) == Retry(270_000)


def test_results_have_a_name_and_words_without_the_answers_body() -> None:
    assert (outcome(answer(204)), outcome(answer(404)), outcome(answer(503))) == ("2xx", "4xx", "5xx")
    assert outcome(NO_ANSWER) == "timed_out"
    assert describe(answer(404)) == "the answer was 404"
    assert describe(NO_ANSWER) == "There was no answer in time."

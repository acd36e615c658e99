"""What people are told of deliveries: log lines and metrics."""

from __future__ import annotations

import logging

from openmeet_appservice import metrics
from openmeet_appservice.delivery.judging import Judged, Tried
from openmeet_appservice.delivery.policy import Disable, Park, Refused, Retry, Skip, Split, Taken, describe
from openmeet_appservice.delivery.results import Result
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store.dead_letters import Reason

log = logging.getLogger(__name__)


def tried(answer: Answer | NoAnswer) -> None:
    """Count a try."""
    metrics.DELIVERY_ATTEMPTS.labels(answer.outcome).inc()
    metrics.DELIVERY_SECONDS.observe(answer.seconds)


def recorded(result: Result, *, held: bool) -> None:
    """Tell what became of a batch. *held* is False where the result came too late to count."""
    name, batch = result.job.endpoint.name, result.job.batch
    first, last, why = batch.first, batch.last, describe(result.answer)
    if not held:
        log.warning("webhook %s: the result for events %d to %d came too late", name, first, last)
        return
    match result.decision:
        case Taken():
            log.debug("webhook %s took events %d to %d", name, first, last)
        case Retry(at):
            log.warning(
                "webhook %s did not take events %d to %d: %s; next try %s",
                name,
                first,
                last,
                why,
                to_rfc3339(at),
            )
        case Split(most):
            log.warning(
                "webhook %s did not take events %d to %d: %s; they go again, at most %d at a time",
                name,
                first,
                last,
                why,
                most,
            )
        case Refused():
            metrics.DEAD_LETTERS.labels(Reason.REFUSED.value).inc()
            log.error("webhook %s will not take event %d: %s; it is a dead letter", name, first, why)
        case Skip():
            metrics.DEAD_LETTERS.labels(Reason.EXHAUSTED.value).inc()
            log.error(
                "webhook %s did not take events %d to %d in %d tries: %s; they are a dead letter",
                name,
                first,
                last,
                result.job.lane.attempts + 1,
                why,
            )
        case Park():
            log.error(
                "webhook %s did not take events %d to %d in %d tries: %s; the room is parked until "
                "somebody resumes the endpoint",
                name,
                first,
                last,
                result.job.lane.attempts + 1,
                why,
            )
        case Disable():
            log.debug("webhook %s is gone; events %d to %d are kept", name, first, last)


def judged(tried: Tried, judged: Judged) -> None:
    """Tell what became of the endpoint."""
    name = tried.endpoint.name
    if judged.disabled:
        metrics.ENDPOINTS_DISABLED.inc()
        log.error("webhook %s is disabled, for it answered 410; resume it once it is there again", name)
    if judged.closed:
        log.info("webhook %s answers again", name)
    if judged.open_until is not None:
        metrics.BREAKER_OPENED.inc()
        log.warning(
            "webhook %s is left alone until %s: %s",
            name,
            to_rfc3339(judged.open_until),
            describe(tried.answer),
        )

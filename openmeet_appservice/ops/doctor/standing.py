"""How the work stands: what is parked, what fails, what was put aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from openmeet_appservice.config import duration_text
from openmeet_appservice.intake.gap_repair import RepairSettings
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning
from openmeet_appservice.ops.doctor.stored import EXAMPLES, Aside, Failing, Target
from openmeet_appservice.reconciler.full_check import FullCheckSettings
from openmeet_appservice.store import full_check
from openmeet_appservice.store.lanes import Backlog
from openmeet_appservice.store.repair import Standing

LATE_MS = 15 * 60_000
"""From when on it is remarkable that OpenMeet has not taken an event."""


def check_delivery(backlog: Backlog, targets: Sequence[Target], now: int) -> Finding:
    """Tell how many rooms wait for their events to be taken (*now* in milliseconds since the epoch)."""
    if backlog.parked:
        parked = sorted((target for target in targets if target.parked), key=lambda one: -one.parked)
        where = _some([f"{one.title} {one.parked}" for one in parked], len(parked))
        return problem(
            "delivery",
            f"{_count(backlog.parked, 'room')} parked after the last retry ({where})",
            f"Correct the endpoint, then `POST {parked[0].path}/resume` sends them again."
            if parked
            else "Correct the endpoints.",
        )
    age = 0 if backlog.oldest is None else now - backlog.oldest
    if age > LATE_MS:
        what = f"{_count(backlog.waiting, 'room')} waiting, the longest for {age // 60_000} min"
        return warning("delivery", what, "See the lines of the webhooks, and the service's log.")
    return ok(
        "delivery", f"{_count(backlog.waiting, 'room')} waiting" if backlog.waiting else "nothing waits"
    )


def check_endpoints(targets: Sequence[Target]) -> list[Finding]:
    """Tell which endpoints get nothing, or did not get everything."""
    findings = []
    for target in targets:
        name = f"webhook {target.title}"
        if target.state == "disabled":
            what = "disabled, because it answered 410; what comes in is kept for it"
            remedy = f"Correct its URL with `PUT {target.path}`, or `POST {target.path}/resume`."
            findings.append(problem(name, what, remedy))
        elif target.state == "paused":
            what = "paused; what comes in is kept for it"
            findings.append(warning(name, what, f"`POST {target.path}/resume` sends it."))
        elif target.state == "breaker_open":
            what = "failed in several rooms, so it is tried only from time to time"
            findings.append(warning(name, what, f"Correct it; `POST {target.path}/resume` tries at once."))
        if target.dead:
            what = f"{_count(target.dead, 'dead letter')}: events that it did not take"
            remedy = f"`GET {target.path}/dead-letters` names them, and says why."
            findings.append(warning(name, what, remedy))
        if target.truncated:
            letters = _count(target.truncated, "dead letter")
            what = (
                f"does not get all events ({letters}), because more than `webhooks.max_backlog` waited for it"
            )
            remedy = (
                f"Correct it or raise `webhooks.max_backlog`; `GET {target.path}/dead-letters` names them."
            )
            findings.append(warning(name, what, remedy))
    return findings


def check_reconciler(failing: Failing) -> Finding:
    """Tell what Synapse does not have as OpenMeet wants it."""
    total = failing.entities + failing.users
    if not total:
        return ok("reconciler", "nothing fails")
    return warning(
        "reconciler",
        f"{_count(failing.entities, 'room')} and {_count(failing.users, 'user')} not as OpenMeet wants: "
        f"{_some(failing.examples, total)}",
        "Read `sync.last_error` of each, or `openmeet-appservice room plan TENANT KIND SLUG`.",
    )


def check_repair(standing: Standing, settings: RepairSettings, now: int) -> Finding:
    """Tell whether gap repair keeps what it promises (*now* in milliseconds).

    Parameters
    ----------
    standing
        How it stands, over all tenants.
    """
    name, rooms, max_age = "gap repair", _count(standing.rooms, "room"), settings.max_age
    round_ms = standing.rooms * 1000 / settings.slow
    if standing.unreadable:
        return warning(
            name,
            f"{standing.unreadable} of {rooms} cannot be read, so what is lost there is not found",
            "The service's log names them (`cannot be read`); have somebody inside invite the bot again.",
        )
    if round_ms > max_age:
        return warning(
            name,
            f"a round through {rooms} takes {_time(round_ms)}, longer than `repair.max_age` "
            f"({_time(max_age)})",
            "Raise `repair.max_age`; after an outage rooms are compared at once all the same.",
        )
    if standing.oldest is not None and now - standing.oldest > max_age:
        return warning(
            name,
            f"a room was last compared with its history {_time(now - standing.oldest)} ago",
            "See whether the service runs and reaches Synapse; its log says what it waits for.",
        )
    return ok(name, f"{rooms}, each compared with its history within {_time(max_age)}")


def check_full_check(stands: full_check.Standing, settings: FullCheckSettings | None, now: int) -> Finding:
    """Tell whether every room is compared in time with what OpenMeet wants (*now* in milliseconds)."""
    name, rooms = "full check", _count(stands.entities, "room")
    if settings is None:
        return info(
            name, "off (`reconciler.full_check` is null): rooms are compared only when something changes"
        )
    round_ms = stands.entities * settings.gap(stands.entities)
    if round_ms > settings.period:
        return warning(
            name,
            f"a round through {rooms} takes {_time(round_ms)}, longer than `reconciler.full_check` "
            f"({_time(settings.period)})",
            "Raise `reconciler.max_rate` or `reconciler.full_check`.",
        )
    if stands.oldest is not None and now - stands.oldest > settings.period:
        return warning(
            name,
            f"a room was last compared with what OpenMeet wants {_time(now - stands.oldest)} ago",
            "See whether the service runs and reaches Synapse.",
        )
    return ok(name, f"{rooms}, each compared with what OpenMeet wants within {_time(settings.period)}")


def check_aside(aside: Aside) -> list[Finding]:
    """Tell what Synapse sent that is in no room's log."""
    findings = []
    if aside.held:
        what = (
            f"{_count(aside.held, 'event')} of {_count(aside.held_rooms, 'unknown room')}; kept for 24 h each"
        )
        findings.append(info("held events", what))
    else:
        findings.append(ok("held events", "none"))
    if aside.quarantined:
        what = f"{_count(aside.quarantined, 'element')} without use as events (the last: {aside.reason})"
        remedy = "Read them in the table `quarantine` (`reason`, `body`), where they are kept for 30 days."
        findings.append(warning("quarantine", what, remedy))
    else:
        findings.append(ok("quarantine", "empty"))
    return findings


def _time(milliseconds: float) -> str:
    return duration_text(timedelta(minutes=max(1, round(milliseconds / 60_000))))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _some(shown: Sequence[str], total: int) -> str:
    named = list(shown[:EXAMPLES])
    return ", ".join([*named, f"and {total - len(named)} more"] if total > len(named) else named)

"""The instruments: what this program counts and times, for Prometheus.

Everything is named ``openmeet_as_…`` and lives in one registry of our own, so that nothing else in the
process can add names to it. No label takes a value that a caller can choose: no tenant, room or user.
"""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(namespace="openmeet_as", registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLOW = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 180.0, 600.0)

# -- from Synapse

TRANSACTIONS = Counter(
    "openmeet_as_transactions_total",
    "Transactions from the homeserver, by what became of them",
    ["result"],
    registry=REGISTRY,
)
TRANSACTION_SECONDS = Histogram(
    "openmeet_as_transaction_seconds",
    "Time from a transaction's first byte to its answer",
    buckets=_FAST,
    registry=REGISTRY,
)
EVENTS_INGESTED = Counter(
    "openmeet_as_events_ingested_total",
    "Events written to the event log, by class of event",
    ["event_class"],
    registry=REGISTRY,
)
EVENTS_QUARANTINED = Counter(
    "openmeet_as_events_quarantined_total",
    "Elements of transactions that were not usable as events and were kept apart",
    registry=REGISTRY,
)
HELD_DROPPED = Counter(
    "openmeet_as_held_events_dropped_total",
    "Events dropped because nobody claimed their room in time",
    registry=REGISTRY,
)

REPAIR_SUSPICIONS = Counter(
    "openmeet_as_repair_suspicions_total",
    "Signs that the homeserver may have lost events, by what the sign was",
    ["reason"],
    registry=REGISTRY,
)
REPAIR_CHECKS = Counter(
    "openmeet_as_repair_checks_total",
    "Rooms that gap repair has compared with their history, by what came of it",
    ["result"],
    registry=REGISTRY,
)
REPAIRED_EVENTS = Counter(
    "openmeet_as_repaired_events_total",
    "Events that gap repair added to the event log, because the homeserver never pushed them",
    registry=REGISTRY,
)
REPAIR_OLDEST_CHECK = Gauge(
    "openmeet_as_repair_oldest_check_age_seconds",
    "Time since the room was compared with its history that waits the longest for it",
    registry=REGISTRY,
)
INVITATIONS = Counter(
    "openmeet_as_invitations_total",
    "Invitations of puppets by people on Matrix, by what was answered: accepted or declined",
    ["answer"],
    registry=REGISTRY,
)

# -- to Synapse

HOMESERVER_REQUESTS = Counter(
    "openmeet_as_homeserver_requests_total",
    "Requests to the homeserver, by operation and result (ok, an errcode, unreachable)",
    ["operation", "result"],
    registry=REGISTRY,
)
HOMESERVER_SECONDS = Histogram(
    "openmeet_as_homeserver_seconds",
    "Time a request to the homeserver took, waiting and repeating included",
    ["operation"],
    buckets=_SLOW,
    registry=REGISTRY,
)
RECONCILE_RUNS = Counter(
    "openmeet_as_reconcile_runs_total",
    "Comparisons of desired with actual that ended, by outcome",
    ["outcome"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "openmeet_as_reconcile_seconds",
    "Time one run of the reconciler took for one entity",
    buckets=_SLOW,
    registry=REGISTRY,
)
PICTURES = Counter(
    "openmeet_as_pictures_total",
    "Pictures that were asked for, by what came of it: uploaded, known (the same was uploaded before), "
    "unchanged, or why not",
    ["outcome"],
    registry=REGISTRY,
)
ROOMS_PURGED = Counter(
    "openmeet_as_rooms_purged_total",
    "Rooms that were deleted from the homeserver for good",
    registry=REGISTRY,
)
RECONCILE_PENDING = Gauge(
    "openmeet_as_reconcile_pending",
    "Entities that wait for the reconciler",
    registry=REGISTRY,
)

FULL_CHECK_OLDEST = Gauge(
    "openmeet_as_full_check_oldest_age_seconds",
    "Time since the room that waits longest for it was compared in full, or made",
    registry=REGISTRY,
)
DRIFT = Counter(
    "openmeet_as_drift_total",
    "What others had changed of what OpenMeet decides, found when a room was compared, by what it is and "
    "what was done: corrected, accepted, or contested (left alone, as it is changed again and again)",
    ["field", "outcome"],
    registry=REGISTRY,
)
DRIFT_NOTICED = Counter(
    "openmeet_as_drift_noticed_total",
    "State events in which somebody else changed what OpenMeet decides, by what it is",
    ["field"],
    registry=REGISTRY,
)

# -- to OpenMeet

DELIVERY_ATTEMPTS = Counter(
    "openmeet_as_delivery_attempts_total",
    "Webhook attempts, by outcome",
    ["outcome"],
    registry=REGISTRY,
)
DELIVERY_SECONDS = Histogram(
    "openmeet_as_delivery_seconds",
    "Time a webhook attempt took",
    buckets=_SLOW,
    registry=REGISTRY,
)
DELIVERY_PARKED = Gauge(
    "openmeet_as_delivery_parked_lanes",
    "Rooms whose delivery to an endpoint has stopped until somebody resumes it",
    registry=REGISTRY,
)
DELIVERY_OLDEST_AGE = Gauge(
    "openmeet_as_delivery_oldest_age_seconds",
    "Age of the oldest event that an endpoint has not yet taken",
    registry=REGISTRY,
)

REPLAY_EVENTS = Gauge(
    "openmeet_as_delivery_replay_events",
    "Events that are queued to be sent again",
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "openmeet_as_dead_letters_total",
    "Batches and single events that were given up for an endpoint, by reason",
    ["reason"],
    registry=REGISTRY,
)
DELIVERY_TRUNCATED = Counter(
    "openmeet_as_delivery_truncated_events_total",
    "Events that were given up for an endpoint because more than webhooks.max_backlog waited",
    registry=REGISTRY,
)
EVENTS_RELEASED = Counter(
    "openmeet_as_events_released_total",
    "Events that left the log because they were older than webhooks.retention",
    registry=REGISTRY,
)
NOTICES_DROPPED = Counter(
    "openmeet_as_notices_dropped_total",
    "Operational webhooks that were given up: refused, exhausted (tried in vain) or expired",
    ["reason"],
    registry=REGISTRY,
)
EPHEMERAL = Counter(
    "openmeet_as_ephemeral_webhooks_total",
    "Webhooks of typing and receipts, sent once each, by outcome; and rooms whose updates were dropped",
    ["outcome"],
    registry=REGISTRY,
)
BREAKER_OPENED = Counter(
    "openmeet_as_delivery_breaker_opened_total",
    "How often an endpoint was left alone because it failed in several rooms",
    registry=REGISTRY,
)
ENDPOINTS_DISABLED = Counter(
    "openmeet_as_endpoints_disabled_total",
    "Endpoints that were disabled because they answered 410",
    registry=REGISTRY,
)
ENDPOINTS = Gauge(
    "openmeet_as_endpoints",
    "Webhook endpoints, by state: active, paused, disabled or breaker_open",
    ["state"],
    registry=REGISTRY,
)

# -- from OpenMeet

PROVISIONING_REQUESTS = Counter(
    "openmeet_as_provisioning_requests_total",
    "Requests to the provisioning API, by route and status",
    ["method", "route", "status"],
    registry=REGISTRY,
)
PROVISIONING_SECONDS = Histogram(
    "openmeet_as_provisioning_seconds",
    "Time a request to the provisioning API took, from its first byte to its answer",
    ["method", "route"],
    buckets=_FAST,
    registry=REGISTRY,
)

LOOKUPS = Counter(
    "openmeet_as_lookups_total",
    "Questions to OpenMeet, by why they were asked (hint, turn or alias) and by what came of them",
    ["reason", "result"],
    registry=REGISTRY,
)
LOOKUP_SECONDS = Histogram(
    "openmeet_as_lookup_seconds",
    "Time OpenMeet took for an answer, all its pages together",
    buckets=_SLOW,
    registry=REGISTRY,
)
HINTS_WAITING = Gauge(
    "openmeet_as_hints_waiting",
    "Hints of OpenMeet that have not been followed yet",
    registry=REGISTRY,
)
HINTS_OLDEST_AGE = Gauge(
    "openmeet_as_hints_oldest_age_seconds",
    "Age of the oldest hint that has not been followed yet",
    registry=REGISTRY,
)

# -- the program itself

BUILD_INFO = Gauge(
    "openmeet_as_build_info",
    "Always 1; the labels say what is running",
    ["version", "python"],
    registry=REGISTRY,
)


def record_build(version: str) -> None:
    """Say in the metrics which *version* of this program runs, and on which Python."""
    BUILD_INFO.labels(version, platform.python_version()).set(1)

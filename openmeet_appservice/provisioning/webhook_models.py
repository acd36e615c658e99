"""What the API takes and shows of webhook endpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, WithJsonSchema

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.static_headers import MOST
from openmeet_appservice.domain.webhook_types import DELIVERABLE
from openmeet_appservice.store.breaker import CLOSED, HALF_OPEN, OPEN
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.lanes import Backlog
from openmeet_appservice.web.models import AnswerModel, ApiModel, Page

MOST_TENANTS = 1000


TypeName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(DELIVERABLE)})]


def _known_types(types: list[str] | None) -> list[str] | None:
    if types is not None:
        unknown = sorted(set(types) - set(DELIVERABLE))
        if unknown or not types:
            raise ValueError(f"must name some of {', '.join(DELIVERABLE)}")
        if len(set(types)) < len(types):
            raise ValueError("must name each type once")
    return types


class WebhookPut(ApiModel):
    """Where webhooks are to be sent, and how. What is left out takes its default."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="https; http only to the networks that the configuration allows.",
        examples=["https://api.openmeet.net/webhooks/matrix"],
    )
    secret: SecretStr | None = Field(
        default=None,
        description="`whsec_` and the base64 of 24 to 64 bytes. Absent: the one it has, and for a new "
        "endpoint one that is made and shown this once. Another one ends an overlap at once; to change it "
        "without a gap, use `rotate-secret`.",
    )
    types: Annotated[list[TypeName] | None, AfterValidator(_known_types)] = Field(
        default=None,
        description="The types of webhooks it takes. Absent or null: all, later ones too. `endpoint.test` "
        "comes whatever it takes.",
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        max_length=MOST,
        description="Sent with every webhook, such as an `Authorization` that a gateway wants. Never shown "
        "again.",
    )
    max_batch: int | None = Field(
        default=None, ge=1, le=1000, description="The most events in one webhook. Null: as configured."
    )
    max_batch_bytes: int | None = Field(
        default=None,
        ge=1024,
        le=16 * 1024 * 1024,
        description="The most bytes of a body; an event that is larger goes alone. Null: as configured.",
    )
    on_exhausted: Literal["park", "skip"] | None = Field(
        default=None,
        description="What becomes of events that were not taken in all tries: `park` stops their room until "
        "the endpoint is resumed, `skip` makes them a dead letter and goes on. Null: as configured.",
    )


class PlatformWebhookPut(WebhookPut):
    """Where the webhooks of many tenants are to be sent."""

    tenants: list[str] | None = Field(
        default=None,
        max_length=MOST_TENANTS,
        description="Whose events it gets. Absent or null: every tenant's, later ones too.",
    )


class BreakerAnswer(AnswerModel):
    """Whether the endpoint is spared tries because it failed in several rooms."""

    state: Literal["closed", "open", "half_open"]
    until: str | None = Field(description="When it is tried again.")


class BacklogAnswer(AnswerModel):
    """What waits for the endpoint."""

    rooms: int
    parked_rooms: int = Field(description="Those that have stopped until the endpoint is resumed.")
    events: int = Field(description="Counted in the thousand rooms that wait longest.")
    replay_events: int = Field(description="Queued to be sent again, by `replay` or `redrive`.")
    notices: int = Field(description="Operational webhooks, such as `room.ready`, that it has not taken.")
    oldest_at: str | None


class WebhookAnswer(AnswerModel):
    """A webhook endpoint. Its secret and the values of its headers are never shown again."""

    tenant: str | None = Field(description="Whose it is; null: the platform's.")
    name: str
    url: str
    types: list[str] | None
    header_names: list[str]
    max_batch: int | None
    max_batch_bytes: int | None
    on_exhausted: Literal["park", "skip"] | None
    tenants: list[str] | None = Field(description="Of the platform's: whose events it gets; null: all.")
    state: Literal["active", "paused", "disabled"] = Field(
        description="`disabled`: it answered 410. `POST …/resume` makes it active again."
    )
    state_since: str | None
    resting_until: str | None = Field(description="It asked to be left alone (429 or 503, `Retry-After`).")
    breaker: BreakerAnswer
    old_secret_until: str | None = Field(description="Until when the secret of before signs as well.")
    created_at: str
    updated_at: str
    etag: str


class WebhookRead(WebhookAnswer):
    """A webhook endpoint, and what waits for it."""

    backlog: BacklogAnswer


class WebhookWritten(WebhookAnswer):
    """A webhook endpoint after a write."""

    secret: str | None = Field(description="The secret, if this call made it; it is shown this once.")


class WebhookPage(Page[WebhookAnswer]):
    """Some of the endpoints, by name."""


class RotateSecret(ApiModel):
    """Which secret to sign with from now on, and how long with the present one too."""

    secret: SecretStr | None = Field(default=None, description="Absent: one is made and shown this once.")
    overlap_seconds: int = Field(
        default=24 * 3600,
        ge=0,
        le=7 * 24 * 3600,
        description="How long the present secret signs as well.",
    )


class WebhookTested(AnswerModel):
    """What came of a test."""

    delivered: bool
    status: int | None = Field(description="What the endpoint answered; null where it gave no answer.")
    milliseconds: int
    error: str | None = Field(description="Why there was no answer.")
    answer: str | None = Field(description="How the answer began.")


def etag(endpoint: Endpoint) -> str:
    """Return the entity tag of an endpoint's settings."""
    return f"{endpoint.ref}.{endpoint.revision}"


def shown(endpoint: Endpoint, tenant_id: str | None, header_names: list[str], *, now: int) -> WebhookAnswer:
    """Return what the API shows of an endpoint.

    Parameters
    ----------
    tenant_id
        The tenant as OpenMeet gave it.
    now
        Milliseconds since the epoch: what was until before is not shown.
    """
    wanted = endpoint.wanted
    since = endpoint.disabled_at or endpoint.paused_at
    state = "disabled" if endpoint.disabled_at else "paused" if endpoint.paused_at else "active"
    return WebhookAnswer.model_validate(
        {
            "tenant": None if endpoint.owner == PLATFORM else tenant_id,
            "name": endpoint.name,
            "url": wanted.url,
            "types": None if wanted.types is None else list(wanted.types),
            "header_names": header_names,
            "max_batch": wanted.max_batch,
            "max_batch_bytes": wanted.max_batch_bytes,
            "on_exhausted": wanted.on_exhausted,
            "tenants": None if wanted.tenants is None else list(wanted.tenants),
            "state": state,
            "state_since": _moment(since),
            "resting_until": _ahead(endpoint.rest_until, now),
            "breaker": _breaker(endpoint),
            "old_secret_until": _ahead(endpoint.old_secret_until, now),
            "created_at": to_rfc3339(endpoint.created_at),
            "updated_at": to_rfc3339(endpoint.updated_at),
            "etag": etag(endpoint),
        }
    )


def shown_backlog(backlog: Backlog, *, events: int, replay_events: int, notices: int) -> BacklogAnswer:
    """Return what the API shows of what waits."""
    return BacklogAnswer(
        rooms=backlog.waiting,
        parked_rooms=backlog.parked,
        events=events,
        replay_events=replay_events,
        notices=notices,
        oldest_at=_moment(backlog.oldest),
    )


def _breaker(endpoint: Endpoint) -> dict[str, str | None]:
    assert endpoint.breaker in (CLOSED, OPEN, HALF_OPEN)
    until = None if endpoint.breaker == CLOSED else _moment(endpoint.breaker_until)
    return {"state": endpoint.breaker, "until": until}


def _ahead(moment: int | None, now: int) -> str | None:
    return None if moment is None or moment <= now else to_rfc3339(moment)


def _moment(moment: int | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)

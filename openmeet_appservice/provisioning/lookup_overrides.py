"""How a tenant is asked about otherwise than the service's configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from openmeet_appservice.domain.durations import duration_text, parse_duration
from openmeet_appservice.errors import Conflict, FieldError, Invalid, OutboundRefused
from openmeet_appservice.provisioning.lookup import tenant_secret
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.models import ApiModel


def _between(least: str, most: str) -> AfterValidator:
    def check(text: str) -> str:
        value = parse_duration(text)
        if not parse_duration(least) <= value <= parse_duration(most):
            raise ValueError(f"must be from {least} to {most}")
        return duration_text(value)

    return AfterValidator(check)


class LookupOverrides(ApiModel):
    """How OpenMeet is asked about this tenant, otherwise than the service's configuration says."""

    url: str | None = Field(
        default=None,
        max_length=2048,
        description="Where; https, http only to what the configuration allows. It gets a secret of its own.",
        examples=["https://api.openmeet.net/api/matrix/lookup"],
    )
    alias_timeout: Annotated[str, _between("1ms", "30s")] | None = Field(
        default=None, description="How long it may take while somebody looks for an alias.", examples=["3s"]
    )
    timeout: Annotated[str, _between("1ms", "5m")] | None = Field(
        default=None, description="How long it may take otherwise.", examples=["15s"]
    )
    resync_interval: Annotated[str, _between("10m", "365d")] | None = Field(
        default=None, description="Within what time all that is in use is asked about.", examples=["6h"]
    )


def check_lookup(parts: Parts, wanted: LookupOverrides) -> None:
    """Return if the tenant may be asked about like this.

    Raises
    ------
    Invalid
        The URL may not be called.
    Conflict
        There is nothing to sign with.
    """
    if wanted.url is None:
        return
    try:
        parts.check_url(wanted.url)
    except OutboundRefused as refusal:
        fault = FieldError("/settings/lookup/url", "url_refused", str(refusal))
        raise Invalid(errors=[fault]) from None
    if not parts.lookup_secrets:
        raise Conflict(
            "lookup.secrets is not configured, so nothing could be signed.", code="no_lookup_secret"
        )


def secret_to_show(parts: Parts, before: Mapping[str, Any], tenant: Tenant) -> str | None:
    """Return the secret of a tenant's own URL when it is newly given; None otherwise.

    Parameters
    ----------
    before
        The settings before the write.
    """
    url = (tenant.settings.get("lookup") or {}).get("url")
    if url is None or url == (before.get("lookup") or {}).get("url") or not parts.lookup_secrets:
        return None
    return tenant_secret(parts.lookup_secrets[0], tenant)

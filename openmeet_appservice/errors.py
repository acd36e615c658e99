"""Everything this program raises on purpose.

The first line of a class's docstring is its message when none is given. What a caller can do decides
where a class stands::

    OpenMeetError
    ├── ConfigError                 the admin must change the configuration (exit code 2)
    ├── UsageError                  the command was called wrongly (exit code 2)
    ├── StoreError
    │   ├── DatabaseUnavailable     try again later
    │   ├── DatabaseInUse           another `run` holds this SQLite file
    │   ├── ForeignDatabase         made for another homeserver or another appservice
    │   ├── SchemaTooNew            a newer release wrote this database
    │   ├── SchemaTooOld            `migrate` first
    │   └── SecretUnreadable        encrypted with a key that is no longer configured
    ├── HomeserverError
    │   ├── HomeserverUnreachable   no usable answer: the outcome is unknown, never "no"
    │   ├── SynapseNotStarted       the throw-away Synapse of `dev` did not come up
    │   └── HomeserverRefused       Synapse answered with an error, `errcode` kept
    │       └── HomeserverLimited   429, with the time to wait
    ├── NotReconciled               Synapse is not yet as OpenMeet wants it, and why
    ├── InvalidName                 an id, slug or alias that Matrix or the contract does not allow
    ├── OutboundRefused             a call to others that this service does not make
    │   ├── UrlRefused              the URL itself
    │   └── AddressRefused          the address that its host has
    └── ApiError                    what the HTTP API answers (RFC 9457)
        ├── BadRequest              400
        ├── NotAuthenticated        401
        ├── Forbidden               403
        ├── NotFound                404
        ├── MethodNotAllowed        405
        ├── RequestTimedOut         408
        ├── Conflict                409
        ├── PreconditionFailed      412
        ├── TooLarge                413
        ├── UnsupportedMediaType    415
        ├── Invalid                 422
        ├── TooManyRequests         429
        └── Unavailable             503
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class OpenMeetError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class ConfigError(OpenMeetError):
    """The configuration is not usable."""


class UsageError(OpenMeetError):
    """The command cannot be run like this."""


class StoreError(OpenMeetError):
    """The database refused."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached."""


class DatabaseInUse(StoreError):
    """Another process runs on this SQLite file. Stop it first, or use PostgreSQL for more than one."""


class ForeignDatabase(StoreError):
    """This database was made for another homeserver or another application service."""


class SchemaTooNew(StoreError):
    """A newer release wrote this database. Run that release, or restore the backup of before."""


class SchemaTooOld(StoreError):
    """The database has an older schema. Run `openmeet-appservice migrate` first."""


class SecretUnreadable(StoreError):
    """A stored secret opens with none of security.encryption_keys: put the lost key back among them."""


class HomeserverError(OpenMeetError):
    """The homeserver did not do what was asked."""


class HomeserverUnreachable(HomeserverError):
    """The homeserver gave no usable answer, so whether it acted is unknown."""


class SynapseNotStarted(HomeserverError):
    """The throw-away Synapse did not start."""


class HomeserverRefused(HomeserverError):
    """The homeserver answered with an error.

    Parameters
    ----------
    status
        The HTTP status.
    errcode
        Matrix's code, such as ``M_FORBIDDEN``; ``M_UNKNOWN`` where the answer held none.
    error
        The homeserver's own words.
    """

    def __init__(self, status: int, errcode: str, error: str) -> None:
        super().__init__(f"{errcode} ({status}): {error}")
        self.status = status
        self.errcode = errcode
        self.error = error


class HomeserverLimited(HomeserverRefused):
    """The homeserver asks for patience (429). *retry_after* is in seconds, None where it named none."""

    def __init__(self, errcode: str, error: str, retry_after: float | None) -> None:
        super().__init__(429, errcode, error)
        self.retry_after = retry_after


class NotReconciled(OpenMeetError):
    """Synapse is not as OpenMeet wants it.

    Parameters
    ----------
    code
        The stable name of the reason, shown as ``sync.last_error.code``.
    detail
        The reason for a person, and what to do about it.
    patient
        Trying again soon would change nothing: it takes a person, or a change on OpenMeet.
    """

    def __init__(self, code: str, detail: str, *, patient: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.patient = patient


class InvalidName(OpenMeetError):
    """This name is not allowed on Matrix."""


class OutboundRefused(OpenMeetError):
    """This service does not call that."""


class UrlRefused(OutboundRefused):
    """This URL is not one that this service calls."""


class AddressRefused(OutboundRefused):
    """This address is not one that this service calls."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in a request: *pointer* is a JSON pointer (RFC 6901) into the body, or ``?name``/``path``."""

    pointer: str
    code: str
    detail: str


class ApiError(OpenMeetError):
    """The request could not be answered.

    Parameters
    ----------
    detail
        What is wrong and what to do about it, for a person.
    code
        The stable name of this fault; the class's own unless given.
    errors
        The single fields at fault.
    refused
        What the homeserver said, when it is the one that refused.
    retry_after
        Seconds after which trying again makes sense.
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        refused: HomeserverRefused | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = str(self)
        self.code = code or self.default_code
        self.errors = tuple(errors)
        self.refused = refused
        self.retry_after = retry_after


class BadRequest(ApiError):
    """The request cannot be read."""

    status, default_code = 400, "bad_request"


class NotAuthenticated(ApiError):
    """An API key is needed: send `Authorization: Bearer <key>`."""

    status, default_code = 401, "not_authenticated"


class Forbidden(ApiError):
    """This key may not do that."""

    status, default_code = 403, "forbidden"


class NotFound(ApiError):
    """There is no such thing."""

    status, default_code = 404, "not_found"


class MethodNotAllowed(ApiError):
    """This method does not exist here."""

    status, default_code = 405, "method_not_allowed"


class RequestTimedOut(ApiError):
    """The body did not arrive in time."""

    status, default_code, retryable = 408, "request_timed_out", True


class Conflict(ApiError):
    """The request does not fit the present state."""

    status, default_code = 409, "conflict"


class PreconditionFailed(ApiError):
    """It has changed since it was read: read it again and decide anew."""

    status, default_code = 412, "precondition_failed"


class TooLarge(ApiError):
    """The body is too large."""

    status, default_code = 413, "too_large"


class UnsupportedMediaType(ApiError):
    """The body must be JSON: send `Content-Type: application/json`."""

    status, default_code = 415, "unsupported_media_type"


class Invalid(ApiError):
    """The request is not valid."""

    status, default_code = 422, "invalid"


class TooManyRequests(ApiError):
    """Too many requests."""

    status, default_code, retryable = 429, "too_many_requests", True


class Unavailable(ApiError):
    """The service cannot answer this just now."""

    status, default_code, retryable = 503, "unavailable", True

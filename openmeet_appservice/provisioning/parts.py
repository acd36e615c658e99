"""What the resources of the API are built from, and what they all need of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.errors import Conflict, FieldError, Invalid, NotFound
from openmeet_appservice.outbound import signing
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web import auth
from openmeet_appservice.web.routes import Scope

CLOCK_TOLERANCE_MS = 5 * 60 * 1000
"""How far OpenMeet's clock may be ahead of ours, in milliseconds."""


NO_LOOKUPS = LookupSettings(url=None, alias_timeout=3.0, timeout=15.0, resync_interval=21600.0)
"""OpenMeet is not asked about anything."""

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[Answer | NoAnswer]]

Explain = Callable[[str, EntityKind, str], Awaitable[Explanation | None]]
"""Says what would be done for an event or group of a tenant; None where there is none of that slug."""


async def explains_nothing(tenant: str, kind: EntityKind, slug: str) -> None:
    """Say nothing of anything: where no reconciler is at hand."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the handlers work with.

    Attributes
    ----------
    database, wakeups
        Where desired state is kept, and who is told of it.
    now
        The clock, in milliseconds since the epoch.
    clock
        Counts seconds from any start, for waiting.
    new_id
        Makes ids.
    puppets, aliases
        The templates of user ids and of room aliases.
    bot
        The bot's user id, which no puppet can have.
    secrets
        Encrypts the secrets of webhooks.
    check_url
        Returns a webhook's URL if it may be called, else raises `OutboundRefused`.
    post
        Sends a webhook and returns what came of it.
    can_purge
        Whether rooms can be deleted for good.
    lookups, lookup_secrets
        How OpenMeet is asked about tenants that chose nothing themselves, and what signs that.
    explain
        Says what the reconciler would do.
    new_key, new_secret
        Make API keys and webhook secrets.
    """

    database: Database
    wakeups: Wakeups
    now: Now
    clock: Callable[[], float]
    new_id: NewId
    puppets: Template
    aliases: Template
    bot: str
    secrets: SecretBox
    check_url: Callable[[str], str]
    post: Post
    can_purge: bool = False
    lookups: LookupSettings = NO_LOOKUPS
    lookup_secrets: Sequence[str] = ()
    explain: Explain = explains_nothing
    new_key: Callable[[Scope], str] = auth.new_key
    new_secret: Callable[[], str] = signing.new_secret


def require_tenant(connection: Connection, tenant_id: str) -> Tenant:
    """Return the tenant that the path names; raises `NotFound` where there is none."""
    found = tenants.get(connection, tenant_id)
    if found is None:
        raise NotFound("There is no such tenant.", code="tenant_not_found")
    return found


def puppet_id(parts: Parts, tenant: Tenant, slug: str) -> str:
    """Return the user id for a new user's puppet.

    Raises
    ------
    Conflict
        It would be the bot's.
    InvalidName
        The names leave no place for it within what Matrix allows.
    """
    user_id = parts.puppets.user_id(tenant=tenant.tenant, user=slug)
    if user_id == parts.bot:
        raise user_id_taken(slug)
    return user_id


def user_id_taken(slug: str) -> Conflict:
    """Return the refusal for a user whose user id on Matrix is another's."""
    return Conflict(f"The user id for {slug} belongs to somebody else.", code="user_id_taken")


def joined_external_id(known: str | None, given: str | None) -> str | None:
    """Return the external id after a write that gives *given*; None leaves what is known.

    Raises
    ------
    Conflict
        Another one is known: the slug now names something else on OpenMeet's side, whose room or
        puppet this must not become.
    """
    if known is not None and given is not None and known != given:
        raise Conflict(
            "This slug belongs to something with another external_id. Delete that first.",
            code="external_id_mismatch",
        )
    return known if given is None else given


def is_older(as_of: int | None, known: int | None) -> bool:
    """Whether data read at *as_of* is older than what was accepted last."""
    return as_of is not None and known is not None and as_of < known


def newest(as_of: int | None, known: int | None) -> int | None:
    """Return the later of two moments, either of which may be unknown."""
    if as_of is None or known is None:
        return known if as_of is None else as_of
    return max(as_of, known)


def check_as_of(as_of: int | None, now: int) -> int | None:
    """Return *as_of* unless it lies in the future.

    Such a moment would have every write of the time until then ignored as outdated.

    Raises
    ------
    Invalid
        It is more than five minutes ahead of our clock.
    """
    if as_of is not None and as_of > now + CLOCK_TOLERANCE_MS:
        detail = "It is in the future: give the moment at which the data was read."
        raise Invalid(errors=[FieldError("?as_of", "in_the_future", detail)])
    return as_of

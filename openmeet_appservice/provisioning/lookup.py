"""Asking OpenMeet what something is like now.

Only two answers count: a 200 that fits the models of ``PUT`` to the letter, and a 404. Whatever else comes,
nothing or nonsense, means that it is unknown; then nothing changes. An answer is checked whole, with all its
pages of members, before anybody sees it. What is refused is not logged either: OpenMeet's own objects hold
addresses and hashes of passwords.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openmeet_appservice import metrics
from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.tenant_settings import LookupSettings, lookup_settings
from openmeet_appservice.errors import ApiError, BadRequest, FieldError, Invalid
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.outbound.signing import derived_secret, webhook_headers
from openmeet_appservice.provisioning.entity_writes import Standings
from openmeet_appservice.provisioning.kinds import people
from openmeet_appservice.provisioning.lookup_models import (
    ANSWERS,
    AnyFound,
    EventFound,
    GroupFound,
    UserFound,
    request_body,
)
from openmeet_appservice.provisioning.specs import Attendee, EventSpec, GroupMember, GroupSpec, UserSpec
from openmeet_appservice.store.hints import Kind
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tenants import Tenant
from openmeet_appservice.web.validation import parse_body

log = logging.getLogger(__name__)

MAX_ANSWER = 8 * 1024 * 1024
"""The most bytes that one page may have, as many as a body that OpenMeet sends us."""

MAX_PAGES = 1000
MAX_MEMBERS = 200_000

LONGEST = 300.0
"""Seconds that all pages of one answer may take together, whatever the timeout for one."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")


class Asking(Protocol):
    """Posts to OpenMeet; see `outbound.client.GuardedClient`."""

    def __call__(self, url: str, body: bytes, headers: dict[str, str], /) -> Awaitable[Answer | NoAnswer]:
        """Send *body*; at most `MAX_ANSWER` + 1 bytes of the answer are needed."""


@dataclass(frozen=True, slots=True)
class Found:
    """How it is. *members* is None where the answer says nothing of them.

    *more* says that there are more members than these: the first page was all that was asked for.
    """

    spec: EventSpec | GroupSpec | UserSpec
    members: Standings | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """OpenMeet says that there is no such thing."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell.

    Parameters
    ----------
    result
        Why, in a word, for metrics.
    detail
        Why, for people.
    down
        The endpoint gives no usable answer to anything, as far as can be seen, so it is to be left alone.
    retry_after
        For how many seconds it asks to be left alone.
    """

    result: str
    detail: str
    down: bool = True
    retry_after: float = 0.0


Outcome = Found | Absent | Unknown


class _Nonsense(Exception):
    """The answer is not one."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Asks OpenMeet.

    Parameters
    ----------
    post
        Sends a request and returns what came of it.
    defaults
        How tenants are asked about that chose nothing themselves.
    secrets
        The configured secrets, the newest first.
    now, clock
        Milliseconds since the epoch; seconds that never go back.
    """

    post: Asking
    defaults: LookupSettings
    secrets: Sequence[str]
    new_id: NewId
    now: Now
    clock: Callable[[], float]

    def settings(self, tenant: Tenant) -> LookupSettings:
        """Return how the tenant is asked about."""
        return lookup_settings(self.defaults, tenant.settings)

    async def ask(
        self,
        tenant: Tenant,
        kind: Kind,
        slug: str,
        user: str | None = None,
        *,
        reason: str,
        first_page_within: float | None = None,
    ) -> Outcome:
        """Ask about one thing; nothing is raised but cancellation.

        Parameters
        ----------
        user
            The one member that is asked about; None: all of it.
        reason
            Why, for metrics: ``hint``, ``turn`` or ``alias``.
        first_page_within
            Only the first page is asked for, and it has to come within so many seconds.
        """
        started = self.clock()
        settings = self.settings(tenant)
        if settings.url is None:
            return Unknown("not_configured", "there is no lookup.url")
        if not self.secrets:
            return Unknown("not_configured", "there are no lookup.secrets to sign with")
        within = first_page_within or LONGEST
        question = _Question(self, tenant, settings, kind, slug, user)
        try:
            async with asyncio.timeout(within):
                outcome = await question.answer(whole=first_page_within is None)
        except TimeoutError:
            outcome = Unknown("no_answer", f"there was no whole answer within {within:g} s")
        metrics.LOOKUP_SECONDS.observe(self.clock() - started)
        metrics.LOOKUPS.labels(reason, _result(outcome)).inc()
        return outcome


@dataclass(frozen=True, slots=True)
class _Question:
    lookup: Lookup
    tenant: Tenant
    settings: LookupSettings
    kind: Kind
    slug: str
    user: str | None

    async def answer(self, *, whole: bool) -> Outcome:
        """Ask page by page."""
        try:
            first = await self._page(None)
            if not isinstance(first, EventFound | GroupFound):
                return Found(first.spec) if isinstance(first, UserFound) else first
            token = first.next_members_page_token
            if first.members is None and token is not None:
                raise _Nonsense("it has a token for members but no members")
            listed = None if first.members is None else list[Attendee | GroupMember](first.members)
            if whole and listed is not None and token is not None:
                rest = await self._rest(token, len(listed))
                if isinstance(rest, Unknown):
                    return rest
                listed += rest
                token = None
            return Found(first.spec, self._members(listed), more=token is not None)
        except _Nonsense as nonsense:
            return Unknown("invalid", str(nonsense), down=False)

    async def _rest(self, token: str | None, known: int) -> list[Attendee | GroupMember] | Unknown:
        listed: list[Attendee | GroupMember] = []
        seen: set[str] = set()
        while token is not None:
            if token in seen:
                raise _Nonsense("it gave the same token for two pages of members")
            seen.add(token)
            if len(seen) >= MAX_PAGES or known + len(listed) > MAX_MEMBERS:
                raise _Nonsense("its pages of members do not end")
            page = await self._page(token)
            if isinstance(page, Unknown):
                return page
            if not isinstance(page, EventFound | GroupFound) or page.members is None:
                raise _Nonsense("a page of members holds none")
            listed += page.members
            token = page.next_members_page_token
        return listed

    async def _page(self, token: str | None) -> AnyFound | Absent | Unknown:
        body = dumps(request_body(self.tenant.tenant_id, self.kind, self.slug, self.user, token)).encode()
        assert self.settings.url is not None
        headers = webhook_headers(
            secrets_for(self.lookup.secrets, self.tenant, self.settings),
            self.lookup.new_id("lookup"),
            self.lookup.now(),
            body,
            tenant_id=self.tenant.tenant_id,
            static={},
        )
        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await self.lookup.post(self.settings.url, body, headers)
        except TimeoutError:
            return Unknown("no_answer", f"there was no answer within {self.settings.timeout:g} s")
        return self._judged(answer)

    def _judged(self, answer: Answer | NoAnswer) -> AnyFound | Absent | Unknown:
        if isinstance(answer, NoAnswer):
            return Unknown("no_answer", answer.detail)
        if answer.status == 404:
            return Absent()
        if answer.status != 200:
            result = "failed" if answer.status >= 500 or answer.status == 429 else "refused"
            return Unknown(result, f"it answered {answer.status}", retry_after=_retry_after(answer))
        if len(answer.body_start) > MAX_ANSWER:
            raise _Nonsense(f"the answer has more than {MAX_ANSWER} bytes")
        try:
            return parse_body(ANSWERS[self.kind], answer.body_start)
        except Invalid as fault:
            raise _Nonsense(_faults(fault.errors)) from None
        except BadRequest:
            raise _Nonsense("the answer is not JSON") from None

    def _members(self, listed: list[Attendee | GroupMember] | None) -> Standings | None:
        if listed is None:
            return None
        if self.user is not None and any(key(member.user) != key(self.user) for member in listed):
            raise _Nonsense("it was asked about one member and tells of others")
        try:
            return people(listed, "/members")
        except ApiError:
            raise _Nonsense("a member is listed twice") from None


def secrets_for(secrets: Sequence[str], tenant: Tenant, settings: LookupSettings) -> list[str]:
    """Return what signs the questions about a tenant.

    A tenant's own endpoint gets secrets of its own, or whoever runs it could ask OpenMeet about all others
    in our name. They follow from ours, so that there is nothing to store.
    """
    if not settings.own:
        return list(secrets)
    return [tenant_secret(secret, tenant) for secret in secrets]


def tenant_secret(secret: str, tenant: Tenant) -> str:
    """Return the secret of a tenant's own endpoint that follows from a configured one."""
    return derived_secret(secret, f"lookup.{tenant.tenant}")


def _retry_after(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _faults(faults: Sequence[FieldError]) -> str:
    """Say where an answer does not fit, without anything that stood in it but names of fields."""
    named = [f"{_plain(fault.pointer)}: {fault.code}" for fault in faults[:5]]
    more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
    return "the answer does not fit: " + ", ".join(named) + more


def _plain(pointer: str) -> str:
    return "/".join(part if not part or _PLAIN_NAME.fullmatch(part) else "?" for part in pointer.split("/"))


def _result(outcome: Outcome) -> str:
    match outcome:
        case Found():
            return "found"
        case Absent():
            return "absent"
        case Unknown():
            return outcome.result

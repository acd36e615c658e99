"""``POST …/changes``: OpenMeet hints that something has changed; what, it is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pydantic import Field, model_validator
from sqlalchemy import Connection

from openmeet_appservice.domain.tenant_settings import lookup_settings
from openmeet_appservice.errors import Conflict
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.texts import SlugText
from openmeet_appservice.store import hints
from openmeet_appservice.store.hints import Kind
from openmeet_appservice.web.models import AnswerModel, ApiModel
from openmeet_appservice.web.routes import Access, Request, Response, Route

MOST: Final = 500
"""How many hints one request may hold."""


class Change(ApiModel):
    """A hint that something has changed."""

    kind: Kind
    slug: SlugText = Field(description="Its slug now.")
    previous_slug: SlugText | None = Field(
        default=None, description="What it was called before, where it was renamed. Not for users."
    )
    deleted: bool = Field(
        default=False,
        description="It was deleted. Without this, something that is not found stays for an hour.",
    )
    user: SlugText | None = Field(
        default=None, description="Only this member of the event or group has changed."
    )

    @model_validator(mode="after")
    def _of_an_entity(self) -> Self:
        if self.kind == "user" and (self.user is not None or self.previous_slug is not None):
            raise ValueError("A user has neither members nor another slug.")
        return self


class Changes(ApiModel):
    """Hints, in any order."""

    changes: list[Change] = Field(min_length=1, max_length=MOST)


class ChangesTaken(AnswerModel):
    """The hints are stored."""

    accepted: int = Field(description="How many there were.")


@dataclass(frozen=True, slots=True)
class ChangesRoute:
    """The handler of hints."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the route."""
        return [
            Route(
                method="POST",
                path="/v1/tenants/{tenant}/changes",
                handler=self.post,
                operation="post_changes",
                summary="Hint that something has changed",
                description="The service asks `lookup.url` about it and makes what it finds the desired "
                "state. Hints that come twice, late, in another order or not at all do no harm.",
                tag="changes",
                access=Access.TENANT,
                body=Changes,
                responses={202: ChangesTaken, 409: None},
            )
        ]

    async def post(self, request: Request) -> Response:
        """Answer ``POST`` once the hints are stored."""
        given = request.body_as(Changes).changes
        await self.parts.database.write(self._store, request.path["tenant"], given, now=self.parts.now())
        self.parts.wakeups.wake("look_up")
        return Response(status=202, body=ChangesTaken(accepted=len(given)))

    def _store(self, connection: Connection, tenant_id: str, given: list[Change], *, now: int) -> None:
        tenant = require_tenant(connection, tenant_id)
        if lookup_settings(self.parts.lookups, tenant.settings).url is None:
            raise Conflict("There is no lookup.url at which this could be asked about.", code="no_lookup")
        # In one order, so that two requests wait for one another instead of deadlocking.
        for change in sorted(given, key=lambda change: (change.kind, change.slug.lower(), change.user or "")):
            hints.add(
                connection,
                tenant.tenant,
                change.kind,
                change.slug,
                user=change.user,
                previous_slug=change.previous_slug,
                deleted=change.deleted,
                now=now,
            )

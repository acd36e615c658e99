"""What became of webhooks: the attempts, and the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.webhooks import TAG, Place, find
from openmeet_appservice.store import attempts, dead_letters, rooms
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.dead_letters import DeadLetter
from openmeet_appservice.web.models import AnswerModel, Page, PageQuery
from openmeet_appservice.web.paging import decode_page_token, encode_page_token
from openmeet_appservice.web.routes import Request, Response, Route

T = TypeVar("T", Attempt, DeadLetter)


class DeliveryAnswer(AnswerModel):
    """One try to deliver a webhook."""

    id: str
    at: str
    tenant: str | None = Field(description="Whose events they were; null for what is about no tenant.")
    webhook_id: str = Field(description="The same on every try of the same webhook.")
    type: str
    room_id: str | None
    first_sequence: int | None
    last_sequence: int | None
    outcome: str = Field(description="`2xx`, `4xx`, `5xx`, `timed_out`, `not_connected`…")
    status: int | None
    milliseconds: int
    answer: str | None = Field(description="How the answer began, or why there was none.")


class DeliveryPage(Page[DeliveryAnswer]):
    """Some of the tries, the newest first. They are kept for seven days."""


class DeadLetterAnswer(AnswerModel):
    """Events that the endpoint did not get."""

    id: str
    at: str
    tenant: str
    room_id: str | None
    first_sequence: int
    last_sequence: int
    reason: str = Field(
        description="`refused`, `exhausted`, or `truncated`: more events waited than `webhooks.max_backlog`."
    )
    detail: str


class DeadLetterPage(Page[DeadLetterAnswer]):
    """Some of the dead letters, the newest first."""


@dataclass(frozen=True, slots=True)
class WebhookRecords:
    """The handlers of what became of webhooks in one place of the API."""

    parts: Parts
    place: Place

    def routes(self) -> list[Route]:
        """Return the routes."""
        place = self.place
        return [
            Route(
                method="GET",
                path=f"{place.one}/deliveries",
                handler=self.deliveries,
                operation=f"list_{place.infix}_deliveries",
                summary="List the tries to deliver, the newest first",
                tag=TAG,
                access=place.access,
                query=PageQuery,
                responses={200: DeliveryPage},
            ),
            Route(
                method="GET",
                path=f"{place.one}/dead-letters",
                handler=self.dead_letters,
                operation=f"list_{place.infix}_dead_letters",
                summary="List the events that were not taken, the newest first",
                tag=TAG,
                access=place.access,
                query=PageQuery,
                responses={200: DeadLetterPage},
            ),
        ]

    async def deliveries(self, request: Request) -> Response:
        """Answer ``GET …/deliveries``."""
        found, token = await self._page(request, attempts.list_page)
        return Response(body=DeliveryPage(items=[_delivery(*one) for one in found], next_page_token=token))

    async def dead_letters(self, request: Request) -> Response:
        """Answer ``GET …/dead-letters``."""
        found, token = await self._page(request, dead_letters.list_page)
        return Response(body=DeadLetterPage(items=[_letter(*one) for one in found], next_page_token=token))

    async def _page(
        self, request: Request, list_page: Callable[..., list[T]]
    ) -> tuple[list[tuple[T, str | None]], str | None]:
        """Return a page's entries, each with the id of its room, and the token of the next page."""
        before, limit = _bounds(request)

        def read(connection: Connection) -> list[tuple[T, str | None]]:
            _, endpoint = find(connection, request)
            found = list_page(connection, endpoint.key, limit=limit, before=before)
            room_ids = _room_ids(connection, found)
            return [(one, room_ids.get(one.room_ref)) for one in found]

        return _cut(await self.parts.database.read(read), limit)


def _bounds(request: Request) -> tuple[tuple[int, str] | None, int]:
    """Return before which entry the page begins, and how many to read: one more than it shows."""
    query = request.query_as(PageQuery)
    if query.page_token is None:
        return None, query.limit + 1
    at, ref = decode_page_token(query.page_token, int, str)
    return (int(at), str(ref)), query.limit + 1


def _cut(found: list[tuple[T, str | None]], limit: int) -> tuple[list[tuple[T, str | None]], str | None]:
    if len(found) < limit:
        return found, None
    last = found[limit - 2][0]
    return found[: limit - 1], encode_page_token(last.at, last.id)


def _room_ids(connection: Connection, found: Sequence[Attempt | DeadLetter]) -> dict[str | None, str]:
    by_tenant: dict[str, set[str]] = {}
    for one in found:
        if one.room_ref is not None:
            by_tenant.setdefault(one.tenant, set()).add(one.room_ref)
    return {
        ref: room_id
        for tenant, refs in by_tenant.items()
        for ref, room_id in rooms.room_ids(connection, tenant, refs).items()
    }


def _delivery(attempt: Attempt, room_id: str | None) -> DeliveryAnswer:
    return DeliveryAnswer(
        id=attempt.id,
        at=to_rfc3339(attempt.at),
        tenant=attempt.tenant or None,
        webhook_id=attempt.webhook_id,
        type=attempt.type,
        room_id=room_id,
        first_sequence=attempt.first,
        last_sequence=attempt.last,
        outcome=attempt.outcome,
        status=attempt.status,
        milliseconds=attempt.milliseconds,
        answer=attempt.answer,
    )


def _letter(letter: DeadLetter, room_id: str | None) -> DeadLetterAnswer:
    return DeadLetterAnswer(
        id=letter.id,
        at=to_rfc3339(letter.at),
        tenant=letter.tenant,
        room_id=room_id,
        first_sequence=letter.first,
        last_sequence=letter.last,
        reason=letter.reason.value,
        detail=letter.detail,
    )

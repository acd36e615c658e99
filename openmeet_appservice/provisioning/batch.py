"""``POST /v1/tenants/{tenant}/batch``: many writes in one request, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field

from openmeet_appservice.errors import ApiError
from openmeet_appservice.provisioning.direct import DirectWritten
from openmeet_appservice.provisioning.items import Item, ItemKind, ItemWriter, Op, Terms, pointed
from openmeet_appservice.provisioning.kinds import EventWritten, GroupWritten
from openmeet_appservice.provisioning.members import MembersWritten
from openmeet_appservice.provisioning.parts import Parts, check_as_of, require_tenant
from openmeet_appservice.provisioning.texts import Moment
from openmeet_appservice.provisioning.users import UserWritten
from openmeet_appservice.web.models import AnswerModel, ApiModel, Problem, ProblemField
from openmeet_appservice.web.problems import document
from openmeet_appservice.web.routes import Access, Request, Response, Route

MAX_ITEMS = 500
"""The most items that one batch holds."""


class BatchQuery(ApiModel):
    """The query of a batch: it holds for each item."""

    as_of: Moment | None = Field(
        default=None,
        description="When OpenMeet read all this. Items older than the last accepted change nothing, and "
        "their resource says `superseded`.",
    )
    confirm_removals: bool = Field(
        default=False,
        description="Remove people even if they are more than 20 and more than 20 % of a room.",
    )


class Batch(ApiModel):
    """Some writes, in the order in which they are done."""

    items: list[Item] = Field(max_length=MAX_ITEMS)


class ItemResult(AnswerModel):
    """What came of one item: `resource` or, from status 400 on, `problem`."""

    op: Op
    kind: ItemKind
    slug: str
    status: int = Field(description="That of the single request.")
    resource: UserWritten | EventWritten | GroupWritten | DirectWritten | MembersWritten | None = Field(
        default=None, description="The answer to the single request."
    )
    problem: Problem | None = Field(
        default=None, description="The refusal of the single request; its pointers lead into the item."
    )


class BatchResult(AnswerModel):
    """What came of each item, in the order of the items."""

    items: list[ItemResult]


@dataclass(frozen=True, slots=True)
class Batches:
    """The handler of batches.

    Attributes
    ----------
    writer
        Does the single items.
    """

    parts: Parts
    writer: ItemWriter

    def routes(self) -> list[Route]:
        """Return the one route."""
        return [
            Route(
                method="POST",
                path="/v1/tenants/{tenant}/batch",
                handler=self.post,
                operation="write_batch",
                summary="Write up to 500 users, events, groups, direct rooms and lists of members",
                description="The items are done in their order, each in a transaction of its own and as the "
                "request that it stands for would be. One that is refused stops no other, so the answer is "
                "200 whatever came of them. Where the database goes away in between the answer is 503: "
                "what came before is done, and the whole may be sent again. So it is after any other loss of "
                "the answer: each item says how things should be, and doing it twice changes nothing more.",
                tag="batch",
                access=Access.TENANT,
                body=Batch,
                query=BatchQuery,
                responses={200: BatchResult},
                takes_idempotency_key=True,
            )
        ]

    async def post(self, request: Request) -> Response:
        """Answer ``POST``."""
        query = request.query_as(BatchQuery)
        terms = Terms(
            tenant=request.path["tenant"],
            caller=request.caller,
            request_id=request.request_id,
            as_of=check_as_of(query.as_of, self.parts.now()),
            confirmed=query.confirm_removals,
        )
        await self.parts.database.read(require_tenant, terms.tenant)
        done = [
            _result(item, await self.writer.write(item, terms), terms.request_id)
            for item in request.body_as(Batch).items
        ]
        return Response(body=BatchResult(items=done))


def batches(parts: Parts, single: Iterable[Route]) -> Batches:
    """Return the handler of batches that does its items through the routes *single*."""
    return Batches(parts, ItemWriter(single))


def _result(item: Item, outcome: Response | ApiError, request_id: str) -> ItemResult:
    resource, problem = None, None
    if isinstance(outcome, ApiError):
        problem = _problem(outcome, request_id)
    else:
        assert isinstance(
            outcome.body, UserWritten | EventWritten | GroupWritten | DirectWritten | MembersWritten
        )
        resource = outcome.body
    return ItemResult(
        op=item.op,
        kind=item.kind,
        slug=item.slug,
        status=outcome.status,
        resource=resource,
        problem=problem,
    )


def _problem(error: ApiError, request_id: str) -> Problem:
    faults = [ProblemField(pointer=one.pointer, code=one.code, detail=one.detail) for one in pointed(error)]
    return Problem.model_validate({**document(error, request_id), "errors": faults or None})

"""``GET …/plan`` of an event or group: what would be done on Synapse now, and why. Nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from openmeet_appservice.provisioning.kinds import Kind
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.slugs import no_entity
from openmeet_appservice.web.models import AnswerModel
from openmeet_appservice.web.routes import Access, Request, Response, Route


class AcceptedChange(AnswerModel):
    """Something that is not as OpenMeet wants it and stays so."""

    field: str | None = Field(description="The key of `rooms.drift` that says so, if one does.")
    reason: str = Field(description="For a person.")


class HeldRemoval(AnswerModel):
    """A removal of many people that waits until it is confirmed."""

    code: str
    users: list[str] = Field(description="Who would be removed, by user id on Matrix.")
    members: int = Field(description="How many people are in the room or invited.")


class PlanNote(AnswerModel):
    """Something that cannot, or must not, be put right."""

    code: str = Field(description="The stable name, as `sync.last_error.code` has it.")
    detail: str = Field(description="For a person.")
    subject: str | None = Field(description="The alias, user id or field it is about.")


class PlanAnswer(AnswerModel):
    """What would be done, in this order. All empty: Synapse agrees."""

    actions: list[dict[str, Any]] = Field(
        description="Each has `action` (its name), `reason` (for a person), and what belongs to the action.",
        examples=[
            [
                {
                    "action": "set_state",
                    "event_type": "m.room.name",
                    "content": {"name": "Board games"},
                    "state_key": "",
                    "reason": "name differs: 'Party' on Matrix, 'Board games' wanted by OpenMeet",
                }
            ]
        ],
    )
    accepted: list[AcceptedChange]
    held: HeldRemoval | None
    notes: list[PlanNote]


@dataclass(frozen=True, slots=True)
class Plans:
    """The handler of one kind."""

    parts: Parts
    kind: Kind

    def routes(self) -> list[Route]:
        """Return the route."""
        name = self.kind.kind.value
        return [
            Route(
                method="GET",
                path=f"{self.kind.path}/plan",
                handler=self.get,
                operation=f"plan_{name}",
                summary=f"Show what would be done on Matrix for the {name}, and why",
                description="The room is compared with what is wanted; nothing is changed. Where the alias "
                "leads to another room shows only when it is really done.",
                tag=self.kind.tag,
                access=Access.TENANT,
                responses={200: PlanAnswer, 409: None},
            )
        ]

    async def get(self, request: Request) -> Response:
        """Answer ``GET``."""
        place = self.kind.place(request)
        tenant = await self.parts.database.read(require_tenant, place.tenant)
        found = await self.parts.explain(tenant.tenant, place.kind, place.slug)
        if found is None:
            raise await self.parts.database.read(no_entity, tenant, place.kind, place.slug)
        shown = found.verdict.to_json()
        return Response(
            body=PlanAnswer(
                actions=shown["actions"],
                accepted=[AcceptedChange(**one) for one in shown["accepted"]],
                held=None if shown["held"] is None else HeldRemoval(**shown["held"]),
                notes=[PlanNote(**{"subject": None, **one}) for one in shown["notes"]],
            )
        )

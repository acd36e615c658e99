"""``matrix``, ``sync`` and ``etag`` of resources: how far Synapse has followed, as the API shows it."""

from __future__ import annotations

from pydantic import Field

from openmeet_appservice.domain.kinds import Access
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.phase import Phase, phase
from openmeet_appservice.domain.rooms import EntityFacts, RoomSettings, desired_room
from openmeet_appservice.store.entities import Entity, EntityView
from openmeet_appservice.store.sync import SyncStatus
from openmeet_appservice.store.users import User, UserView
from openmeet_appservice.web.models import AnswerModel

SETTLED = frozenset({Phase.NONE, Phase.READY, Phase.ARCHIVED})
"""The phases in which there is nothing to wait for."""

_NEVER_TOUCHED = SyncStatus(generation=0, observed_generation=0, attempts=0, due_at=None, error=None)
_ANY_SETTINGS = RoomSettings(
    alias="",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels={},
    chat_statuses=frozenset(),
)


class LastError(AnswerModel):
    """Why Synapse does not agree yet."""

    code: str = Field(description="The stable name of the fault, such as `mass_removal_held`.")
    detail: str = Field(description="For a person.")
    at: str = Field(description="When it was found (RFC 3339).")
    attempts: int = Field(description="How often it has been tried in a row.")
    next_attempt_at: str | None = Field(description="When it will be tried again.")


class SyncState(AnswerModel):
    """How far Synapse has followed what OpenMeet wants."""

    phase: Phase
    generation: int = Field(description="Counts the changes of what is wanted on Matrix.")
    observed_generation: int = Field(description="The one that Synapse was last seen to agree with.")
    last_error: LastError | None


class RoomOnMatrix(AnswerModel):
    """The room of an event or group."""

    room_id: str | None = Field(description="Null until there is a room.")
    alias: str | None = Field(description="The alias that leads to the room, if any does.")
    room_version: str | None


class UserOnMatrix(AnswerModel):
    """A user's puppet."""

    user_id: str


def room_on_matrix(view: EntityView) -> RoomOnMatrix:
    """Return what is known of an entity's room."""
    return RoomOnMatrix(room_id=view.room_id, alias=view.room_alias, room_version=view.room_version)


def entity_sync(view: EntityView) -> SyncState:
    """Return the state of an event or group."""
    entity, status = view.entity, view.sync or _NEVER_TOUCHED
    archived = entity.archived_at is not None
    facts = EntityFacts(
        kind=entity.kind,
        name=entity.name,
        status=entity.status,
        visibility=entity.visibility,
        alias=entity.alias,
        archived=archived,
        has_room=view.has_room,
    )
    # What is wanted does not depend on settings; asking the domain keeps its rule in one place.
    wanted = desired_room(facts, (), _ANY_SETTINGS, bot="", default_version="").wanted
    found = phase(
        wanted=wanted,
        archived=archived,
        generation=status.generation,
        observed_generation=status.observed_generation,
        has_error=status.error is not None,
        has_room=view.has_room,
        purge=entity.purge_at is not None,
    )
    return _state(found, status)


def user_sync(view: UserView) -> SyncState:
    """Return the state of a user; of a placeholder nothing is wanted yet."""
    if view.sync is None:
        return _state(Phase.NONE, _NEVER_TOUCHED)
    if view.sync.error is not None:
        return _state(Phase.DEGRADED, view.sync)
    settled = view.sync.observed_generation >= view.sync.generation
    return _state(Phase.READY if settled else Phase.PENDING, view.sync)


def entity_etag(entity: Entity) -> str:
    """Return the entity tag of what is wanted, members aside."""
    return f"{entity.ref}.{entity.revision}"


def members_etag(entity: Entity) -> str:
    """Return the entity tag of the list of members."""
    return f"{entity.ref}.m{entity.members_revision}"


def user_etag(user: User) -> str:
    """Return the entity tag of what is wanted of a user."""
    return f"{user.ref}.{user.revision}"


def _state(found: Phase, status: SyncStatus) -> SyncState:
    return SyncState(
        phase=found,
        generation=status.generation,
        observed_generation=status.observed_generation,
        last_error=_last_error(status),
    )


def _last_error(status: SyncStatus) -> LastError | None:
    error = status.error
    if error is None:
        return None
    next_at = status.due_at if error.next_at is None else error.next_at
    return LastError(
        code=error.code,
        detail=error.detail,
        at=to_rfc3339(error.at),
        attempts=status.attempts if error.attempts is None else error.attempts,
        next_attempt_at=None if next_at is None else to_rfc3339(next_at),
    )

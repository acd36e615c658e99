"""The life of an event or group beyond its spec: renaming it, making its room anew, looking at it again."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from openmeet_appservice.provisioning import life_writes
from openmeet_appservice.provisioning.entities import Entities
from openmeet_appservice.provisioning.texts import SlugText
from openmeet_appservice.provisioning.writes import RoomWriteQuery, WriteQuery, write_of
from openmeet_appservice.web.models import ApiModel
from openmeet_appservice.web.routes import Access, Request, Response, Route


class NewSlug(ApiModel):
    """How it is called from now on."""

    slug: SlugText


class NewRoom(ApiModel):
    """What is to be different about the new room."""

    encrypted: bool | None = Field(
        default=None, description="Becomes a part of the spec. Absent: as the spec says already."
    )


@dataclass(frozen=True, slots=True)
class LifeCycle:
    """The handlers of one kind; *entities* are those that read and write its spec."""

    entities: Entities

    def routes(self) -> list[Route]:
        """Return the routes."""
        kind = self.entities.kind
        name, written = kind.kind.value, kind.written
        return [
            Route(
                method="POST",
                path=f"{kind.path}/rename",
                handler=self.rename,
                operation=f"rename_{name}",
                summary=f"Give the {name} another slug",
                description="The room keeps the alias of the old slug beside that of the new one, until "
                "something else takes the old slug, which gets a fresh room. The old slug is 404, and its "
                "`detail` names the new one. In another case it is the same slug. A slug that is in use is "
                "409 `slug_taken`. Repeated by the old slug after it is done, this changes nothing.",
                tag=kind.tag,
                access=Access.TENANT,
                body=NewSlug,
                query=WriteQuery,
                responses={200: written, 202: written, 409: None},
                takes_if_match=True,
                takes_idempotency_key=True,
            ),
            Route(
                method="POST",
                path=f"{kind.path}/recreate",
                handler=self.recreate,
                operation=f"recreate_{name}",
                summary="Put a new room in the place of its present one",
                description="The members come along, the aliases too, and so do bans. The old room becomes "
                "read-only and leads to the new one; its people stay in it until the "
                f"{name} is closed. Told by the webhook `room.replaced`. The only way out of encryption is "
                '`{"encrypted": false}`. Each call makes another room: use an `Idempotency-Key`. '
                "409 `not_open` for what is not published, `room_not_ready` while its room is being made.",
                tag=kind.tag,
                access=Access.TENANT,
                body=NewRoom,
                query=WriteQuery,
                responses={200: written, 202: written, 409: None},
                takes_if_match=True,
                takes_idempotency_key=True,
            ),
            Route(
                method="POST",
                path=f"{kind.path}/resync",
                handler=self.resync,
                operation=f"resync_{name}",
                summary="Compare its room with what is wanted, now",
                description="Reads the room anew from the homeserver and puts right what differs, without "
                "waiting for the next regular check; its picture is fetched again. With `confirm_removals` "
                "also what is held (`mass_removal_held`) is done.",
                tag=kind.tag,
                access=Access.TENANT,
                query=RoomWriteQuery,
                responses={200: written, 202: written},
                takes_idempotency_key=True,
            ),
        ]

    async def rename(self, request: Request) -> Response:
        """Answer ``POST …/rename``."""
        parts, place = self.entities.parts, self.entities.kind.place(request)
        write = write_of(parts, request)
        slug = request.body_as(NewSlug).slug
        done = await parts.database.write(life_writes.rename, parts, place, slug, write)
        return await self.entities.answered(request, write, done)

    async def resync(self, request: Request) -> Response:
        """Answer ``POST …/resync``."""
        parts, place = self.entities.parts, self.entities.kind.place(request)
        write = write_of(parts, request)
        done = await parts.database.write(life_writes.resync, place, write)
        parts.wakeups.wake("pictures")
        return await self.entities.answered(request, write, done)

    async def recreate(self, request: Request) -> Response:
        """Answer ``POST …/recreate``."""
        parts, place = self.entities.parts, self.entities.kind.place(request)
        write = write_of(parts, request)
        encrypted = request.body_as(NewRoom).encrypted
        done = await parts.database.write(life_writes.recreate, place, encrypted, write)
        return await self.entities.answered(request, write, done)

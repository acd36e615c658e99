"""API keys: who a key belongs to, and making, listing and revoking them, for admins."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import Field, SecretStr
from sqlalchemy import Connection

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.errors import Conflict, FieldError, Invalid, NotFound
from openmeet_appservice.provisioning.paging import bounds, cut
from openmeet_appservice.provisioning.parts import Parts, require_tenant
from openmeet_appservice.provisioning.texts import Name
from openmeet_appservice.store import keys
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.keys import PLATFORM, ApiKey
from openmeet_appservice.web.auth import KeyLookup, check_supplied_key, digest
from openmeet_appservice.web.models import AnswerModel, ApiModel, Page, PageQuery
from openmeet_appservice.web.routes import Access, Caller, Request, Response, Route, Scope

_TAG = "keys"


def key_lookup(database: Database, admin_digests: Collection[str]) -> KeyLookup:
    """Return the function that tells whose key has a digest.

    A key that is revoked is refused from then on: nothing is remembered between requests.

    Parameters
    ----------
    admin_digests
        SHA-256 (hex) of the admin keys, which stand in the configuration.
    """
    admins = frozenset(admin_digests)

    async def look_up(digest: str) -> Caller | None:
        if digest in admins:
            return Caller(Scope.ADMIN, None, "admin", "admin")
        found = await database.read(keys.by_digest, digest)
        if found is None:
            return None
        return Caller(Scope(found.scope), found.tenant or None, found.id, found.name)

    return look_up


class NewKey(ApiModel):
    """A key to be made."""

    name: Name = Field(description="For people, to know it again.", examples=["backend"])
    api_key: SecretStr | None = Field(
        default=None,
        description="A key made elsewhere: `omk_tenant_` or `omk_platform_` and at least 32 random "
        "characters. Absent: one is made.",
    )


class KeyAnswer(AnswerModel):
    """An API key, of which only its digest is kept."""

    id: str
    scope: Scope
    name: str
    created_at: str


class KeyMade(KeyAnswer):
    """A new API key. This answer is the only one that ever shows it."""

    api_key: str


class KeyPage(Page[KeyAnswer]):
    """Some of the keys, by id."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The handlers of a tenant's keys and of platform keys: those whose path names no tenant."""

    parts: Parts

    def routes(self) -> list[Route]:
        """Return the routes of keys."""
        return [
            *self._routes("/v1/tenants/{tenant}/keys", "tenant"),
            *self._routes("/v1/keys", "platform"),
        ]

    def _routes(self, path: str, scope: str) -> list[Route]:
        return [
            Route(
                method="POST",
                path=path,
                handler=self.make,
                operation=f"make_{scope}_key",
                summary=f"Make a {scope} key, which is shown this once",
                tag=_TAG,
                access=Access.ADMIN,
                body=NewKey,
                responses={201: KeyMade, 409: None},
                takes_idempotency_key=True,
            ),
            Route(
                method="GET",
                path=path,
                handler=self.list,
                operation=f"list_{scope}_keys",
                summary=f"List the {scope} keys, without the keys themselves",
                tag=_TAG,
                access=Access.ADMIN,
                query=PageQuery,
                responses={200: KeyPage},
            ),
            Route(
                method="DELETE",
                path=path + "/{key_id}",
                handler=self.revoke,
                operation=f"revoke_{scope}_key",
                summary=f"Revoke a {scope} key, at once",
                tag=_TAG,
                access=Access.ADMIN,
                responses={202: None},
            ),
        ]

    async def make(self, request: Request) -> Response:
        """Answer ``POST``."""
        wanted = request.body_as(NewKey)
        scope = Scope.TENANT if "tenant" in request.path else Scope.PLATFORM
        if wanted.api_key is None:
            secret = self.parts.new_key(scope)
        else:
            secret = _checked(scope, wanted.api_key.get_secret_value())
        made = await self.parts.database.write(self._add, request, wanted.name, digest(secret))
        body = KeyMade(**_fields(made), api_key=secret)
        return Response(status=201, body=body, secret=True)

    async def list(self, request: Request) -> Response:
        """Answer ``GET``."""
        after, limit = bounds(request)

        def read(connection: Connection) -> list[ApiKey]:
            return keys.list_page(connection, _owner(connection, request), after=after, limit=limit)

        shown, token = cut(request, await self.parts.database.read(read), lambda key: key.id)
        items = [KeyAnswer(**_fields(key)) for key in shown]
        return Response(body=KeyPage(items=items, next_page_token=token))

    async def revoke(self, request: Request) -> Response:
        """Answer ``DELETE``."""

        def write(connection: Connection) -> bool:
            return keys.revoke(connection, _owner(connection, request), request.path["key_id"])

        if not await self.parts.database.write(write):
            raise NotFound("There is no such key.", code="key_not_found")
        return Response(status=202)

    def _add(self, connection: Connection, request: Request, name: str, hashed: str) -> ApiKey:
        owner = _owner(connection, request)
        made = keys.add(
            connection, owner, name=name, digest=hashed, now=self.parts.now(), new_id=self.parts.new_id
        )
        if made is None:
            raise Conflict("This key is in use already.", code="key_in_use")
        return made


def _owner(connection: Connection, request: Request) -> str:
    if "tenant" not in request.path:
        return PLATFORM
    return require_tenant(connection, request.path["tenant"]).tenant


def _checked(scope: Scope, key: str) -> str:
    try:
        return check_supplied_key(scope, key)
    except ValueError as fault:
        raise Invalid(errors=[FieldError("/api_key", "invalid_value", str(fault))]) from None


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "scope": Scope(key.scope),
        "name": key.name,
        "created_at": to_rfc3339(key.created_at),
    }

"""The store of idempotency keys, as `web` wants it."""

from __future__ import annotations

from dataclasses import dataclass

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.store import idempotency
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.idempotency import Answered, Key
from openmeet_appservice.web.idempotency import (
    Begun,
    Fresh,
    KeyedRequest,
    Mismatch,
    Replay,
    Running,
    SecretShown,
)


@dataclass(frozen=True, slots=True)
class StoredIdempotency:
    """Keeps keys and answers in the database; an implementation of `web.idempotency.IdempotencyStore`."""

    database: Database
    now: Now

    async def begin(self, request: KeyedRequest) -> Begun:
        """Say what is known of this key, and record it as running where nothing is."""
        begun = await self.database.write(
            idempotency.begin, _key(request), request.body_sha256, now=self.now()
        )
        if isinstance(begun, Answered):
            return SecretShown() if begun.body is None else Replay(begun.status, begun.body.encode())
        if begun == "fresh":
            return Fresh()
        return Running() if begun == "running" else Mismatch()

    async def finish(self, request: KeyedRequest, result: Replay | SecretShown | None) -> None:
        """Keep the answer of a request that was `Fresh`; None forgets the key."""
        if result is None:
            await self.database.write(idempotency.end, _key(request))
        elif isinstance(result, SecretShown):
            await self.database.write(idempotency.answer, _key(request), Answered(0, None))
        else:
            answered = Answered(result.status, result.body.decode())
            await self.database.write(idempotency.answer, _key(request), answered)

    async def forget_old(self) -> int:
        """Drop what is older than 24 hours; return how many. For the nightly round."""
        return await self.database.write(idempotency.forget, now=self.now())


def _key(request: KeyedRequest) -> Key:
    return Key(request.tenant, request.route, request.key)

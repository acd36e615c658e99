"""Sending a message as one of OpenMeet's users, once in effect.

A row with the message, its transaction id and its mark is committed before Synapse is asked. When it is
not known what Synapse did, the message is looked for by its mark, in the event log and in the room's
history, and only what is in neither is sent again: Synapse remembers transaction ids in memory only, so
that after its restart the same id would send twice.

In a large room not every member is inside from the beginning. Only Synapse knows surely who is, so a message
that it refuses has its sender let in, and is sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openmeet_appservice import errors
from openmeet_appservice.domain.arrival import MARK
from openmeet_appservice.homeserver.facade import Homeserver
from openmeet_appservice.store import messages
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.messages import Message, Sender

ATTEMPTS = 3
"""How often one call sends a message whose outcome stays unknown."""

WAIT = 1.0
"""Seconds between these."""

CLOCK_TOLERANCE = 10 * 60 * 1000
"""Milliseconds by which Synapse's clock may be behind ours before the search stops too early."""

Admit = Callable[[str, str, str], Awaitable[bool]]
"""Lets a member into a room: tenant, our id of the entity, user id. False when it was inside already.

Raises `NotReconciled` where it does not belong there, and `HomeserverError`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sending:
    """Sends messages.

    Parameters
    ----------
    sleep
        Waits for a number of seconds.
    now
        Milliseconds since the epoch.
    admit
        Lets in who belongs into a room and is not inside.
    """

    database: Database
    homeserver: Homeserver
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], int]
    admit: Admit

    async def send(
        self, tenant: str, message_id: str, sender: Sender, transaction_id: str, content: Mapping[str, Any]
    ) -> str:
        """Send *content* with the mark *message_id* and return the event's id.

        Called again with the same *message_id*, it takes up the message where it was left.

        Raises
        ------
        Unavailable
            Synapse is away, is busy or does not know our token; the same call may be made again.
        Conflict
            Synapse refused, with its reason, or the sender does not belong into the room any more.
        """
        marked = {**content, MARK: message_id}
        prepared = await self.database.write(
            messages.prepare,
            tenant,
            message_id,
            sender,
            transaction_id=transaction_id,
            content=marked,
            now=self.now(),
        )
        message, may_be_there = prepared.message, not prepared.fresh
        for attempt in range(1, ATTEMPTS + 1):
            event_id = message.event_id or (await self._find(message) if may_be_there else None)
            if event_id is None:
                event_id = await self._put(message, marked, sender)
            if event_id is not None:
                await self.database.write(messages.sent, tenant, message_id, event_id)
                return event_id
            may_be_there = True
            if attempt < ATTEMPTS:
                await self.sleep(WAIT)
                refreshed = await self.database.read(messages.get, tenant, message_id)
                message = refreshed or message
        raise errors.Unavailable(
            "The homeserver does not answer, so it is unknown whether the message was sent. Send the same "
            "request with the same Idempotency-Key again: it will not be sent twice.",
            code="homeserver_unreachable",
            retry_after=5,
        )

    async def _put(self, message: Message, content: Mapping[str, Any], sender: Sender) -> str | None:
        """Send it; None where the outcome is unknown."""
        try:
            return await self._put_as_member(message, content, sender)
        except errors.NotReconciled as error:
            await self.database.write(messages.drop, message.tenant, message.id)
            raise errors.Conflict(error.detail, code="sender_may_not_chat") from error
        except errors.HomeserverUnreachable as error:
            log.warning("whether message %s was sent is unknown: %s", message.id, error)
            return None
        except errors.HomeserverLimited as error:
            raise errors.Unavailable(
                "The homeserver asks for patience.",
                code="homeserver_busy",
                refused=error,
                retry_after=error.retry_after,
            ) from error
        except errors.HomeserverRefused as error:
            if error.status >= 500:
                log.warning("whether message %s was sent is unknown: %s", message.id, error)
                return None
            if error.status == 401:
                # Not the message is at fault but our registration, which an admin will mend.
                raise errors.Unavailable(
                    "The homeserver does not accept this service's as_token.",
                    code="as_token_refused",
                    refused=error,
                    retry_after=30,
                ) from error
            await self.database.write(messages.drop, message.tenant, message.id)
            if error.errcode == "M_FORBIDDEN" and not sender.settled:
                raise errors.Unavailable(
                    "The sender is not in the room yet; the entity's `sync` says how far it is.",
                    code="room_not_ready",
                    refused=error,
                    retry_after=2,
                ) from error
            raise errors.Conflict(
                "The homeserver refused the message.", code="refused_by_homeserver", refused=error
            ) from error

    async def _put_as_member(self, message: Message, content: Mapping[str, Any], sender: Sender) -> str:
        if not sender.registered:
            # Who has no account is not inside.
            await self.admit(message.tenant, sender.entity_ref, sender.user_id)
        try:
            return await self._send(message, content)
        except errors.HomeserverRefused as error:
            if error.errcode != "M_FORBIDDEN":
                raise
            # The same answer for who is outside and for who may only read.
            if not await self.admit(message.tenant, sender.entity_ref, sender.user_id):
                raise
        return await self._send(message, content)

    async def _send(self, message: Message, content: Mapping[str, Any]) -> str:
        return await self.homeserver.send(
            message.room_id, "m.room.message", message.transaction_id, content, as_user=message.user_id
        )

    async def _find(self, message: Message) -> str | None:
        """Look for the message in the room's history, as far back as it can be."""
        oldest = message.created_at - CLOCK_TOLERANCE
        token: str | None = None
        reader: str | None = None
        try:
            while True:
                try:
                    page = await self.homeserver.messages(message.room_id, from_=token, as_user=reader)
                except errors.HomeserverRefused as error:
                    if error.status != 403 or reader is not None:
                        raise
                    # The bot is not inside, as in every direct room.
                    reader = message.user_id
                    continue
                for event in page.events:
                    content = event.get("content")
                    if (
                        isinstance(content, dict)
                        and content.get(MARK) == message.id
                        and event.get("sender") == message.user_id
                    ):
                        return str(event["event_id"])
                if page.end in (None, token) or _older(page.events, oldest):
                    return None
                token = page.end
        except errors.HomeserverError as error:
            raise errors.Unavailable(
                "The homeserver does not tell whether the message was sent before. Try again.",
                code="homeserver_unreachable",
                retry_after=5,
            ) from error


def _older(events: list[dict[str, Any]], moment: int) -> bool:
    """Tell whether all of the page was before *moment*: a single event's time is what its server claims."""
    times = [event.get("origin_server_ts") for event in events]
    return bool(times) and all(isinstance(time, int) and time < moment for time in times)

"""The body of a ``room.events`` webhook: pure.

The events are put into the body as the text in which they were stored, so that nothing Synapse sent is
dropped, reordered or rewritten on its way, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.store.batches import LoggedEvent, Puppet, Route

ENCRYPTED = "m.room.encrypted"


@dataclass(frozen=True, slots=True)
class Built:
    """A body, and the sequences of the first and last event in it."""

    body: str
    first: int
    last: int


def candidates(events: Iterable[LoggedEvent], *, max_events: int, max_bytes: int) -> list[LoggedEvent]:
    """Take as many events as can possibly be in one batch, at least one where there is one.

    `build` decides how many really are, for it knows how much is added to each. No more of *events* is
    read than needed.
    """
    taken: list[LoggedEvent] = []
    size = 0
    for event in events:
        size += len(event.body.encode())
        if taken and size > max_bytes:
            break
        taken.append(event)
        if len(taken) == max_events:
            break
    return taken


def build(
    route: Route,
    events: Sequence[LoggedEvent],
    puppets: Mapping[str, Puppet],
    *,
    bot: str,
    max_bytes: int,
    now: int,
) -> Built:
    """Make the body of the first of *events*: as many as fit, and the very first in any case.

    Parameters
    ----------
    route
        The room they are of.
    events
        Successive ones, at least one.
    puppets
        Whose puppets the senders are, by user id.
    bot
        The bot's user id.
    max_bytes
        How long the body may be in UTF-8; the first event is put in even when it is longer.
    now
        The batch's ``timestamp``: when it is made, in milliseconds since the epoch.
    """
    head, tail = _frame(route, now)
    size = len(head.encode()) + len(tail)
    items: list[str] = []
    for event in events:
        item = _item(event, sender(event.sender, puppets, bot))
        size += len(item.encode()) + (1 if items else 0)
        if items and size > max_bytes:
            break
        items.append(item)
    body = head + ",".join(items) + tail
    return Built(body, events[0].sequence, events[len(items) - 1].sequence)


def _frame(route: Route, now: int) -> tuple[str, str]:
    outer = dumps({"type": ROOM_EVENTS, "timestamp": to_rfc3339(now)}).removesuffix("}")
    inner = dumps({"tenant": route.tenant_id, "room": route.shown()}).removesuffix("}")
    return f'{outer},"data":{inner},"events":[', "]}}"


def _item(event: LoggedEvent, sender: Mapping[str, str | None]) -> str:
    facts: dict[str, object] = {"sequence": event.sequence, "origin": event.origin, "sender": sender}
    if event.type == ENCRYPTED:
        facts["encrypted"] = True
    if event.repaired_after is not None:
        facts |= {"repaired": True, "after_event_id": event.repaired_after or None}
    text = dumps(facts)
    return f'{text.removesuffix("}")},"event":{event.body}}}'


def sender(user_id: str, puppets: Mapping[str, Puppet], bot: str) -> dict[str, str | None]:
    """Return who a user id is, as the bodies of webhooks tell it."""
    puppet = puppets.get(user_id)
    if puppet is not None:
        kind, user, external_id = "puppet", puppet.user, puppet.external_id
    else:
        kind, user, external_id = ("bot" if user_id == bot else "other"), None, None
    return {"user_id": user_id, "kind": kind, "user": user, "external_id": external_id}

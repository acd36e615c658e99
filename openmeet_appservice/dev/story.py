"""The story that `dev` plays: everything this service is for, once, each step seen to have happened.

A tenant, three users, a group, an event in it with members and roles; Synapse shows the room, its alias,
names and powers; a puppet speaks through the API; a person with an ordinary Matrix account looks the alias
up, joins and answers; both messages arrive at the stand-in OpenMeet by webhook, signature verified.

It can be played again on what an earlier play left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from openmeet_appservice.dev.api import Api
from openmeet_appservice.dev.person import Person
from openmeet_appservice.dev.stand_in import StandIn
from openmeet_appservice.errors import HomeserverRefused, OpenMeetError

TENANT, GROUP, EVENT = "demo", "chess-club", "board-games-k3v9ab"
USERS = {"ada-x8z1q0": "Ada Lovelace", "grace-9ab2cd": "Grace Hopper", "alan-f00ba4": "Alan Turing"}
HOST, MODERATOR, GUEST = USERS


class StepFailed(OpenMeetError):
    """A step of the story was not seen to happen."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part.

    Parameters
    ----------
    admin
        Calls the API with the admin key.
    tenant_key
        The key that the tenant was or is to be given.
    webhook_url, webhook_secret
        Where the stand-in listens, and what its webhooks are signed with.
    synapse_url
        Where the ordinary person's client connects.
    person
        Name and password of the ordinary account, made if it is not there.
    wait
        Seconds, at most 30, that the API waits for Synapse to agree, and we for a webhook.
    """

    admin: Api
    tenant_key: str
    webhook_url: str
    webhook_secret: str
    stand_in: StandIn
    synapse_url: str
    person: tuple[str, str]
    wait: int = 30


async def play(cast: Cast, session: ClientSession, nonce: str, say: Callable[[str], None]) -> str:
    """Play the story and return the id of the event's room.

    Parameters
    ----------
    nonce
        Makes this play's messages different from an earlier one's.
    say
        Is told each step as it happens.

    Raises
    ------
    OpenMeetError
        A step failed; the message says which and how.
    """
    tenant = Api(session, cast.admin.url, cast.tenant_key)
    await _provision_tenant(cast, tenant, say)
    event = await _provision_room(cast, tenant, say)
    room_id, alias = event["matrix"]["room_id"], event["matrix"]["alias"]
    said = await _speak(tenant, nonce, say)
    person = await _person(cast, session)
    joined = await person.join(alias)
    _expect(joined == room_id, f"the alias led to {joined} instead of {room_id}")
    say(f"{person.user_id}, an ordinary account, looked up {alias} and joined")
    await _look_around(person, room_id, alias, say)
    answered = await person.send_text(room_id, f"I will bring a clock. ({nonce})")
    say(f"{person.user_id} answered: {answered}")
    for event_id, who in ((said, "puppet"), (answered, "other")):
        await _arrival(cast, event_id, who, say)
    return str(room_id)


async def _provision_tenant(cast: Cast, tenant: Api, say: Callable[[str], None]) -> None:
    await cast.admin.call("PUT", f"/v1/tenants/{TENANT}", {"name": "Demo"})
    try:
        await tenant.call("GET", f"/v1/tenants/{TENANT}/users")
    except OpenMeetError:
        await cast.admin.call(
            "POST", f"/v1/tenants/{TENANT}/keys", {"name": "dev", "api_key": cast.tenant_key}
        )
    say(f"tenant {TENANT} is there, with an API key of its own")
    await tenant.call(
        "PUT",
        f"/v1/tenants/{TENANT}/webhooks/main",
        {"url": cast.webhook_url, "secret": cast.webhook_secret},
    )
    say(f"its webhooks go to {cast.webhook_url}")


async def _provision_room(cast: Cast, tenant: Api, say: Callable[[str], None]) -> dict[str, Any]:
    for slug, name in USERS.items():
        user = await tenant.call(
            "PUT", f"/v1/tenants/{TENANT}/users/{slug}?wait={cast.wait}", {"display_name": name}
        )
        _expect_ready(user, f"user {slug}", cast.wait)
        say(f"user {slug} is {user['matrix']['user_id']}, shown as {name}")
    for kind, slug, spec in (("group", GROUP, _GROUP), ("event", EVENT, _EVENT)):
        entity = await tenant.call("PUT", f"/v1/tenants/{TENANT}/{kind}s/{slug}?wait={cast.wait}", spec)
        _expect_ready(entity, f"{kind} {slug}", cast.wait)
        matrix = entity["matrix"]
        room = f"room {matrix['room_id']} (version {matrix['room_version']})"
        say(f"{kind} {slug} has {room}: {matrix['alias']}")
    return entity


async def _speak(tenant: Api, nonce: str, say: Callable[[str], None]) -> str:
    message = await tenant.call(
        "POST",
        f"/v1/tenants/{TENANT}/events/{EVENT}/messages",
        {"sender": HOST, "body": f"Who brings the chess board? ({nonce})"},
        {"Idempotency-Key": f"dev-{nonce}"},
    )
    say(f"{USERS[HOST]} spoke through the API: {message['event_id']}")
    return str(message["event_id"])


async def _person(cast: Cast, session: ClientSession) -> Person:
    name, password = cast.person
    try:
        return await Person.register(session, cast.synapse_url, name, password)
    except HomeserverRefused as error:
        if error.errcode != "M_USER_IN_USE":
            raise
        return await Person.login(session, cast.synapse_url, name, password)


async def _look_around(person: Person, room_id: str, alias: str, say: Callable[[str], None]) -> None:
    state = await person.state(room_id)
    name = state["m.room.name", ""]["name"]
    _expect(name == _EVENT["name"], f"the room is called {name!r}")
    canonical = state["m.room.canonical_alias", ""].get("alias")
    _expect(canonical == alias, f"the room's canonical alias is {canonical}")
    shown = await person.joined_members(room_id)
    missing = set(USERS.values()) - set(shown.values())
    _expect(not missing, f"{', '.join(sorted(missing))} are not in the room")
    powers = state["m.room.power_levels", ""]["users"]
    by_name = {shown[user]: level for user, level in powers.items() if user in shown}
    version = state["m.room.create", ""]["room_version"]
    host = 100 if version == "12" else 99
    for who, level in ((HOST, host), (MODERATOR, 50), (GUEST, None)):
        found = by_name.get(USERS[who])
        _expect(found == level, f"{USERS[who]} has power {found} instead of {level}")
    say(f"Synapse shows {name!r} with {', '.join(sorted(USERS.values()))}; host {host}, moderator 50")


async def _arrival(cast: Cast, event_id: str, who: str, say: Callable[[str], None]) -> None:
    try:
        event = await cast.stand_in.wait_for(lambda e: e["event"]["event_id"] == event_id, cast.wait)
    except TimeoutError:
        faults = {delivery.fault for delivery in cast.stand_in.deliveries if delivery.fault}
        why = f": {', '.join(sorted(faults))}" if faults else ""
        raise StepFailed(f"{event_id} did not reach OpenMeet within {cast.wait} s{why}") from None
    _expect(event["sender"]["kind"] == who, f"{event_id} came from a {event['sender']['kind']}, not a {who}")
    say(f"OpenMeet received {event_id} as number {event['sequence']} of its room, signature verified")


def _expect_ready(resource: dict[str, Any], what: str, waited: int) -> None:
    sync = resource["sync"]
    error = (sync["last_error"] or {}).get("detail", "")
    _expect(sync["phase"] == "ready", f"{what} is {sync['phase']} after {waited} s. {error}")


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise StepFailed(otherwise)


_GROUP: dict[str, Any] = {
    "name": "Chess Club",
    "topic": "Everything about chess",
    "visibility": "public",
    "status": "published",
    "members": [
        {"user": HOST, "role": "owner"},
        {"user": MODERATOR, "role": "moderator"},
        {"user": GUEST, "role": "member"},
    ],
}
_EVENT: dict[str, Any] = {
    "name": "Board games on Friday",
    "topic": "Bring a game and a friend",
    "visibility": "public",
    "access": "anyone",
    "status": "published",
    "members": [
        {"user": HOST, "role": "host"},
        {"user": MODERATOR, "role": "moderator", "status": "confirmed"},
        {"user": GUEST, "role": "participant", "status": "attended"},
    ],
}

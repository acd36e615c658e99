"""``explain``: the daily question, "Ada can't see the chat"."""

from __future__ import annotations

import argparse
from typing import Any

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli.output import DONE, PROBLEM, add_command, configuration, print_json
from openmeet_appservice.cli.stored import with_database
from openmeet_appservice.domain.explain_member import Membership
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, open_session
from openmeet_appservice.provisioning.entity_writes import Place
from openmeet_appservice.provisioning.explaining import Explaining, MemberExplanation
from openmeet_appservice.store.database import Database


def add_commands(commands: Any) -> None:
    """Add this command to the parser."""
    explain = add_command(
        commands,
        "explain",
        run_explain,
        "say why somebody is, or is not, in the room of an event or group, and what to do",
        json=True,
    )
    explain.epilog = "exit codes: 0 inside, or rightly not; 1 something is to be done; 2 no such thing"
    explain.add_argument("tenant", metavar="TENANT")
    explain.add_argument("kind", metavar="KIND", choices=["event", "group"])
    explain.add_argument("slug", metavar="SLUG", help="of the event or group")
    explain.add_argument("user", metavar="USER", help="the slug of the user, member or not")


def run_explain(asked: argparse.Namespace) -> int:
    """Carry out ``explain``."""
    config = configuration(asked)

    async def explain(database: Database) -> MemberExplanation:
        session = open_session(wiring.USER_AGENT)
        try:
            # Somebody sits and waits.
            api = MatrixApi(
                config.homeserver.url, config.appservice.as_tokens, session, retries=RetryPolicy(attempts=1)
            )
            explaining = Explaining(
                database,
                Homeserver(api, config.appservice.id),
                wiring.room_settings(config),
                wiring.bot_user_id(config),
            )
            place = Place(asked.tenant, EntityKind(asked.kind), asked.slug)
            return await explaining.explain(place, asked.user)
        finally:
            await session.close()

    try:
        found = with_database(config, explain)
    except errors.NotFound as error:
        raise errors.UsageError(error.detail) from error
    if asked.json:
        print_json(found.model_dump(mode="json"))
    else:
        print("\n".join(lines(found)))
    return PROBLEM if needs_hand(found) else DONE


def needs_hand(found: MemberExplanation) -> bool:
    """Whether it is not as it should be: inside without being entitled, or entitled and kept out."""
    inside = found.membership.state is Membership.JOIN
    if not found.entitled:
        return inside
    return not inside and found.joins != "when_speaking"


def lines(found: MemberExplanation) -> list[str]:
    """Return the explanation in lines for people."""
    seen = found.membership
    shown = [f"entitled    {'yes' if found.entitled else 'no'} ({found.reason})", f"why         {found.why}"]
    if found.identity is None:
        shown.append("identity    none")
    else:
        account = "" if found.identity.registered else ", whose account is not made yet"
        shown.append(f"identity    {found.identity.kind} {found.identity.user_id}{account}")
    if found.joins is not None:
        when = "at once" if found.joins == "at_once" else "with the first message through OpenMeet"
        shown.append(f"joins       {when}")
    details = [
        f"{name} {value}" for name, value in (("by", seen.by), ("at", seen.at)) if value is not None
    ] + ([] if seen.reason is None else [f"({seen.reason})"])
    shown.append(f"room        {found.room_id or 'none'}")
    shown.append(" ".join([f"membership  {seen.state}", *details]))
    if found.last_error is not None:
        error = found.last_error
        shown.append(f"last error  {error.code} at {error.at}: {error.detail}")
    shown += [f"to do       {one}" for one in found.advice] or ["to do       nothing"]
    return shown

"""``adopt``: taking over the rooms that OpenMeet's former in-process service made."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from openmeet_appservice import wiring
from openmeet_appservice.cli.output import DONE, PROBLEM, add_command, configuration, print_json
from openmeet_appservice.cli.stored import alone, require_tenant, with_database
from openmeet_appservice.config import Config
from openmeet_appservice.homeserver import Homeserver, MatrixApi, open_session
from openmeet_appservice.reconciler.adopting import Adopter, Looked
from openmeet_appservice.reconciler.service import new_claim
from openmeet_appservice.store.adoption import Candidate, Guarded
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.wakeups import notify

EPILOG = """\
Of every event and group that is known and has no room, the alias #event-SLUG-TENANT or #group-SLUG-TENANT
is looked up, and the room behind it becomes its room, if the bot has the power to manage it. Rooms that
cannot be taken over are listed with what to do; run it again afterwards. What was taken over stays so.

Nobody is removed from an adopted room, and nobody has less power than before, until adopt --enforce: from
then on the room follows OpenMeet's list of members. Rooms of which no whole list has come yet are left as
they are.

On SQLite the service must not be running, except with --dry-run.

exit codes: 0 done, 1 some rooms cannot be taken over or enforced, 2 wrong usage or configuration
"""


def add_commands(commands: Any) -> None:
    """Add this command to the parser."""
    adopt = add_command(
        commands, "adopt", run_adopt, "take over the rooms of OpenMeet's former in-process service", json=True
    )
    adopt.epilog = EPILOG
    adopt.formatter_class = argparse.RawDescriptionHelpFormatter
    adopt.add_argument("--tenant", help="only this tenant's rooms (default: everybody's)")
    adopt.add_argument("--dry-run", action="store_true", help="only look and tell; change nothing")
    adopt.add_argument(
        "--enforce",
        action="store_true",
        help="let adopted rooms follow the lists of members, with all removals and lower powers",
    )


@dataclass(slots=True)
class _Report:
    """What was found and done; told at once for people, at the end for programs."""

    dry_run: bool
    as_json: bool
    adopted: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)
    enforced: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    without: int = 0

    def looked(self, one: Looked) -> None:
        if one.room_id is None:
            self.without += 1
            return
        entry = {**_named(one.candidate), "alias": one.alias, "room_id": one.room_id}
        if one.obstacle is None:
            entry |= {"version": one.version, "people": one.people, "encrypted": one.encrypted}
            entry |= {"joins": one.joins}
            self._tell(self.adopted, entry, "would adopt" if self.dry_run else "adopted", _about(one))
            return
        entry |= {"code": one.obstacle.code, "detail": one.obstacle.detail, "remedy": one.obstacle.remedy}
        listed = self.gone if one.obstacle.code == "gone" else self.refused
        words = f"{one.obstacle.code}: {one.obstacle.detail}\n    what to do: {one.obstacle.remedy}"
        self._tell(listed, entry, "not adopted", words)

    def enforcing(self, room: Guarded, done: bool) -> None:
        entry = {**_named(room), "room_id": room.room_id}
        if done:
            self._tell(self.enforced, entry, "would enforce" if self.dry_run else "enforced", "")
        else:
            self._tell(self.waiting, entry, "not enforced", "no whole list of its members has come yet")

    def _tell(self, listed: list[dict[str, Any]], entry: dict[str, Any], what: str, words: str) -> None:
        listed.append(entry)
        if not self.as_json:
            name = f"{entry['tenant']} {entry['kind']}/{entry['slug']}"
            print(f"{what}  {name}  {entry['room_id']}  {words}".rstrip())

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "adopted": self.adopted,
            "refused": self.refused,
            "gone": self.gone,
            "enforced": self.enforced,
            "waiting": self.waiting,
            "without_room": self.without,
        }

    def summary(self) -> str:
        would = " would be" if self.dry_run else ""
        words = (
            f"{len(self.adopted)} rooms{would} adopted, {len(self.refused)} cannot be taken over, "
            f"{len(self.gone)} are gone; {self.without} events and groups had none."
        )
        if self.enforced or self.waiting:
            words += f"\n{len(self.enforced)} rooms{would} enforced, {len(self.waiting)} wait for a list."
        return words + ("\nThis was a dry run: nothing was changed." if self.dry_run else "")


def run_adopt(asked: argparse.Namespace) -> int:
    """Carry out ``adopt``."""
    config = configuration(asked)
    report = _Report(asked.dry_run, asked.json)

    async def adopt(database: Database) -> None:
        tenant = None
        if asked.tenant is not None:
            tenant = (await database.read(require_tenant, asked.tenant)).tenant
        if asked.dry_run:
            await _adopt(config, database, tenant, report, enforce=asked.enforce)
            return
        with alone(database):
            await _adopt(config, database, tenant, report, enforce=asked.enforce)
            await database.write(notify, "reconcile")

    with_database(config, adopt)
    if asked.json:
        print_json(report.to_json())
    else:
        print(report.summary())
    return PROBLEM if report.refused or report.waiting else DONE


async def _adopt(
    config: Config, database: Database, tenant: str | None, report: _Report, *, enforce: bool
) -> None:
    session = open_session(wiring.USER_AGENT)
    try:
        api = MatrixApi(config.homeserver.url, config.appservice.as_tokens, session)
        adopter = Adopter(
            database,
            Homeserver(api, config.appservice.id),
            bot=wiring.bot_user_id(config),
            server_name=config.homeserver.server_name,
            now=wiring.now,
            new_id=new_id,
            new_claim=new_claim,
        )
        async for one in adopter.adopt_all(tenant, dry_run=report.dry_run):
            report.looked(one)
        if enforce:
            async for room, done in adopter.enforce_all(tenant, dry_run=report.dry_run):
                report.enforcing(room, done)
    finally:
        await session.close()


def _named(one: Candidate | Guarded) -> dict[str, Any]:
    return {"tenant": one.tenant_id, "kind": one.kind.value, "slug": one.slug}


def _about(one: Looked) -> str:
    if one.joins:
        return "if the bot is let in: it is not inside now"
    return f"version {one.version}, {one.people} people" + (", encrypted" if one.encrypted else "")

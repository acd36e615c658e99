"""``tenant``, ``keys`` and ``room``: what an admin asks of the database, beside a running service or without.

What these write is seen by a running service at its next poll.
"""

from __future__ import annotations

import argparse
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli.output import DONE, add_command, add_group, configuration, print_json
from openmeet_appservice.cli.resync import add_resync
from openmeet_appservice.cli.stored import all_tenants, require_tenant, with_database
from openmeet_appservice.config import Config
from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.domain.names import check_tenant_id, key
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, open_session
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.provisioning.states import entity_sync, room_on_matrix
from openmeet_appservice.store import endpoints, entities, keys, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.entities import EntityView
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.keys import PLATFORM, ApiKey
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web import auth
from openmeet_appservice.web.routes import Scope

PAGE = 500


def add_commands(commands: Any) -> None:
    """Add these commands to the parser."""
    tenant = add_group(commands, "tenant", "add and show tenants")
    add = add_command(tenant, "add", run_tenant_add, "add a tenant and print its API key, once", json=True)
    add.add_argument("tenant", metavar="TENANT", help="its id: letters and digits")
    add.add_argument("--name", help="what people call it (default: its id)")
    add.add_argument(
        "--webhook-url", metavar="URL", help="make the endpoint `main` and print its secret, once"
    )
    add_command(tenant, "list", run_tenant_list, "list the tenants", json=True)
    show = add_command(tenant, "show", run_tenant_show, "show a tenant, its endpoints and keys", json=True)
    show.add_argument("tenant", metavar="TENANT")

    group = add_group(commands, "keys", "add, list and revoke API keys")
    for name, run, summary in (
        ("add", run_keys_add, "add a key and print it, once"),
        ("list", run_keys_list, "list the keys, not the keys themselves"),
        ("revoke", run_keys_revoke, "take a key away; it is refused from the next request on"),
    ):
        command = add_command(group, name, run, summary, json=True)
        command.add_argument("--tenant", help="a tenant's keys (default: platform keys)")
        if name == "add":
            command.add_argument("--name", default="", help="what it is for")
        if name == "revoke":
            command.add_argument("key_id", metavar="KEY_ID", help="the id that `keys list` shows")

    room = add_group(
        commands, "room", "look at the room of an event, a group or two users, and have it put right"
    )
    commands_of_rooms = [
        add_command(room, name, run_room, summary, json=True)
        for name, run_room, summary in (
            ("show", run_room_show, "show what is wanted, what Synapse has, and how far it has followed"),
            ("plan", run_room_plan, "show what would be done on Synapse and why, without doing it"),
        )
    ]
    for command in (*commands_of_rooms, add_resync(room)):
        command.add_argument("tenant", metavar="TENANT")
        command.add_argument("kind", metavar="KIND", choices=[kind.value for kind in EntityKind])
        command.add_argument("slug", metavar="SLUG")


def run_tenant_add(asked: argparse.Namespace) -> int:
    """Carry out ``tenant add``."""
    config = configuration(asked)
    try:
        tenant_id = check_tenant_id(asked.tenant)
        url = asked.webhook_url and wiring.outbound_guard(config).check_url(asked.webhook_url)
    except errors.InvalidName as error:
        raise errors.UsageError(f"TENANT: {error}") from error
    except errors.OpenMeetError as error:
        raise errors.UsageError(f"--webhook-url: {error}") from error
    made = {"tenant": tenant_id, "api_key": auth.new_key(Scope.TENANT)}
    if url:
        made |= {"webhook_url": url, "webhook_secret": new_secret()}
    with_database(config, lambda database: database.write(_add_tenant, asked.name or tenant_id, made, config))
    if asked.json:
        print_json(made)
        return DONE
    print(f"Tenant {tenant_id} is there.\n\nAPI key, shown once:         {made['api_key']}")
    if url:
        print(f"Secret of webhook `main`, shown once: {made['webhook_secret']}")
    return DONE


def _add_tenant(connection: Connection, name: str, made: dict[str, str], config: Config) -> None:
    now = wiring.now()
    tenant = tenants.create(connection, made["tenant"], name=name, settings={}, now=now)
    if tenant is None:
        raise errors.UsageError(
            f"Tenant {made['tenant']} is there already. `keys add --tenant` makes it another key."
        )
    digest = auth.digest(made["api_key"])
    keys.add(connection, tenant.tenant, name="first", digest=digest, now=now, new_id=new_id)
    if "webhook_url" in made:
        sealed = SecretBox(config.security.keys).seal(made["webhook_secret"])
        endpoints.put(
            connection,
            tenant.tenant,
            "main",
            Wanted(made["webhook_url"]),
            secret_encrypted=sealed,
            fresh_secret_encrypted=sealed,
            now=now,
            new_id=new_id,
        )


def run_tenant_list(asked: argparse.Namespace) -> int:
    """Carry out ``tenant list``."""
    found = with_database(configuration(asked), lambda database: database.read(all_tenants))
    if asked.json:
        print_json([{"tenant": tenant.tenant_id, "name": tenant.name} for tenant in found])
    else:
        for tenant in found:
            print(f"{tenant.tenant_id}\t{tenant.name}")
    return DONE


def run_tenant_show(asked: argparse.Namespace) -> int:
    """Carry out ``tenant show``."""
    shown = with_database(configuration(asked), lambda database: database.read(_shown_tenant, asked.tenant))
    if asked.json:
        print_json(shown)
        return DONE
    print(f"tenant    {shown['tenant']}\nname      {shown['name']}\nsince     {shown['created_at']}")
    for endpoint in shown["webhooks"]:
        print(f"webhook   {endpoint['name']}\t{endpoint['url']}")
    for held in shown["keys"]:
        print(f"key       {held['key_id']}\t{held['name']}\t{held['created_at']}")
    return DONE


def _shown_tenant(connection: Connection, tenant_id: str) -> dict[str, Any]:
    tenant = require_tenant(connection, tenant_id)
    return {
        "tenant": tenant.tenant_id,
        "name": tenant.name,
        "settings": dict(tenant.settings),
        "created_at": to_rfc3339(tenant.created_at),
        "webhooks": [
            {"name": endpoint.name, "url": endpoint.wanted.url}
            for endpoint in endpoints.list_page(connection, tenant.tenant, limit=PAGE)
        ],
        "keys": [_shown_key(held) for held in _all_keys(connection, tenant.tenant)],
    }


def run_keys_add(asked: argparse.Namespace) -> int:
    """Carry out ``keys add``."""
    made = auth.new_key(Scope.TENANT if asked.tenant else Scope.PLATFORM)

    def add(connection: Connection) -> ApiKey | None:
        owner = _owner(connection, asked.tenant)
        return keys.add(
            connection, owner, name=asked.name, digest=auth.digest(made), now=wiring.now(), new_id=new_id
        )

    added = with_database(configuration(asked), lambda database: database.write(add))
    assert added is not None, "a fresh key is in use nowhere"
    if asked.json:
        print_json({**_shown_key(added), "api_key": made})
    else:
        print(f"API key {added.id}, shown once: {made}")
    return DONE


def run_keys_list(asked: argparse.Namespace) -> int:
    """Carry out ``keys list``."""

    def read(connection: Connection) -> list[ApiKey]:
        return _all_keys(connection, _owner(connection, asked.tenant))

    found = with_database(configuration(asked), lambda database: database.read(read))
    if asked.json:
        print_json([_shown_key(held) for held in found])
    else:
        for held in found:
            print(f"{held.id}\t{held.name}\t{to_rfc3339(held.created_at)}")
    return DONE


def run_keys_revoke(asked: argparse.Namespace) -> int:
    """Carry out ``keys revoke``."""

    def revoke(connection: Connection) -> bool:
        return keys.revoke(connection, _owner(connection, asked.tenant), asked.key_id)

    if not with_database(configuration(asked), lambda database: database.write(revoke)):
        raise errors.UsageError(f"There is no key {asked.key_id} here; `keys list` shows those there are.")
    if asked.json:
        print_json({"revoked": asked.key_id})
    else:
        print(f"Key {asked.key_id} is revoked.")
    return DONE


def _owner(connection: Connection, tenant_id: str | None) -> str:
    return PLATFORM if tenant_id is None else require_tenant(connection, tenant_id).tenant


def _all_keys(connection: Connection, owner: str) -> list[ApiKey]:
    found: list[ApiKey] = []
    while page := keys.list_page(connection, owner, after=found[-1].id if found else None, limit=PAGE):
        found += page
    return found


def _shown_key(held: ApiKey) -> dict[str, Any]:
    return {"key_id": held.id, "name": held.name, "created_at": to_rfc3339(held.created_at)}


def run_room_show(asked: argparse.Namespace) -> int:
    """Carry out ``room show``."""
    config = configuration(asked)

    async def look(database: Database) -> tuple[EntityView | None, dict[str, Any]]:
        kind = EntityKind(asked.kind)
        return (
            await database.read(entities.view, key(asked.tenant), kind, asked.slug),
            await _sides(config, database, asked),
        )

    view, sides = with_database(config, look)
    if view is None:
        raise errors.UsageError(f"Tenant {asked.tenant} has no {asked.kind} {asked.slug}.")
    shown = {
        "tenant": asked.tenant,
        "kind": asked.kind,
        "slug": view.entity.slug,
        "spec": dict(view.entity.spec),
        "matrix": room_on_matrix(view).model_dump(mode="json"),
        "sync": entity_sync(view).model_dump(mode="json"),
        **sides,
    }
    if asked.json:
        print_json(shown)
        return DONE
    for name, value in shown.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, one in value.items():
                print(f"  {inner}: {one}")
        else:
            print(f"{name}: {value}")
    return DONE


def run_room_plan(asked: argparse.Namespace) -> int:
    """Carry out ``room plan``."""
    config = configuration(asked)
    found = with_database(config, lambda database: _explain(config, database, asked))
    if found is None:
        raise errors.UsageError(f"Tenant {asked.tenant} has no {asked.kind} {asked.slug}.")
    if asked.json:
        print_json(found.verdict.to_json())
    else:
        print("\n".join(found.verdict.describe()) or "Nothing: Synapse agrees with what is wanted.")
    return DONE


async def _sides(config: Config, database: Database, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the room as it is wanted and as it is; why that is not known, where Synapse does not tell."""
    try:
        found = await _explain(config, database, asked)
    except errors.HomeserverError as error:
        return {"desired": None, "actual": None, "not_compared": str(error)}
    return {} if found is None else {**found.sides(), "not_compared": None}


async def _explain(config: Config, database: Database, asked: argparse.Namespace) -> Explanation | None:
    session = open_session(wiring.USER_AGENT)
    try:
        # An admin waits for the answer, so one failure more tells as much as four.
        retries = RetryPolicy(attempts=2, budget=20.0)
        api = MatrixApi(config.homeserver.url, config.appservice.as_tokens, session, retries=retries)
        homeserver = Homeserver(api, config.appservice.id)
        reconciler = wiring.build_reconciler(config, database, homeserver, Wakeups())
        return await reconciler.explain(asked.tenant, EntityKind(asked.kind), asked.slug)
    finally:
        await session.close()

"""Tenants, rooms and endpoints, written into the database before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert

from benchmarks.delivery_proof.scenario import SERVER
from benchmarks.delivery_proof.verdict import Room
from openmeet_appservice.config import Config
from openmeet_appservice.domain.names import key
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.store import endpoints, tenants
from openmeet_appservice.store.endpoint_key import PLATFORM
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import entities, rooms
from openmeet_appservice.wiring import now, open_database, prepare_database


@dataclass(frozen=True, slots=True)
class WantedEndpoint:
    """An endpoint: whose it is (None: the platform's), where it leads, what signs."""

    owner: str | None
    url: str
    secret: str


def new_secrets(owners: Mapping[str, str | None]) -> dict[str, str]:
    """Return a secret for each endpoint."""
    return {name: new_secret() for name in owners}


async def provision(config: Config, world: Mapping[str, Room], wanted: Mapping[str, WantedEndpoint]) -> None:
    """Bring the database up to date and write everything that has to be there.

    Parameters
    ----------
    world
        The rooms by their ids.
    wanted
        The endpoints by their names.
    """
    database = open_database(config)
    try:
        await prepare_database(database, config, migrate=True)
        await database.write(_write, world, wanted, SecretBox(config.security.keys))
    finally:
        await database.close()


def _write(
    connection: Connection,
    world: Mapping[str, Room],
    wanted: Mapping[str, WantedEndpoint],
    box: SecretBox,
) -> None:
    for tenant in sorted({room.tenant for room in world.values()}):
        tenants.create(connection, tenant, name=tenant, settings={}, now=now())
    for name, endpoint in wanted.items():
        endpoints.put(
            connection,
            PLATFORM if endpoint.owner is None else key(endpoint.owner),
            name,
            Wanted(endpoint.url),
            secret_encrypted=box.seal(endpoint.secret),
            fresh_secret_encrypted="",
            now=now(),
            new_id=new_id,
        )
    for number, (room_id, room) in enumerate(world.items()):
        _room(connection, number, room_id, key(room.tenant))


def _room(connection: Connection, number: int, room_id: str, tenant: str) -> None:
    alias = f"#event-e{number}-{tenant}:{SERVER}"
    connection.execute(
        insert(entities).values(
            tenant=tenant,
            id=f"entity_{number}",
            kind="event",
            slug=f"e{number}",
            slug_key=f"e{number}",
            alias=alias,
            spec="{}",
            revision=1,
            members_revision=1,
            removals_confirmed=0,
            created_at=now(),
            updated_at=now(),
        )
    )
    connection.execute(
        insert(rooms).values(
            tenant=tenant,
            id=f"room_{number}",
            entity_ref=f"entity_{number}",
            state="open",
            claim=f"claim{number}",
            lock_alias=alias,
            alias=alias,
            room_id=room_id,
            room_version="12",
            log_id=f"log_{number}",
            last_sequence=0,
            created_at=now(),
        )
    )

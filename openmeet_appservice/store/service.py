"""Facts about this installation, by name: ``server_name``, ``appservice_id``, ``control_room``."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from openmeet_appservice.store.tables import service


def get(connection: Connection, name: str) -> str | None:
    """Return the value of *name*, None where it was never set."""
    return connection.execute(select(service.c.value).where(service.c.name == name)).scalar_one_or_none()


def put(connection: Connection, name: str, value: str) -> None:
    """Set *name* to *value*."""
    connection.execute(delete(service).where(service.c.name == name))
    connection.execute(insert(service).values(name=name, value=value))

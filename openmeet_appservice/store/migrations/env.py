"""Alembic's entry: runs the steps on the connection that `store.schema` hands over."""

from __future__ import annotations

from alembic import context

from openmeet_appservice.store.lookup_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The caller has begun the transaction: all steps and the new version number are one.
    transactional_ddl=True,
)
context.run_migrations()

"""The schema's history, for Alembic. `store.schema` runs it."""

from __future__ import annotations

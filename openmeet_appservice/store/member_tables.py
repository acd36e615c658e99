"""The tables of what is still to be seen about single members; see `tables` for the rules of all tables."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, String, Table, Text

from openmeet_appservice.store.tables import metadata

member_checks = Table(
    "member_checks",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column(
        "was", Text, comment="JSON: the standing when Synapse last agreed, null for none; NULL: not known"
    ),
    Column("touch", BigInteger, nullable=False, comment="that of sync at the last change"),
    PrimaryKeyConstraint("tenant", "entity_ref", "user_id"),
    comment="Those of whom alone it is to be seen whether they are inside as they should be.",
)

member_errors = Table(
    "member_errors",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "entity_ref", "user_id"),
    comment="What the homeserver refused about single people, until it agrees.",
)

member_kicks = Table(
    "member_kicks",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "entity_ref", "user_id", "at"),
    Index("ix_member_kicks_at", "tenant", "at"),
    comment="Whom the service has removed in the last hour, for those who come back again and again.",
)

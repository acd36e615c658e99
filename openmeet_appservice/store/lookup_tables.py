"""The tables of look-ups: what OpenMeet is to be asked about. The rules of `store.tables` hold here too."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, PrimaryKeyConstraint, String, Table, text

from openmeet_appservice.store.tables import metadata

__all__ = ["alias_lookups", "gone", "hints", "metadata"]

hints = Table(
    "hints",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False, comment="user, event or group"),
    Column("slug_key", String(255), nullable=False),
    Column("user_key", String(255), nullable=False, comment="only this member; empty: all of it"),
    Column("slug", String(255), nullable=False),
    Column("user", String(255), comment="the member's slug as given"),
    Column("previous_slug", String(255), comment="what it was called before, as a hint said"),
    Column("deleted", Boolean, nullable=False, comment="a hint said so"),
    Column("hinted_at", BigInteger, comment="when OpenMeet hinted last; NULL: it is asked about in turn"),
    Column("version", BigInteger, nullable=False, comment="counts the hints"),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_until", BigInteger),
    Column("lease_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "kind", "slug_key", "user_key"),
    Index("ix_hints_due", "due_at"),
    comment="What OpenMeet is to be asked about: after a hint, and in turn.",
)
Index(
    "ix_hints_hinted",
    hints.c.due_at,
    sqlite_where=text("hinted_at IS NOT NULL"),
    postgresql_where=text("hinted_at IS NOT NULL"),
)

gone = Table(
    "gone",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("missing_since", BigInteger, nullable=False),
    Column("held_at", BigInteger, comment="since when it is not archived because too many would be"),
    Column("archived_at", BigInteger, comment="when it was archived for it"),
    PrimaryKeyConstraint("tenant", "entity_ref"),
    comment="Events and groups that look-ups did not find.",
)

alias_lookups = Table(
    "alias_lookups",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("slug_key", String(255), nullable=False),
    Column("wait_until", BigInteger, nullable=False, comment="until when somebody waits for the answer"),
    Column("absent_at", BigInteger, comment="when OpenMeet said that there is no such thing"),
    Column("lease_until", BigInteger),
    PrimaryKeyConstraint("tenant", "kind", "slug_key"),
    comment="Aliases that somebody looks for and nobody has provisioned; each for a minute or so.",
)

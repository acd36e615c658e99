"""The database: tables, migrations, and one module for each thing that is stored."""

from __future__ import annotations

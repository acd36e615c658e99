"""What Synapse calls: transactions, queries, ping."""

from __future__ import annotations

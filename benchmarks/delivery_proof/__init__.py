"""The delivery proof: everything arrives, in order, however often everybody dies. See ../README.md."""

from __future__ import annotations

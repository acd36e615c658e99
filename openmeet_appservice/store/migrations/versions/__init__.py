"""One file a step, oldest first by its number."""

from __future__ import annotations

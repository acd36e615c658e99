"""Messages that OpenMeet sends as its users."""

from __future__ import annotations

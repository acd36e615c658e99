"""The local stack: a throw-away Synapse and a stand-in for OpenMeet."""

from __future__ import annotations

"""The HTTP API that OpenMeet calls, one module for each resource."""

from __future__ import annotations

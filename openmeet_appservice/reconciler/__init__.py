"""Makes Synapse agree with what OpenMeet wants."""

from __future__ import annotations

from openmeet_appservice.reconciler.service import Reconciler
from openmeet_appservice.reconciler.settings import ReconcilerSettings

__all__ = ["Reconciler", "ReconcilerSettings"]

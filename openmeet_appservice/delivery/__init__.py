"""From the event log to OpenMeet: batches, signatures, retries."""

from __future__ import annotations

"""What came of a run that did not fail."""

from __future__ import annotations

from dataclasses import dataclass

from openmeet_appservice.store.sync import SyncError


@dataclass(frozen=True, slots=True)
class Result:
    """How far Synapse agrees now.

    Parameters
    ----------
    generation
        What Synapse agrees with.
    lacking
        What is not there although everything else is. It is told, but holds nothing back.
    is_awaited
        Something is still under way apart from this, whose result pokes the row. All else is done.
    is_part
        Only some members were compared; all else is as it was when Synapse last agreed.
    """

    generation: int
    lacking: SyncError | None = None
    is_awaited: bool = False
    is_part: bool = False

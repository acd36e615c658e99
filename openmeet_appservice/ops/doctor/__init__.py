"""`doctor`: checks everything an admin gets wrong, one line each, with what to do about it.

Nothing is left changed: what has to be tried is tried with names that cannot exist, or taken back at once.
"""

from __future__ import annotations

from openmeet_appservice.ops.doctor.examine import Tools, examine, run_doctor
from openmeet_appservice.ops.doctor.finding import Finding, Level, as_text

__all__ = ["Finding", "Level", "Tools", "as_text", "examine", "run_doctor"]

"""What is true without asking anybody: ids, roles, power levels, the plan. No I/O, no clock."""

from __future__ import annotations

"""Measurements, by hand: they print ratios and assert nothing."""

from __future__ import annotations

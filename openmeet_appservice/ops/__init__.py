"""Health, logging, metrics over HTTP, doctor."""

from __future__ import annotations

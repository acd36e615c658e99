"""What the listeners share: routes, authentication, problem documents, OpenAPI."""

from __future__ import annotations

"""What calls to others share: signatures and the guarded HTTP client."""

from __future__ import annotations

"""``python -m openmeet_appservice`` and the console script."""

from __future__ import annotations

import sys

from openmeet_appservice.cli import main

if __name__ == "__main__":
    sys.exit(main())

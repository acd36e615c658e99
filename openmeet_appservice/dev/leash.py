"""Become another Python program that does not outlive its parent.

Run as a script: ``python -I leash.py PARENT_PID ARGUMENT…``. It asks Linux to kill this process when
its parent dies (``PR_SET_PDEATHSIG`` in prctl(2), which an exec keeps), then turns into
``python ARGUMENT…`` under the same process id. A pre-exec hook of ``subprocess`` could do the same,
but is not safe in a process that has threads.

Elsewhere than on Linux there is no such request: there the program ends only when it is told to.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to the parent ``arguments[0]``, then run Python with the rest."""
    parent = int(arguments[0])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        # The parent may have died before the request was made.
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *arguments[1:]])  # noqa: S606 # no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])

"""Ends a process whose parent is gone: a server that nobody supervises must not hold its port for ever.

Polled, because that works on every POSIX system and for a parent that was killed without a chance to say goodbye.
"""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT_VARIABLE = "OPPORTUNE_PARENT"
"""Process id of the one that must live on; set by `opportune up` and `opportune serve` for what they start."""

LOOK_SECONDS = 1.0
GRACE_SECONDS = 20.0
"""After SIGTERM the process may drain for so long before SIGKILL."""


def end_with_parent(parent: int | None = None) -> None:
    """Stop this process, asked first, when `parent` (its parent of now by default) is no longer its parent."""
    expected = os.getppid() if parent is None else parent
    threading.Thread(target=_watch, args=(expected,), name="leash", daemon=True).start()


def end_with_starter() -> None:
    """Do the same for the process that the environment names; without one, nothing."""
    given = os.environ.pop(PARENT_VARIABLE, "")  # not for our own children: their parent is this process
    if given.isdigit():
        end_with_parent(int(given))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)

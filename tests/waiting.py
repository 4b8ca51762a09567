"""How tests wait: for a condition, with a limit that a busy machine keeps. Nothing is measured by a limit; it only ends
what hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 600.0
"""For what takes a second where nothing else runs."""
ANSWER_S = 10.0
"""For one answer that has a deadline of milliseconds, where a missing deadline would mean none at all."""


def until(holds: Callable[[], object], what: str, limit_s: float = LIMIT_S, every_s: float = 0.01) -> float:
    """Return once `holds` is true, with the seconds that it took.

    Raises:
        AssertionError: it did not come true within the limit; the message names `what`.
    """
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < limit_s, f"{what}: did not come true within {limit_s:g} s"
        time.sleep(every_s)
    return time.monotonic() - begun

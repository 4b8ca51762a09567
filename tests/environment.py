"""The environment of the processes that tests start."""

from __future__ import annotations

import os

from features.common.clock import VARIABLE

MACHINE_ZONE = "MACHINE_TZ"
"""Variable in which `conftest.py` keeps the zone of the machine, since tests themselves run in UTC."""


def without_settings() -> dict[str, str]:
    """Return the machine's environment without Opportune's settings, but for the clock, which all processes of a test
    share.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_") or name == VARIABLE}
    return kept | {"TZ": os.environ.get(MACHINE_ZONE, "UTC")}

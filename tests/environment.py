"""The environment of the processes that tests start."""

from __future__ import annotations

import os

from features.clock import VARIABLE


def without_settings() -> dict[str, str]:
    """Return this process's environment without Opportune's settings, but for the clock, which all processes of a test share."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_") or name == VARIABLE}

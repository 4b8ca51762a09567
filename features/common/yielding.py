"""Yield the core to the threads that answer requests."""

from __future__ import annotations

import os
from collections.abc import Callable

give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""Lets whoever waits for this core go first. The kernel leaves a busy thread alone for some milliseconds otherwise,
while the event loop, which was woken on the same core, waits. Under a microsecond where nobody waits; nothing where the
system has no such call.
"""

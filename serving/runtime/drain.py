"""A stop in two steps: first say so, then stop. Clients on idle connections would otherwise be reset."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType


def drain_before_stop(begin: Callable[[], None], seconds: float) -> None:
    """On SIGTERM calls `begin` and lets the server stop only `seconds` later; a second SIGTERM stops at once.

    To be called on the running loop, in the main thread, after uvicorn has set its handlers: at lifespan startup.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, stop)
        begin()
        if callable(stop):
            loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)

    signal.signal(signal.SIGTERM, on_signal)

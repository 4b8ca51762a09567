"""Yield to the event loop during long batches: of events, of decisions, of flags."""

from __future__ import annotations

import asyncio

from features.common.yielding import give_way


async def turn() -> None:
    """Lets others have the event loop, and the core that it runs on.

    Two rounds of the loop: in the first a request that has arrived is read, and only in the second answered. After one
    round it would wait for another part of ours in between.
    """
    give_way()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

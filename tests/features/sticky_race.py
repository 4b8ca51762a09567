"""A process that settles sticky assignments of many units, for the race of two."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from features.ledger.ledger import open_ledger


def settle(url: str, path: Path, project: str, arm: str, units: int, at_once: int, gate: Connection) -> None:
    """Wants one arm for every unit, many times at once, and sends back what holds for each."""
    ledger = open_ledger(url, path, 5_000, project)

    async def run() -> list[set[str]]:
        await ledger.look("warm")
        gate.send("ready")
        gate.recv()
        found = []
        for unit in range(units):
            wanted = {"e": (arm, 0, 0.5)}
            kept = await asyncio.gather(*(ledger.settle(f"c{unit}", wanted, {}) for _ in range(at_once)))
            found.append({one["e"][0] for one in kept})
        return found

    gate.send(asyncio.run(run()))
    ledger.close()

"""One run of the benchmark: its workspaces, its rivals, and the session that takes the rows."""

from __future__ import annotations

from pathlib import Path

from benchmarks import places, synthetic
from benchmarks.oracle import Oracle
from benchmarks.servers import Server
from benchmarks.session import Rival, Session
from features.workspace.workspace import Workspace

BARE, DOOR, OBVIOUS, OURS = "(a) bare uvicorn echo", "(b) echo through our door", "(c) obvious composition", "(d) ours"


class Run:
    """One run: the prepared workspaces, the Redis, and the session that takes the rows."""

    def __init__(self, session: Session, base: Workspace, redis: str) -> None:
        self.session, self.base, self.redis = session, base, redis
        self.bodies = bodies_of(synthetic.customer_ids(), synthetic.PLACEMENT, places.CACHE / "bodies-plain.txt")
        self.answer = places.CACHE / "answer.json"
        self._oracles: dict[int, Oracle] = {}

    def place(self, offers: int, store: str = "embedded") -> Workspace:
        """Return a copy of the workspace with so many offers, on a store."""
        return places.copy(self.base, offers, "embedded" if store == "embedded" else self.redis)

    def oracle(self, offers: int) -> Oracle:
        """Return the oracle of a catalogue; it reads rows from the base's embedded store."""
        found = self._oracles.get(offers)
        if found is None:
            found = self._oracles[offers] = Oracle(self.place(offers), self.base)
            found.parts()
        return found

    def ours(self, server: Server, offers: int, store: str, workers: int = 1) -> Rival:
        return Rival(
            f"{OURS}, {store}, {offers:,}", server, self.bodies, offers, store, workers, self.oracle(offers), ours=True
        )

    def obvious(self, server: Server, offers: int, store: str, workers: int = 1) -> Rival:
        return Rival(
            f"{OBVIOUS}, {store}, {offers:,}", server, self.bodies, offers, store, workers, self.oracle(offers)
        )


def bodies_of(customers: list[str], placement: str, file: Path) -> Path:
    """Write a file with one request a line."""
    file.write_text("\n".join(f'{{"customer_id":"{customer}","placement":"{placement}"}}' for customer in customers))
    return file

"""Customers who are asked about over HTTP, and what serves them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx

from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from tests.serving.edge_server import ROLE_KEYS

CUSTOMERS = [f"436{600_000 + number}" for number in range(80)]
FLAGS = "/ofrep/v1/evaluate/flags"


class Served(NamedTuple):
    desk: Reloader
    journal: Journal
    client: httpx.Client
    port: int

    def ask(self, method: str, path: str, body: Any = None, role: str = "admin", **headers: str) -> httpx.Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"x-api-key": ROLE_KEYS[role]} if role else {}
        fields |= {"content-type": "application/json"} if content is not None else {}
        return self.client.request(
            method, path, content=content, headers=fields | {k.replace("_", "-"): v for k, v in headers.items()}
        )

    def flag(self, flag: str, customer: str, role: str = "admin", **context: Any) -> httpx.Response:
        return self.ask("POST", f"{FLAGS}/{flag}", {"context": {"targetingKey": customer} | context}, role)

    def kept(self, unit: str) -> dict[str, Any]:
        known = self.desk.stores.ledger.look_now(unit)
        assert known is not None
        return dict(known.recent.kept)

    def lines(self) -> int:
        """How many decisions were recorded."""
        return int(
            self.ask("GET", "/metrics")
            .text.partition('opportune_journal_lines_total{result="recorded"} ')[2]
            .split("\n")[0]
        )

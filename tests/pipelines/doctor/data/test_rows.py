"""The doctor compares online rows with the lake at the rows' own moments: silent on a healthy workspace at any time,
and not deaf.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from features.aggregates import windows
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, from_microseconds, parse_moment, rfc3339
from features.common.types import Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import time_of
from features.feature_store import definitions
from features.ledger.ledger import ledger_of
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor.doctor import examine
from pipelines.doctor.facts.store import skew
from pipelines.materialize import steps
from pipelines.materialize.refresh import refresh, whole_second
from pipelines.shipping.retention import hidden, retain
from pipelines.shipping.ship import ship
from tests.tiny_workspaces import bank, write

CUSTOMERS = [f"c{number}" for number in range(14)]
VISITORS = [f"a{number}" for number in range(4)]
DAY = DAY_SECONDS * MICROSECONDS
SPANS = (1, 250_000, MICROSECONDS, 90 * MICROSECONDS, 3_600 * MICROSECONDS, DAY, 29 * DAY, 90 * DAY)
"""The clock moves by these between any two steps: within a second, over midnights, and past the ends of windows and of
retention.
"""
STEPS, LOOKS = 28, 4

FEATURES: dict[str, Any] = {
    "columns": {
        "spend": {"stream": "moves", "aggregate": "sum", "of": "amount", "windows": ["12h", "30d", "all"]},
        "usual": {"stream": "moves", "aggregate": "mean", "of": "amount", "windows": ["30d"]},
        "quiet": {"stream": "moves", "aggregate": "days_since", "windows": ["all"]},
        "taken": {
            "stream": "outcomes",
            "aggregate": "count",
            "windows": ["30d", "90d", "all"],
            "where": {"type": "yes"},
        },
    },
    "pairs": {
        "had": {"stream": "outcomes", "aggregate": "count", "windows": ["90d"], "key": "offer_id", "match": "offer_id"}
    },
}


class Bank:
    """A bank with a clock of its own: events come, are shipped, linked and computed, and old days go."""

    def __init__(self, folder: Path, seed: int, start: str) -> None:
        self.random, self.now = random.Random(seed), parse_moment(start) + 250_000
        self.workspace = self._imported(folder)
        steps.compute_features(self.workspace, self.now)  # before there is an event log, and not on a whole second
        steps.materialize(self.workspace)
        self.log = EventLog(event_folder(self.workspace.data), clock=lambda: self.now)
        self.told: set[str] = set()
        self.events = self.rows = 0

    def _imported(self, folder: Path) -> Workspace:
        def before() -> str:
            return rfc3339(self.now - self.random.randrange(1, 200 * DAY))

        moves = [
            {"customer_id": c, "time": before(), "amount": self.random.choice([0.1, 2.5, 30])}
            for c in CUSTOMERS
            for _ in range(9)
        ]
        yes = [
            {"customer_id": c, "offer_id": "by-hand", "type": "yes", "time": before()}
            for c in CUSTOMERS
            for _ in range(6)
        ]
        people = [{"customer_id": c, "valid_from": "2026-01-01", "age": at} for at, c in enumerate(CUSTOMERS[:-2])]
        sources = {
            "streams.moves": write(folder / "moves.csv", moves),
            "outcomes": write(folder / "outcomes.csv", yes),
            "customers": write(folder / "customers.csv", people),
        }
        made = bank(folder, sources, features=FEATURES)
        said = yaml.safe_load((folder / "workspace.yaml").read_text())
        (folder / "workspace.yaml").write_text(yaml.safe_dump(said | {"retention": {"outcomes": "100d"}}))
        made = load(folder)
        steps.import_tables(made, self.now)
        return made

    def happen(self) -> None:
        """Some events of somebody, on time or late; now and then an anonymous visitor turns out to be a customer."""
        for _ in range(self.random.randrange(1, 5)):
            at = self.now - self.random.choice([0, 0, 1, MICROSECONDS, 3_600 * MICROSECONDS, 3 * DAY, 95 * DAY])
            visitor, customer = self.random.choice(VISITORS), self.random.choice(CUSTOMERS)
            kind = self.random.choice(["moves", "moves", "yes", "identify"])
            who: dict[str, Any] = {"customer_id": customer} if self.random.random() < 0.6 else {"anonymous_id": visitor}
            if kind == "identify":
                who = {"customer_id": customer, "anonymous_id": visitor}
            self.tell(kind, at, **who)

    def tell(self, kind: str, at: int, **who: str) -> None:
        """Tell of one event that happened at a moment."""
        self.events += 1
        what: dict[str, Any] = (
            {"fields": {"amount": 1.25}} if kind == "moves" else {"offer_id": "by-hand"} if kind == "yes" else {}
        )
        event = Event(f"e{self.events}", kind, from_microseconds(at), **who, **what)
        (result,) = self.log.append([event_item(event, time_of(event))])
        assert result.outcome == "stored", result
        self.told |= {
            unit
            for unit in (who.get("customer_id"), f"~{who['anonymous_id']}" if "anonymous_id" in who else None)
            if unit
        }

    def barrier(self) -> int:
        moment = whole_second(self.log.barrier())
        ship(self.workspace)
        return moment

    def refresh(self) -> None:
        """Bring up to date whom something happened to."""
        moment = self.barrier()

        async def run() -> int:
            ledger = ledger_of(self.workspace)
            try:
                return await refresh(self.workspace, ledger, sorted(self.told), moment, 0)
            finally:
                ledger.close()

        self.rows += asyncio.run(run())
        self.told.clear()

    def compute(self) -> None:
        """Bring everybody up to date."""
        moment = self.barrier()
        windows.compute(self.workspace, moment)
        definitions.materialize(definitions.open_store(self.workspace), self.workspace, moment)
        self.told.clear()

    def live(self) -> None:
        """One thing or another."""
        self.now += self.random.choice(SPANS)
        acts = (
            self.happen,
            lambda: ship(self.workspace),
            self.refresh,
            self.compute,
            lambda: retain(self.workspace, self.now),
        )
        self.random.choices(acts, [5, 2, 2, 1, 2])[0]()

    def different(self) -> list[str]:
        """Columns in which the doctor finds rows other than the lake."""
        found = skew(self.workspace)
        assert not isinstance(found, str) and found.customers >= len(CUSTOMERS), found
        return list(found.different)

    def spoil(self, column: str) -> None:
        """Write a customer's row again with another value in one column, as nothing right would."""
        moment = self.now = self.barrier() // MICROSECONDS * MICROSECONDS
        customer = self.random.choice(CUSTOMERS)
        tables = windows.compute_for(self.workspace, moment, [customer])
        (view,) = [view for view in self.workspace.views if any(scalar.name == column for scalar in view.scalars)]
        table, store = tables[view.name], definitions.open_store(self.workspace)
        right = pc.fill_null(pc.cast(table[column], pa.float64()), 0.0)
        wrong = pc.cast(pc.add(right, 1.0), table.schema.field(column).type)
        for other in self.workspace.views:
            if other.name in tables:
                definitions.push(store, other, tables[other.name])
        newer = pc.add(table["created"], pa.scalar(1, pa.duration("us")))
        table = table.set_column(table.schema.get_field_index(column), column, wrong)
        definitions.push(store, view, table.set_column(table.schema.get_field_index("created"), "created", newer))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "start"),
    [(2, "2028-02-29T23:59:59Z")],
)
def test_a_healthy_row_agrees_at_any_time_and_a_wrong_one_never(tmp_path: Path, seed: int, start: str) -> None:
    """Whatever happened, came late, was linked, let go or left a window since a row was computed, only a wrong value is
    found.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        life = Bank(tmp_path / "w", seed, start)
        looked = 0
        for step in range(STEPS):
            life.live()
            if step % LOOKS == 0:
                looked += 1
                assert life.different() == [], f"after {step} steps"
        assert looked == STEPS // LOOKS and life.rows and life.events > 10 and hidden(life.workspace)
        report = examine(life.workspace, life.now + life.random.choice(SPANS))
        assert "online_equals_lake" in report.fine, report
        for column in ("spend_30d", "taken_90d", "age"):
            life.spoil(column)
            (found,) = life.different()
            assert found.endswith(f".{column}"), found
            life.now += DAY
            life.compute()
        assert life.different() == []
        life.log.close()


@pytest.mark.slow
def test_what_comes_to_light_later_is_no_fault_of_a_row(tmp_path: Path) -> None:
    """A visitor who turns out to be a customer, late events, an end of a window and days let go leave no trace until
    the row is computed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        life = Bank(tmp_path / "w", 7, "2027-03-27T22:30:00Z")
        life.tell("moves", life.now, anonymous_id="a9")
        life.tell("yes", life.now, customer_id="c0")
        life.now += DAY
        life.compute()
        assert life.different() == []
        later: list[tuple[str, Callable[[], object]]] = [
            ("the visitor was c0", lambda: life.tell("identify", life.now, customer_id="c0", anonymous_id="a9")),
            ("an event of before the row, late", lambda: life.tell("moves", life.now - 2 * DAY, customer_id="c1")),
            ("an outcome leaves its window", lambda: life.tell("yes", life.now, customer_id="c0")),
            ("days are let go", lambda: retain(life.workspace, life.now)),
        ]
        for what, happens in later:
            life.now += 31 * DAY
            happens()
            ship(life.workspace)
            assert life.different() == [], what
        assert hidden(life.workspace)["outcomes"].at == life.now
        life.refresh()
        assert life.rows > 0 and life.different() == []
        life.log.close()

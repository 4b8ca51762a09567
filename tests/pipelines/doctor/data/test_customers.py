"""The doctor on what is known of customers: columns that say nothing or moved, views without a row, rows behind their
lake.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.common.timestamps import now as clock
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.lake import stability_index
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from tests.pipelines.checks import DAY, found, looked
from tests.pipelines.workspace_life import Life
from tests.tiny_workspaces import bank, write
from tests.trained import copy_of

pytestmark = pytest.mark.slow


def bank_of(folder: Path, features: dict[str, Any] | None = None, more: dict[str, Any] | None = None) -> Workspace:
    """Eighty customers of one city, whose income nobody knows; materialized."""
    rows = [
        {"customer_id": f"c{at}", "valid_from": "2026-01-01", "city": "Wien", "age": 20 + at % 50, "vip": "false"}
        for at in range(80)
    ]
    name = write(folder / "customers.csv", rows)
    workspace = bank(folder, {"customers": name}, features=features)
    now = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, now)
        steps.compute_features(workspace, now)
        steps.materialize(workspace)
    return workspace


def test_columns_that_say_nothing_and_consent_that_nobody_gives(tmp_path: Path) -> None:
    """A column that is the same for all, one that is missing for all, and a purpose that nobody allows, are told of."""
    workspace = bank_of(tmp_path / "w", {"consent": {"personalization": {"column": "vip"}}})
    report = looked(workspace)
    texts = [finding.what for finding in report.findings if finding.check == "columns_say_nothing"]
    assert any("always missing" in text and "income" in text and "born" in text for text in texts)
    assert any("never change" in text and "city" in text and "age" not in text for text in texts)
    assert "personalization" in found(report, "consent").what


def test_a_view_without_any_row(tmp_path: Path) -> None:
    """Attributes that are declared and come from nowhere leave their view without rows."""
    rows = [{"customer_id": f"c{at}", "time": "2026-06-01", "amount": at, "kind": "card"} for at in range(60)]
    columns = {"spend": {"stream": "moves", "aggregate": "sum", "of": "amount"}}
    workspace = bank(
        tmp_path / "w", {"streams.moves": write(tmp_path / "w" / "moves.csv", rows)}, features={"columns": columns}
    )
    now = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, now)
        steps.compute_features(workspace, now)
        steps.materialize(workspace)
    finding = found(looked(workspace, "views_never_filled"), "views_never_filled")
    assert finding.severity == "warning" and "customer" in finding.what


def test_recorded_columns_that_moved_or_say_nothing(lived: Life) -> None:
    """Fees that are ten times those of training have moved, and a context column that no request gives is always
    missing.
    """
    slot = lived.engine.plan.scalars["customer.monthly_fee"]
    for number in range(230):
        lived.now += int(0.9 * DAY) // 300
        customer = f"436{600_000 + number}"
        row = lived.row(customer)
        row.numbers[slot] *= 10
        lived.decide(customer, row)
    ship(lived.workspace)
    report = looked(lived.workspace, "columns_moved", "recorded_columns_say_nothing")
    finding = found(report, "columns_moved")
    assert float(finding.evidence["monthly_fee"]) > 1
    assert "roaming_now" in found(report, "recorded_columns_say_nothing").what


def test_rows_behind_a_lake_that_was_changed(shop: Path, tmp_path: Path) -> None:
    """A source that is imported again with older rows makes online rows differ from the lake."""
    workspace = load(copy_of(shop, tmp_path / "shop"))
    with (workspace.folder / "data" / "payments.csv").open("a") as file:
        for number in range(520):
            file.write(f"436{600_000 + number},2026-11-01T10:00:00+00:00,12.5,card\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, clock())
    finding = found(looked(workspace, "online_equals_lake"), "online_equals_lake")
    assert "payments.paid_all_card" in finding.what and finding.evidence["customers"] == 20


@pytest.mark.parametrize(("moved", "low", "high"), [(0.0, 0.0, 0.05), (3.0, 1.0, 99.0)])
def test_the_stability_index_tells_shifts_from_chance(moved: float, low: float, high: float) -> None:
    """Two draws of one distribution have an index near nothing, shifted ones a large one, and missing values count."""
    random = np.random.default_rng(1)
    expected, seen = random.normal(size=4_000), random.normal(size=4_000) + moved
    assert low <= stability_index(expected, seen) < high
    assert stability_index(expected, np.where(random.random(4_000) < 0.5, np.nan, random.normal(size=4_000))) > 1
    assert stability_index(np.full(300, 2.0), np.full(300, 2.0)) == 0

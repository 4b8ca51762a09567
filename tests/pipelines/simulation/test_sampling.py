"""Samples of requests come from the journal, the lake or the customers, the same by seed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow.parquet
import pytest
import yaml

from features.common.timestamps import now
from features.common.types import DecisionRequest
from features.config.offers_file import Placement
from features.events.journal import Line
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.simulation.sampling import NothingToSample, sample_of
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from tests.serving.decisions import decide
from tests.trained import copy_of
from tests.workspaces import make_workspace


@pytest.fixture(scope="module")
def shop(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since what has limits opens a ledger."""
    return copy_of(trained_workspace, tmp_path_factory.mktemp("shop") / "fernruf")


def test_samples_come_from_the_journal_the_lake_or_the_customers(shop: Path, tmp_path: Path) -> None:
    """The journal where it has enough, else imported decisions, else customers at every placement; by seed, the same
    every time.
    """
    workspace = load(shop, sources=False)
    sample = sample_of(workspace, 40, 1)
    assert sample.source == "decisions" and len({str(one) for one in sample.requests}) == 40
    assert sample == sample_of(workspace, 40, 1) != sample_of(workspace, 40, 2)
    rows = {
        row["decision_id"]: row for row in pyarrow.parquet.read_table(shop / "data" / "decisions.parquet").to_pylist()
    }
    known = {(r["customer_id"], r["channel"], r["hour"], r["roaming_now"]) for r in rows.values()}
    assert {(one.customer_id, *one.context.values()) for one in sample.requests} <= known
    assert len(sample_of(workspace, 50_000, 1).requests) == len(rows)
    with pytest.raises(NothingToSample):
        sample_of(load(make_workspace(tmp_path / "fresh", customers=5)), 10, 1)
    places = {"bill": Placement(), "kiosk": Placement(channels=("shop",))}
    elsewhere = dataclasses.replace(workspace, offers=msgspec.structs.replace(workspace.offers, placements=places))
    assert {one.placement for one in sample_of(elsewhere, 40, 1).requests} == {"bill"}
    at_kiosk = sample_of(elsewhere, 40, 1, "kiosk").requests
    assert {(one.placement, one.context["channel"]) for one in at_kiosk} == {("kiosk", "shop")} and len(at_kiosk) == 40
    fewer = load(make_workspace(tmp_path / "fewer", customers=30))
    (fewer.folder / "data" / "decisions.parquet").unlink()
    (fewer.folder / "data" / "outcomes.parquet").unlink()
    settings_file = fewer.folder / "workspace.yaml"
    said = yaml.safe_load(settings_file.read_text())
    del said["sources"]["decisions"], said["sources"]["outcomes"]
    settings_file.write_text(yaml.safe_dump(said))
    steps.import_tables(load(fewer.folder), now())
    customers = sample_of(load(fewer.folder), 20, 1)
    assert customers.source == "customers" and Counter(one.placement for one in customers.requests) == {
        "home": 10,
        "bill": 10,
    }
    written = write_journal(workspace)
    journal = sample_of(workspace, 15, 1)
    assert (
        journal.source == "journal" and all(one in written for one in journal.requests) and len(journal.requests) == 15
    )
    assert sample_of(workspace, 15, 1, "bill").requests and {
        name for one in sample_of(workspace, 5, 1, "bill").requests for name in one.asked
    } >= {"bill"}
    assert sample_of(workspace, len(written) + 1, 1).source == "decisions"


def write_journal(workspace: Workspace) -> list[DecisionRequest]:
    """Answered decisions in the journal, for one placement and for two; what was asked."""
    desk = Reloader(workspace)
    desk.load()
    assert desk.loaded is not None
    lines: list[Line] = []
    asked = [
        DecisionRequest(f"43660000{n % 10}", "home", 2, {"channel": "app", "hour": n}, ["offer-01"]) for n in range(12)
    ]
    asked += [DecisionRequest(f"43660000{n}", context={"hour": n}, placements=["bill", "home"]) for n in range(8)]
    for request in asked:
        decide(request, desk.loaded, None, now(), record=lines.append)
    desk.close()
    journal = Journal.open(workspace.data / "journal")
    assert all(journal.append(line) for line in lines)
    journal.close()
    return asked

"""Splits of running experiments as the background worker sees them and as /metrics tells them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines import worker
from pipelines.experiments.analysis import experiments_in
from pipelines.experiments.mismatch import splits_of, watch
from serving.api.split_metrics import FILE, read_splits, split_lines
from serving.runtime.metrics import Metrics
from tests.pipelines.experiment_lakes import ARMS, KEY, NOW, START, Rows, exposure
from tests.pipelines.ramp_lakes import fill
from tests.workspaces import make_workspace


def workspace_with(folder: Path, **entry: object) -> Workspace:
    """Two experiments that run, one that does not, and an empty lake."""
    made = make_workspace(folder, customers=4, decisions=1)
    arms = {"status": "running", "arms": {arm: {} for arm in ARMS}}
    file = {"experiments": {KEY: arms | entry, "other": arms, "stopped": arms | {"status": "stopped"}}}
    (made / "experiments.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    found = load(made, sources=False)
    found.data.mkdir(exist_ok=True)
    return found


def exposed(counts: dict[str, tuple[int, int]], probabilities: tuple[float | None, float | None] = (0.5, 0.5)) -> Rows:
    """So many units an arm of each experiment."""
    rows = [
        exposure(f"{key}-{arm}-{at}", START + at, arm, probability) | {"experiment": key}
        for key, units in counts.items()
        for arm, of_arm, probability in zip(ARMS, units, probabilities, strict=True)
        for at in range(of_arm)
    ]
    return {"exposures": rows, "outcomes": []}


def metrics_of(workspace: Workspace) -> dict[str, float]:
    """What one of several workers answers, read by Prometheus' own parser."""
    metrics = Metrics()
    metrics.beside(lambda: split_lines(workspace.data))
    metrics.attach(workspace.data / "metrics")
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {" ".join([one.name, *one.labels.values()]): one.value for family in families for one in family.samples}


def test_a_mismatch_is_told_by_every_worker(tmp_path: Path) -> None:
    """461 : 211 of one experiment and 300 : 290 of another: the first is a mismatch, and all processes say the same."""
    workspace = workspace_with(tmp_path / "shop")
    assert metrics_of(workspace) == {}, "nobody looked yet"
    fill(workspace, exposed({KEY: (461, 211), "other": (300, 290), "stopped": (9, 900), "gone": (5, 700)}))
    watch(workspace, NOW)
    one, other = metrics_of(workspace), metrics_of(workspace)
    assert one == other
    assert one[f"opportune_experiment_mismatch {KEY}"] == 1 and one["opportune_experiment_mismatch other"] == 0
    assert one[f"opportune_experiment_split_p {KEY}"] < 1e-6 and one["opportune_experiment_split_p other"] > 0.5
    assert (
        one[f"opportune_experiment_units {KEY} {ARMS[0]}"],
        one[f"opportune_experiment_units_expected {KEY} {ARMS[0]}"],
    ) == (461, 336)
    assert one["opportune_experiment_looked_seconds"] == NOW / 1e6
    assert not any("stopped" in name or "gone" in name for name in one)


def test_the_worker_looks(tmp_path: Path) -> None:
    """The background worker has the look among its tasks; what it cannot read is none."""
    workspace = workspace_with(tmp_path / "shop")
    assert any(task.work is worker.watch_splits for turns in worker.tasks(workspace) for task in turns)
    worker.watch_splits(workspace)
    found = read_splits(workspace.data)
    assert found is not None and found.experiments == ()
    (workspace.data / FILE).write_bytes(b"{")
    assert read_splits(workspace.data) is None and list(split_lines(workspace.data)) == []


@pytest.mark.parametrize(("weights", "is_alarm"), [((0.7, 0.3), False), ((0.5, 0.5), True), ((0.0, 1.0), True)])
def test_units_are_held_against_the_split_of_the_file(
    tmp_path: Path, weights: tuple[float, float], is_alarm: bool
) -> None:
    """Where nobody wrote probabilities down, today's weights count; an arm that expects nobody and has somebody is a
    mismatch.
    """
    arms = {arm: {"weight": weight} for arm, weight in zip(ARMS, weights, strict=True)}
    workspace = workspace_with(tmp_path / "shop", arms=arms)
    fill(workspace, exposed({KEY: (690, 310)}, (None, None)))
    (found,) = splits_of(workspace, experiments_in(workspace).experiments, NOW)
    assert found.is_mismatch == is_alarm and found.units == (690, 310)
    assert np.sum(found.expected) == pytest.approx(1_000)

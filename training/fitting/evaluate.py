"""Compare a model with the baselines on the test slice, and say it in one report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.common.moments import Micros
from features.common.timestamps import rfc3339
from features.workspace import timeline
from features.workspace.timeline import Timeline
from features.workspace.workspace import Workspace
from training.bundle import artifacts, canary
from training.bundle.bundle import BadBundle
from training.dataset.examples import Examples
from training.dataset.sources import learnt_from
from training.dataset.split import DatasetSplit, split_of
from training.fitting import baselines, metrics
from training.fitting.fit import load, threads

Floats = NDArray[np.float64]

MODEL = "model"

DECISIONS_WITH_SUCCESS_MIN = 30
"""Of the test slice. With fewer, the shares that models are compared by are uncertain by more than a fifth of
themselves.
"""


@dataclass(frozen=True)
class ModelComparison:
    """Scores of the test rows and their metrics, by model; the model itself is called `model`."""

    scores: dict[str, Floats]
    metrics: dict[str, dict[str, float]]


def compare(
    workspace: Workspace, examples: Examples, split: DatasetSplit, raw: Floats, probabilities: Floats
) -> ModelComparison:
    """Hold a model against chance, popularity and logistic regression, all on the same rows.

    Args:
        raw: raw scores of the test rows, which order offers.
        probabilities: calibrated ones, which are judged as probabilities.
    """
    train, test = examples.where((split.fit | split.stopping) & ~examples.strangers), examples.where(split.test)
    logistic = baselines.Logistic(train, workspace.model.seed).probabilities(test)
    scores = {
        "random": baselines.random_scores(test),
        "popularity": baselines.popularity(train, test, workspace.model.popularity),
        "logistic_regression": logistic,
        MODEL: probabilities,
    }
    measured = {name: metrics.all_metrics(test, scores[name]) for name in ("random", "popularity")}
    measured["logistic_regression"] = metrics.all_metrics(test, logistic, logistic)
    measured[MODEL] = metrics.all_metrics(test, raw, probabilities)
    return ModelComparison(scores, measured)


def report_of(
    workspace: Workspace, examples: Examples, split: DatasetSplit, compared: ModelComparison, now: Micros
) -> dict[str, Any]:
    """Return what `opportune evaluate --json` prints; moments of demo data as the source says them."""
    moved = timeline.recorded(workspace) or Timeline()

    def side(mask: NDArray[np.bool_]) -> dict[str, Any]:
        rows = mask[examples.decision]
        hits = examples.labels[rows] > 0
        return {
            "decisions": int(mask.sum()),
            "decisions_with_success": len(np.unique(examples.decision[rows][hits])),
            "rows": int(rows.sum()),
            "successes": int(hits.sum()),
            "from": rfc3339(moved.to_source(int(examples.times[mask].min()))),
            "to": rfc3339(moved.to_source(int(examples.times[mask].max()))),
        }

    known = ~examples.strangers
    tested = side(split.test)
    return {
        "workspace": workspace.settings.name,
        "name": workspace.model.name,
        "at": rfc3339(now),
        "warnings": list(_warnings(tested["decisions_with_success"])),
        "model": compared.metrics[MODEL],
        "baselines": {name: values for name, values in compared.metrics.items() if name != MODEL},
        "split": {
            "cut": rfc3339(moved.to_source(split.cut)),
            "stopping_cut": rfc3339(moved.to_source(split.stopping_cut)),
            "moved_weeks": moved.weeks,
            "training": side((split.fit | split.stopping) & known),
            "stopping": side(split.stopping),
            "test": tested,
            "open_windows_in_test": int((split.test & (examples.closes > now)).sum()),
        },
        "columns": len(examples.contract.columns),
        "contract": examples.contract.fingerprint,
    }


def _warnings(successes: int) -> Iterator[str]:
    if successes < DECISIONS_WITH_SUCCESS_MIN:
        yield (
            f"expected at least {DECISIONS_WITH_SUCCESS_MIN} decisions with a success in the test slice, got"
            f" {successes}: whether the model is better than the baselines is chance. Bring more history, or train"
            " again when more was recorded."
        )


def evaluate(
    workspace: Workspace, version: str, now: Micros, progress: Callable[[str, float], None] = lambda _stage, _part: None
) -> dict[str, Any]:
    """Score a registered version anew on the test slice of the data as it is now.

    Raises:
        BadBundle: the model is not the one that was trained, was trained on other columns, or crashes when loaded.
        NoExamples, RegistryUnavailable.
    """
    with tempfile.TemporaryDirectory(prefix="opportune-") as scratch:
        found = artifacts.fetch(workspace, version, Path(scratch))
        try:
            canary.rehearse(found.model, found.folder / "golden.json")
        except canary.CanaryFailed as error:
            raise BadBundle(str(error)) from error
        booster = load(found.model)
    # The model knows categories by the codes of its own dictionary, whatever texts have come since.
    examples, source = learnt_from(workspace, now, lambda part: progress("lay out examples", part), found.categories)
    split = split_of(workspace, examples, now, fixed=source.is_imported)
    progress("compare", 0.0)
    raw = np.asarray(booster.predict(examples.where(split.test).values, raw_score=True, num_threads=threads()))
    compared = compare(workspace, examples, split, raw, found.calibration.probabilities(raw))
    progress("compare", 1.0)
    more = {"version": version, "run_id": found.record["run_id"], "source": msgspec.to_builtins(source)}
    return report_of(workspace, examples, split, compared, now) | more

"""One training run: examples, fit, comparison with the baselines, the record in MLflow, the alias."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.common.files import write_whole
from features.common.moments import Micros
from features.workspace.workspace import Workspace
from training.bundle import artifacts, registry
from training.bundle.bundle import Golden, nullable
from training.dataset.examples import Examples
from training.dataset.sources import learnt_from
from training.dataset.split import split_of
from training.fitting import gates, metrics, plots
from training.fitting.evaluate import MODEL, compare, report_of
from training.fitting.fit import Fitted, fit

Floats = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""Told the name of a stage and the part of it that is done, 0 to 1."""

GOLDEN_DECISIONS = 12
GOLDEN_OFFERS_MAX = 64
EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Trained:
    """What a training run gave; `report` is what `opportune evaluate --json` prints."""

    run_id: str
    version: str
    promoted: bool
    report: dict[str, Any]


def train(
    workspace: Workspace, now: Micros, progress: Progress = lambda _stage, _part: None, *, promote: bool = True
) -> Trained:
    """Train, compare, record, and (when the gates are passed) make the version the champion.

    Args:
        now: microseconds since 1970.

    Raises:
        NoExamples: there is nothing to learn from.
        RegistryUnavailable: MLflow does not answer.
    """
    examples, source = learnt_from(workspace, now, lambda part: progress("lay out examples", part))
    split = split_of(workspace, examples, now, fixed=source.is_imported)
    fitted = fit(
        workspace.model,
        examples.where(split.fit),
        examples.where(split.stopping),
        lambda done, most: progress("fit", done / most),
    )
    progress("compare", 0.0)
    test = examples.where(split.test)
    raw = fitted.raw(test.values)
    compared = compare(workspace, examples, split, raw, fitted.calibration.calibration.probabilities(raw))
    report = report_of(workspace, examples, split, compared, now) | {
        "rounds": fitted.rounds,
        "calibration": {"method": fitted.calibration.method, "held_out_log_loss": fitted.calibration.log_losses},
        "source": msgspec.to_builtins(source),
    }
    interval = metrics.auc_interval(test.labels, raw, test.decision)
    failed = list(gates.failed(workspace.model.gates, fitted.trees, interval, compared.metrics))
    report |= {
        "trees": fitted.trees,
        "auc_interval": [None if end != end else end for end in (interval[0], interval[2])],
    }
    progress("record", 0.0)
    run_id, version = _record(workspace, examples, test, fitted, compared.scores, report)
    if promote and not failed:
        registry.set_alias(workspace, registry.CHAMPION, version)
    report |= {"version": version, "run_id": run_id, "gates": failed or "passed"}
    write_whole(workspace.data / "evaluation.json", msgspec.json.encode(report))
    progress("record", 1.0)
    return Trained(run_id, version, promote and not failed, report)


def _record(
    workspace: Workspace,
    examples: Examples,
    test: Examples,
    fitted: Fitted,
    scores: dict[str, Floats],
    report: dict[str, Any],
) -> tuple[str, str]:
    frame = pd.DataFrame(test.values[:EXAMPLE_ROWS], columns=examples.contract.names)
    bins = metrics.calibration_bins(test.labels, scores[MODEL])
    gains = dict(zip(fitted.booster.feature_name(), map(float, fitted.booster.feature_importance("gain")), strict=True))
    model_text = fitted.booster.model_to_string()
    flat = {_metric_name(key): value for key, value in report["model"].items() if np.isfinite(value)}
    for name, values in report["baselines"].items():
        flat |= {_metric_name(f"{name}.{key}"): value for key, value in values.items() if np.isfinite(value)}
    contents = {
        "columns.json": msgspec.json.encode(examples.contract),
        "categories.json": msgspec.json.encode(examples.categories),
        "calibration.json": msgspec.json.encode(fitted.calibration.calibration),
        "golden.json": msgspec.json.encode(golden(examples, test, fitted)),
        "evaluation.json": msgspec.json.format(msgspec.json.encode(report | {"bins": bins})),
    }
    return registry.record(
        workspace,
        fitted.booster,
        frame,
        parameters={
            **fitted.parameters,
            "rounds": fitted.rounds,
            "calibration": fitted.calibration.method,
            **_window(report),
            **_source(report),
        },
        metrics=flat,
        steps={"later_log_loss": fitted.losses},
        tags={
            registry.MODEL_DIGEST_TAG: hashlib.sha256(model_text.encode()).hexdigest(),
            artifacts.DIGEST_TAG: artifacts.digest(contents),
            "opportune.contract": examples.contract.fingerprint,
            "opportune.data_sha256": digest(examples),
            "opportune.rows": str(len(examples)),
            "opportune.learnt_from": report["source"]["used"],
            "opportune.learnt_from_why": report["source"]["why"],
        },
        figures={
            "calibration": plots.calibration(bins, fitted.calibration.method),
            "gain": plots.gain(test.labels, {name: values for name, values in scores.items() if name != "random"}),
            "ranking": plots.ranking({**report["baselines"], MODEL: report["model"]}),
            "importance": plots.importance(gains),
            "learning": plots.learning(fitted.losses, fitted.rounds),
        },
        artifacts=contents,
    )


def _metric_name(name: str) -> str:
    return name.replace("@", "_at_")


def _window(report: dict[str, Any]) -> dict[str, Any]:
    split = report["split"]
    return {
        "cut": split["cut"],
        "training_from": split["training"]["from"],
        "training_to": split["training"]["to"],
        "test_to": split["test"]["to"],
    }


def _source(report: dict[str, Any]) -> dict[str, Any]:
    source = report["source"]
    return {
        "learnt_from": source["used"],
        **{name: source[name] for name in ("recorded_decisions", "recorded_successes", "imported_decisions")},
    }


def digest(examples: Examples) -> str:
    """SHA-256 of what was learnt from: columns, values, labels, and which row is of which decision."""
    state = hashlib.sha256(examples.contract.fingerprint.encode())
    for array in (examples.values, examples.labels, examples.decision, examples.times):
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def golden(examples: Examples, test: Examples, fitted: Fitted) -> list[Golden]:
    """Decisions with the answers that a server must give, spread over the test slice, and one of a stranger."""
    wanted = [
        test.where(_only(len(test.ids), number))
        for number in np.unique(np.linspace(0, len(test.ids) - 1, GOLDEN_DECISIONS).astype(int))
    ]
    strange = np.flatnonzero(examples.strangers)
    if len(strange):
        wanted.append(examples.where(_only(len(examples.ids), strange[0])))
    contract = examples.contract
    static = len(contract.of_kind("customer")) + len(contract.of_kind("context"))
    pairs = static + len(contract.of_kind("offer"))
    cases = []
    for one in wanted:
        rows = one.values[:GOLDEN_OFFERS_MAX]
        raw = np.asarray(fitted.booster.predict(rows, raw_score=True, num_threads=1))
        cases.append(
            Golden(
                nullable(rows[0, :static]),
                [nullable(row) for row in rows[:, static:pairs]],
                [nullable(row) for row in rows[:, pairs:]],
                raw.tolist(),
                fitted.calibration.calibration.probabilities(raw).tolist(),
            )
        )
    return cases


def _only(size: int, number: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[number] = True
    return mask

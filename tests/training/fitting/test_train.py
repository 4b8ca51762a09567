"""A whole training run: what is learnt, what MLflow keeps of it, what may serve, and that all of it can be had
again.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.config.schema import Gates
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize.steps import state_of
from tests.trained import copy_of
from training.bundle import registry
from training.bundle.bundle import BadBundle
from training.dataset.examples import Examples, examples_of
from training.dataset.split import split_of
from training.fitting.evaluate import DECISIONS_WITH_SUCCESS_MIN, MODEL, ModelComparison, evaluate, report_of
from training.fitting.train import Trained, digest, golden, train

METRICS = {"mrr", "ndcg@3", "ndcg@10", "hit_rate@3", "hit_rate@10", "auc", "log_loss", "brier", "ece", "decision_auc"}
RANKING = {name for name in METRICS if "@" in name} | {"mrr", "auc"}


@pytest.fixture(scope="module")
def workspace(trained_workspace: Path) -> Workspace:
    return load(trained_workspace)


@pytest.fixture(scope="module")
def report(workspace: Workspace) -> dict[str, Any]:
    """What the first training run reported."""
    found: dict[str, Any] = msgspec.json.decode((workspace.data / "evaluation.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def examples(workspace: Workspace) -> Examples:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own
        return examples_of(workspace, state_of(workspace).computed_at)


def client_of(workspace: Workspace) -> Any:
    return registry.connect(workspace)


def run_of(workspace: Workspace, version: str = "1") -> Any:
    client = client_of(workspace)
    return client.get_run(client.get_model_version(workspace.model.name, version).run_id)


def trained_again(workspace: Workspace, **more: Any) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(workspace, state_of(workspace).computed_at, **more)


def test_the_model_beats_popularity_and_chance(report: dict[str, Any]) -> None:
    """The data has a signal: the model ranks much better than how often an offer is taken, and that better than
    chance.
    """
    model, baselines = report["model"], report["baselines"]
    assert set(baselines) == {"random", "popularity", "logistic_regression"}
    assert model["mrr"] > baselines["popularity"]["mrr"] + 0.05 > baselines["random"]["mrr"] + 0.05
    assert model["auc"] > 0.75 and abs(baselines["random"]["auc"] - 0.5) < 0.06
    assert model["mrr"] > baselines["logistic_regression"]["mrr"] - 0.05
    assert (
        METRICS.issubset(model)
        and METRICS.issubset(baselines["logistic_regression"])
        and RANKING.issubset(baselines["random"])
    )
    assert model["ece"] < 0.03


def test_the_report_tells_where_time_was_cut(report: dict[str, Any], examples: Examples, workspace: Workspace) -> None:
    """Its counts are those of the split; training ends before the cut, the test starts at it."""
    split, found = report["split"], split_of(workspace, examples, state_of(workspace).computed_at)
    assert split["test"]["decisions"] == found.test.sum()
    assert split["training"]["decisions"] == ((found.fit | found.stopping) & ~examples.strangers).sum()
    assert split["test"]["rows"] == found.test[examples.decision].sum()
    assert split["test"]["decisions_with_success"] == report["model"]["decisions_with_success"]
    assert split["training"]["to"] < split["cut"] <= split["test"]["from"]
    assert report["gates"] == "passed" and report["version"] == "1"
    assert report["trees"] > 1 and 0.5 < report["auc_interval"][0] < report["model"]["auc"] < report["auc_interval"][1]
    losses = report["calibration"]["held_out_log_loss"]
    assert losses[report["calibration"]["method"]] == min(losses.values())


def test_mlflow_keeps_the_run(workspace: Workspace, report: dict[str, Any], examples: Examples) -> None:
    """Parameters, data window, digests, metrics by round, five plots, and the parts of the bundle."""
    run = run_of(workspace)
    parameters, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    assert (
        parameters["objective"] == "binary"
        and parameters["num_leaves"] == "15"
        and parameters["cut"] == report["split"]["cut"]
    )
    assert {"training_from", "training_to", "test_to", "rounds", "calibration", "seed"} <= set(parameters)
    for name in METRICS:
        assert metrics[name.replace("@", "_at_")] == report["model"][name]
    assert metrics["popularity.mrr"] == report["baselines"]["popularity"]["mrr"]
    assert tags["opportune.contract"] == workspace.contract.fingerprint
    assert tags["opportune.data_sha256"] == digest(examples)
    assert tags["opportune.rows"] == str(len(examples))
    client = client_of(workspace)
    plots = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in ("calibration", "gain", "ranking", "importance", "learning")}
    assert all(file.file_size > 5_000 for file in client.list_artifacts(run.info.run_id, "plots"))
    history = client.get_metric_history(run.info.run_id, "later_log_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1))
    assert int(parameters["rounds"]) == 1 + int(np.argmin([point.value for point in history]))


def test_the_version_is_registered_and_champion(workspace: Workspace) -> None:
    """The alias leads to the version, a number to itself, and what there is not to nothing."""
    assert registry.version_of(workspace, "champion") == registry.version_of(workspace, "1") == "1"
    assert registry.version_of(workspace, "challenger") is None
    assert registry.version_of(workspace, "99") is None


def test_mlflows_own_tools_load_the_model(workspace: Workspace, examples: Examples) -> None:
    """As LightGBM flavour and as pyfunc: both score the input example, whose columns the signature names in their
    order.
    """
    import mlflow

    client_of(workspace)
    address = f"models:/{workspace.model.name}@champion"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        booster, plain = mlflow.lightgbm.load_model(address), mlflow.pyfunc.load_model(address)
        example = plain.input_example
        assert example is not None and len(example) == 5
        assert plain.metadata.signature.inputs.input_names() == workspace.contract.names == list(example.columns)
        assert {kind.name for kind in plain.metadata.signature.inputs.input_types()} == {"double"}
        expected = np.asarray(booster.predict(example))
        assert np.array_equal(np.asarray(plain.predict(example)), expected)
        # What docs/bring-your-own-data.md says of it: uncalibrated, and whole numbers are refused.
        with pytest.raises(mlflow.exceptions.MlflowException, match="int64"):
            plain.predict(example.fillna(0).astype("int64"))
        raw = np.asarray(booster.predict(example, raw_score=True))
        assert expected == pytest.approx(1 / (1 + np.exp(-raw)))
    assert ((expected > 0) & (expected < 1)).all()
    test = examples.where(split_of(workspace, examples, state_of(workspace).computed_at).test)
    assert np.array_equal(example.to_numpy(), test.values[:5], equal_nan=True)


def test_evaluating_a_version_gives_the_report_of_its_training(workspace: Workspace, report: dict[str, Any]) -> None:
    """The model that is fetched and loaded anew scores the same rows with the same metrics, baselines included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = evaluate(workspace, "1", state_of(workspace).computed_at)
    assert again["model"] == report["model"]
    assert again["baselines"] == report["baselines"]
    assert again["split"] == report["split"]
    assert (again["version"], again["run_id"]) == ("1", report["run_id"])


def test_texts_that_came_later_do_not_confuse_an_older_model(
    workspace: Workspace, examples: Examples, tmp_path: Path
) -> None:
    """A model is evaluated with the codes of its own dictionary, not with one made of today's data."""
    from training.bundle.artifacts import fetch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = fetch(workspace, "1", tmp_path)
        turned = {name: list(reversed(texts)) for name, texts in parts.categories.items()}
        now = state_of(workspace).computed_at
        right, wrong = (
            examples_of(workspace, now, categories=parts.categories),
            examples_of(workspace, now, categories=turned),
        )
    assert right.values.tobytes() == examples.values.tobytes()
    assert not np.array_equal(right.values, wrong.values, equal_nan=True)


def test_golden_requests_are_decisions_of_the_test_and_a_stranger(
    workspace: Workspace, examples: Examples, tmp_path: Path
) -> None:
    """They are spread over the test slice, each with one answer an offer, and one is of a customer whom nobody
    knows.
    """
    from training.bundle.bundle import current, read

    place = current(workspace.bundles)
    assert place is not None
    cases = read(place).golden
    assert len(cases) == 13
    own = len(workspace.contract.of_kind("customer"))
    assert all(value is None for value in cases[-1].shared[:own])
    assert sum(any(value is not None for value in case.shared[:own]) for case in cases) >= 10
    assert all(len(case.raw) == len(case.offers) == len(case.pairs) == len(case.propensities) >= 8 for case in cases)


@pytest.mark.parametrize(
    ("successes", "warned"), [(2, True), (DECISIONS_WITH_SUCCESS_MIN - 1, True), (DECISIONS_WITH_SUCCESS_MIN, False)]
)
def test_few_successes_in_the_test_slice_are_warned_of(
    workspace: Workspace, examples: Examples, successes: int, warned: bool
) -> None:
    """What is compared on a handful of successes is compared by chance: the report says how few, and what to do."""
    moment = state_of(workspace).computed_at
    split = split_of(workspace, examples, moment)
    hits = split.test & np.isin(np.arange(len(examples.ids)), examples.decision[examples.labels > 0])
    few = split.test & (np.cumsum(hits) <= successes)
    found = report_of(workspace, examples, replace(split, test=few), ModelComparison({}, {MODEL: {}}), moment)
    assert found["split"]["test"]["decisions_with_success"] == successes
    assert len(found["warnings"]) == warned
    if warned:
        assert (
            f"got {successes}: whether the model is better" in found["warnings"][0]
            and "Bring more history" in found["warnings"][0]
        )


@pytest.mark.slow
def test_training_again_gives_the_same_model_and_gates_decide_who_serves(workspace: Workspace, tmp_path: Path) -> None:
    """The same data and seed give the same model byte by byte, and a gate that is not passed, or `promote=False`,
    leaves the champion.
    """
    copy = load(copy_of(workspace.folder, tmp_path / "copy"))
    again = trained_again(copy, promote=False)
    assert (again.version, again.promoted) == ("2", False)
    one, two = run_of(copy, "1"), run_of(copy, "2")
    for tag in (registry.MODEL_DIGEST_TAG, "opportune.parts_sha256", "opportune.data_sha256"):
        assert one.data.tags[tag] == two.data.tags[tag], tag
    assert one.data.metrics == two.data.metrics
    assert registry.version_of(copy, "champion") == "1"
    # The model's trees may only use what says nothing, so popularity is better.
    used = {"channel", "hour", "roaming_now"}
    poor = msgspec.structs.replace(
        copy.model, leave_out=tuple(name for name in copy.contract.names if name not in used)
    )
    failing = trained_again(replace(copy, model=poor))
    assert (failing.version, failing.promoted) == ("3", False)
    assert len(failing.report["gates"]) == 1
    assert failing.report["gates"][0].startswith("expected an MRR of at least 0.")
    assert registry.version_of(copy, "champion") == "1"
    without = trained_again(
        replace(copy, model=msgspec.structs.replace(poor, gates=Gates(better_than_popularity=False)))
    )
    assert without.promoted and registry.version_of(copy, "champion") == without.version == "4"
    one_tree = trained_again(
        replace(
            copy, model=msgspec.structs.replace(copy.model, rounds_max=1, gates=Gates(better_than_popularity=False))
        )
    )
    assert not one_tree.promoted and registry.version_of(copy, "champion") == "4"
    assert [reason[:35] for reason in one_tree.report["gates"]] == [
        "expected 2 trees at least, got 1: n"
    ] and one_tree.report["trees"] == 1
    with pytest.raises(BadBundle, match=r"another contract \(not in the model: "):
        evaluate(copy, "4", state_of(copy).computed_at)


def test_golden_requests_need_no_stranger(workspace: Workspace, examples: Examples) -> None:
    """Where no customer was made unknown, the golden requests are those of the test slice; few decisions are all of
    them.
    """
    from training.bundle.calibration_map import Calibration
    from training.fitting.calibration import Chosen
    from training.fitting.fit import Fitted, lgb

    plain = examples.where(~examples.strangers)
    test = plain.where(np.arange(len(plain.ids)) < 3)
    data = lgb.Dataset(test.values, test.labels, params={"verbose": -1})
    booster = lgb.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 1, "num_threads": 1}, data, 2)
    cases = golden(plain, test, Fitted(booster, Chosen("identity", Calibration("sigmoid"), {}), 2, {}, []))
    assert len(cases) == 3
    assert [len(case.raw) for case in cases] == np.bincount(test.decision).tolist()

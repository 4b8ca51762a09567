"""Contributions of columns against their oracles: LightGBM's `pred_contrib`, and the definition of a Shapley value."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import factorial

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns.contract import Column
from serving.kernel.shap import Explainer, grouped
from tests.forests import OBJECTIVES, trained, written
from tests.serving.contributions import (
    CHAIN,
    ROWS,
    TOLERANCE,
    awkward_rows,
    chain,
    chain_reference,
    compare,
    goes_left,
    known_only,
    path_reference,
    scale,
    weighed,
    without_counts,
)
from tests.waiting import LIMIT_S
from training.bundle.forest_compiler import compile_forest

Seed = st.integers(0, 2**32 - 1)


def settled(examples: int) -> settings:
    """The same cases on every machine; a seed found elsewhere belongs into a test of its own."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def held(check: Callable[[], None], counted: list[int]) -> None:
    """Run a property; a check that ran nothing has failed."""
    check()
    assert len(counted) >= 20
    assert sum(counted) >= 20 * ROWS


@pytest.mark.parametrize(("low", "high", "columns", "examples"), [(2, 32, 12, 120), (33, 64, 5, 40), (65, 256, 40, 25)])
def test_trained_models_are_explained_as_lightgbm_explains_them(
    low: int, high: int, columns: int, examples: int
) -> None:
    """Contributions and base of any model LightGBM trains are those of its `pred_contrib`, and add up to the raw
    score.
    """
    counted: list[int] = []

    @settled(examples)
    @given(
        Seed,
        st.integers(low, high),
        st.sampled_from(OBJECTIVES),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["gbdt", "dart"]),
    )
    def check(seed: int, leaves: int, objective: str, zero: bool, missing: bool, boosting: str) -> None:
        booster = trained(
            seed, leaves, objective, columns, zero_as_missing=zero, use_missing=missing, boosting=boosting
        )
        counted.append(compare(booster, compile_forest(booster.model_to_string()), seed))

    held(check, counted)


@pytest.mark.parametrize("leaves_max", [3, 32, 128])
def test_written_models_are_explained_as_lightgbm_explains_them(leaves_max: int) -> None:
    """So are trees no training would make: few columns split again and again, any missing type, threshold and category
    set.
    """
    counted: list[int] = []

    @settled(100)
    @given(Seed, st.integers(1, 6), st.integers(1, 8))
    def check(seed: int, columns: int, trees: int) -> None:
        rng = np.random.default_rng(seed)
        text = weighed(written(rng, columns, trees, leaves_max), rng)
        counted.append(compare(lightgbm.Booster(model_str=text), compile_forest(text), seed))

    held(check, counted)


@settled(25)
@given(Seed, st.integers(1, 4), st.integers(2, 16))
def test_contributions_are_shapley_values(seed: int, columns: int, leaves_max: int) -> None:
    """By the definition: over all sets of other columns, the weighed difference that knowing this column makes."""
    rng = np.random.default_rng(seed)
    forest = compile_forest(weighed(written(rng, columns, 2, leaves_max), rng))
    row = awkward_rows(forest, seed)[0]
    sides = [goes_left(forest, split, row[column]) for split, column in enumerate(forest.split_column)]
    found = Explainer(forest).explain(row)
    for column in range(columns):
        expected, others = 0.0, [other for other in range(columns) if other != column]
        for size in range(columns):
            weight = factorial(size) * factorial(columns - 1 - size) / factorial(columns)
            for chosen in combinations(others, size):
                expected += weight * (
                    known_only(forest, sides, {*chosen, column}) - known_only(forest, sides, set(chosen))
                )
        assert found.values[column] == pytest.approx(expected, rel=0, abs=TOLERANCE * scale(forest))
    assert found.base == pytest.approx(known_only(forest, sides, set()), rel=0, abs=TOLERANCE * scale(forest))


def test_as_many_columns_on_a_path_as_a_tree_can_have() -> None:
    """A chain of 255 splits on 255 columns is exact against fractions (LightGBM's recursion gives 1e46 there), at 128
    points.
    """
    forest = chain()
    row = np.where(np.random.default_rng(1).random(CHAIN) < 0.9, -1.0, 1.0)
    found = Explainer(forest).explain(row)
    for column in (int(np.flatnonzero(row > 0)[0]), 100, CHAIN - 1):
        assert found.values[column] == pytest.approx(chain_reference(forest, row, column), rel=1e-9, abs=1e-15)
    assert found.base == pytest.approx(forest.leaf_value.mean())
    ends = forest.leaf_value[np.flatnonzero(row > 0)[0] + 1]
    assert found.base + found.values.sum() == pytest.approx(ends, rel=1e-12)


@settled(30)
@given(Seed, st.integers(1, 6), st.integers(1, 6))
def test_a_forest_without_counts_is_explained_by_its_paths(seed: int, columns: int, trees: int) -> None:
    """Where a tree has no rows counted the method says `path`, the values are those of the path, and they add up just
    so.
    """
    rng = np.random.default_rng(seed)
    text, bare = weighed(written(rng, columns, trees, 12), rng), rng.random(trees) < rng.choice([0.5, 1.0])
    booster, forest = lightgbm.Booster(model_str=text), without_counts(compile_forest(text), bare)
    explainer, allowed = Explainer(forest), TOLERANCE * scale(forest)
    row = awkward_rows(forest, seed)[0]
    found, (base, wanted) = explainer.explain(row), path_reference(forest, row)
    assert found.method == ("path" if (forest.leaves[bare] > 1).any() else "tree_shap")
    assert found.method == "tree_shap" or found.values == pytest.approx(wanted, rel=0, abs=allowed)
    assert found.base == pytest.approx(base, rel=0, abs=allowed)
    raw = np.asarray(booster.predict(row[None], raw_score=True, num_threads=1))[0]
    assert found.base + found.values.sum() == pytest.approx(raw, rel=0, abs=allowed)


def test_counts_that_contradict_each_other_still_add_up() -> None:
    """Counts of splits that are not the sums of their leaves (estimated in distributed training) leave the sum
    exact.
    """
    text = written(np.random.default_rng(5), 4, 6, 32)
    forest = compile_forest(text)
    rows = awkward_rows(forest, 5)
    raw = np.asarray(lightgbm.Booster(model_str=text).predict(rows, raw_score=True, num_threads=1))
    for row, score in zip(rows, raw, strict=True):
        found = Explainer(forest).explain(row)
        assert found.method == "tree_shap"
        assert found.base + found.values.sum() == pytest.approx(score, rel=0, abs=TOLERANCE * scale(forest))


def test_a_leaf_that_no_row_reached() -> None:
    """It weighs nothing in the base, a row that ends there still adds up, and the columns on its way share the
    difference.
    """
    forest = compile_forest(trained(3, 8, "regression", trees=1).model_to_string())
    count = forest.leaf_count.copy()
    count[0] = 0
    changed = Explainer(replace(forest, leaf_count=count))
    assert changed.method == "tree_shap"
    assert changed.base == pytest.approx((forest.leaf_value * count).sum() / count.sum())
    ends = set()
    for row in np.random.default_rng(0).normal(size=(400, 5)) * 100:
        plain, found = Explainer(forest).explain(row), changed.explain(row)
        score = plain.base + plain.values.sum()
        assert found.base + found.values.sum() == pytest.approx(score, rel=0, abs=TOLERANCE * scale(forest))
        ends.add(int(np.abs(forest.leaf_value - score).argmin()))
    assert 0 in ends and len(ends) > 1


def test_stumps_and_trees_of_one_leaf() -> None:
    """A model of constants has a base and no contributions; a stump gives its column the whole difference to the
    base.
    """
    data = np.random.default_rng(0).normal(size=(300, 2))
    params = {"objective": "regression", "num_leaves": 2, "verbose": -1, "num_threads": 1}
    constant = lightgbm.train(params, lightgbm.Dataset(data, np.full(300, 3.5)), 3)
    forest = compile_forest(constant.model_to_string())
    assert forest.leaves.max() == 1
    found = Explainer(forest).explain(np.array([1.0, np.nan]))
    assert found.base == np.asarray(constant.predict(np.zeros((1, 2))))[0] and not found.values.any()
    stump = lightgbm.train(params, lightgbm.Dataset(data, data[:, 1]), 1)
    found = Explainer(compile_forest(stump.model_to_string())).explain(np.array([9.0, 9.0]))
    assert found.values[0] == 0.0
    assert found.values[1] == pytest.approx(np.asarray(stump.predict(np.full((1, 2), 9.0)))[0] - found.base)


def test_a_row_of_another_width_is_refused_and_a_row_is_left_as_it_was() -> None:
    """The message says how many columns were expected; what LightGBM takes for zero stays what it is in the caller's
    row.
    """
    explainer = Explainer(compile_forest(trained(1, 8, "regression").model_to_string()))
    for wrong in ((4,), (6,), (1, 5), ()):
        with pytest.raises(ValueError, match="model's 5 columns, got shape"):
            explainer.explain(np.zeros(wrong))
    row = np.full(5, 1e-36)
    row.flags.writeable = False
    assert (explainer.explain(row).values == explainer.explain(np.zeros(5)).values).all()


def test_what_never_explains_loads_no_code_for_it() -> None:
    """Importing the module brings neither the code that numba compiles nor LightGBM."""
    program = "import sys, serving.kernel.shap; assert not {'serving.kernel.shap_code', 'lightgbm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT_S)


def test_a_column_and_what_is_relative_to_it_are_one_line() -> None:
    """Share and rank are added to their column, also where the model leaves that out; the weightiest line comes
    first.
    """
    columns = [
        Column("channel", "context", "category", "channel"),
        Column("popular", "offer", "number", "all.shop.popular"),
        Column("bought_all", "pair", "number", "own.shop.bought_all"),
        Column("bought_all_share", "pair", "number", "own.shop.bought_all", relative="share", relative_to="bought_all"),
        Column("bought_all_rank", "pair", "number", "own.shop.bought_all", relative="rank", relative_to="bought_all"),
        Column("popular_rank", "pair", "number", "all.shop.popular", relative="rank", relative_to="popular"),
        Column("spent_share", "pair", "number", "own.shop.spent", relative="share", relative_to="spent"),
    ]
    lines = grouped(np.array([0.25, 0.5, 1.0, -4.0, 0.5, 0.125, 0.0]), columns)
    assert [(line.name, line.kind, line.contribution, len(line.columns)) for line in lines] == [
        ("bought_all", "pair", -2.5, 3),
        ("popular", "offer", 0.625, 2),
        ("channel", "context", 0.25, 1),
        ("spent", "pair", 0.0, 1),
    ]
    assert lines[0].source == "own.shop.bought_all" and lines[1].columns == ("popular", "popular_rank")
    with pytest.raises(ValueError, match="one for each of 7 columns"):
        grouped(np.zeros(6), columns)

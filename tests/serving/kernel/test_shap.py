"""Contributions of columns against their oracles: LightGBM's `pred_contrib`, and the definition of a Shapley value."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from math import factorial
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns.contract import Column
from serving.kernel.kernel import Kernel
from serving.kernel.shap import Explainer, grouped
from tests.forests import OBJECTIVES, trained, values, written
from tests.waiting import LIMIT_S
from training.bundle.forest import CATEGORICAL, Forest
from training.bundle.forest_compiler import compile_forest

Floats = npt.NDArray[np.float64]
Seed = st.integers(0, 2**32 - 1)
ROWS = 12
TOLERANCE = 1e-11  # of the largest leaf, for a tree; what was seen is below 1e-14


def settled(examples: int) -> settings:
    """The same cases on every machine; a seed found elsewhere belongs into a test of its own."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def scale(forest: Forest) -> float:
    """What rounding is measured by: the largest leaf of each tree, added up."""
    return float(np.maximum.reduceat(np.abs(forest.leaf_value), forest.leaf_start[:-1]).sum()) + 1e-300


def awkward_rows(forest: Forest, seed: int) -> Floats:
    """Rows of thresholds and their neighbours, missing values, infinities, zeros and categories never seen."""
    thresholds = forest.threshold[forest.decision & CATEGORICAL == 0]
    return values(np.random.default_rng(seed), thresholds, (ROWS, len(forest.columns)))


def compare(booster: lightgbm.Booster, forest: Forest, seed: int) -> int:
    """Awkward rows, explained by LightGBM and by us; how many were compared."""
    rows, explainer, allowed = awkward_rows(forest, seed), Explainer(forest), TOLERANCE * scale(forest)
    expected = np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))
    raw = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
    for row, wanted, score in zip(rows, expected, raw, strict=True):
        found = explainer.explain(row)
        assert found.method == "tree_shap"
        assert found.values == pytest.approx(wanted[:-1], rel=0, abs=allowed)
        assert found.base == pytest.approx(wanted[-1], rel=0, abs=allowed)
        assert found.base + found.values.sum() == pytest.approx(score, rel=0, abs=allowed)
        unused = sorted(set(range(len(forest.columns))) - set(forest.split_column.tolist()))
        assert (found.values[unused] == 0).all()
    return len(rows)


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


def weighed(text: str, rng: np.random.Generator) -> str:
    """A written model with uneven counts of rows that add up; `written` itself gives all leaves one and all splits
    two.
    """
    forest = compile_forest(text)
    head, body = text.split("tree_sizes=")
    sizes, *blocks = body.split("\nend of trees")[0].split("Tree=")
    for tree, block in enumerate(blocks):
        split, splits = forest.split_start[tree], int(forest.leaves[tree]) - 1
        leaves = (10.0 ** rng.uniform(0, 6, splits + 1)).astype(np.int64).tolist()
        below = [0] * splits
        for number in range(splits - 1, -1, -1):
            for child in (int(forest.left[split + number]), int(forest.right[split + number])):
                below[number] += below[child] if child >= 0 else leaves[~child]
        for name, counts in (("leaf_count", leaves), ("internal_count", below)):
            block = re.sub(f"\n{name}=.*", f"\n{name}={' '.join(map(str, counts))}", block)
        blocks[tree] = f"Tree={block}"
    assert len(sizes.split()) == len(blocks)
    return (
        f"{head}tree_sizes={' '.join(str(len(block)) for block in blocks)}\n\n{''.join(blocks)}\nend of"
        f" trees{body.split('end of trees')[1]}"
    )


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


def goes_left(forest: Forest, split: int, value: float) -> bool:
    """One decision as the kernel makes it, in a tree of that split alone."""
    one = {"leaves": [2], "left": [~0], "right": [~1], "leaf_value": [1.0, 0.0], "leaf_count": [1, 1]}
    arrays: dict[str, Any] = {name: np.array(array, getattr(forest, name).dtype) for name, array in one.items()}
    for name in ("split_column", "threshold", "decision", "split_count"):
        arrays[name] = getattr(forest, name)[split : split + 1].copy()
    out = np.empty(1)
    kernel = Kernel(replace(forest, **arrays), [int(forest.split_column[split])], [])
    kernel.score(np.array([value]), kernel.prepare(np.empty((1, 0))), np.zeros(1, np.int32), np.empty((1, 0)), out)
    return bool(out[0])


def known_only(forest: Forest, sides: list[bool], known: set[int]) -> float:
    """What the forest says when only these columns are known: a split on another one sends the row both ways, by
    rows.
    """

    def below(tree: int, node: int) -> tuple[float, float]:
        """Value, and training rows, of a node."""
        if node < 0:
            leaf = forest.leaf_start[tree] + ~node
            return float(forest.leaf_value[leaf]), float(forest.leaf_count[leaf])
        split = int(forest.split_start[tree]) + node
        (left, m), (right, n) = below(tree, int(forest.left[split])), below(tree, int(forest.right[split]))
        share = float(sides[split]) if forest.split_column[split] in known else m / (m + n)
        return share * left + (1 - share) * right, m + n

    return sum(below(tree, 0 if forest.leaves[tree] > 1 else ~0)[0] for tree in range(forest.trees))


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


CHAIN = 255  # splits, each on a column of its own: as many as a tree can have


def chain() -> Forest:
    """One tree: split s is on column s, its right side a leaf, its left side the next split; every leaf has ten
    rows.
    """
    forest, splits = compile_forest(written(np.random.default_rng(0), CHAIN, 1, 2)), np.arange(CHAIN)
    changes: dict[str, Any] = {
        "leaves": [CHAIN + 1],
        "split_column": splits,
        "threshold": 0.0 * splits,
        "decision": 0 * splits,
    }
    changes |= {"left": [*range(1, CHAIN), ~0], "right": ~(splits + 1), "split_count": 10 * (CHAIN + 1 - splits)}
    changes |= {
        "leaf_value": [1.0, *(0.5 + (-1) ** s * s / CHAIN for s in range(CHAIN))],
        "leaf_count": [10] * (CHAIN + 1),
    }
    changes |= {"category_start": [0], "category_words": []}
    arrays: dict[str, Any] = {name: np.array(value, getattr(forest, name).dtype) for name, value in changes.items()}
    return replace(forest, **arrays)


def chain_reference(forest: Forest, row: Floats, column: int) -> float:
    """The contribution of a column of the chain in exact fractions: leaf by leaf, the product of the other factors as a
    polynomial.
    """
    total, others, own = Fraction(0), [Fraction(1)], Fraction(1)

    def times(polynomial: list[Fraction], share: Fraction, taken: bool) -> list[Fraction]:
        constant, slope = share, 1 - share if taken else -share
        zero = [Fraction(0)]
        return [constant * a + slope * b for a, b in zip(polynomial + zero, zero + polynomial, strict=True)]

    for split in range(CHAIN):
        rest, left = CHAIN + 1 - split, bool(row[split] <= 0)
        away, on = Fraction(1, rest), Fraction(rest - 1, rest)
        if split == column:
            ends, own = [(others, (not left) - away, split + 1)], left - on
        else:
            ends = [(times(others, away, not left), own, split + 1)] if split > column else []
            others = times(others, on, left)
        for polynomial, difference, leaf in [*ends, (others, own, 0)] if split == CHAIN - 1 else ends:
            integral = sum((part / (power + 1) for power, part in enumerate(polynomial)), Fraction(0))
            total += difference * integral * Fraction(float(forest.leaf_value[leaf]))
    return float(total)


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


def without_counts(forest: Forest, trees: npt.NDArray[np.bool_]) -> Forest:
    """The forest as another program might have written it: no rows counted in these trees."""
    splits, leaves = np.repeat(trees, forest.leaves - 1), np.repeat(trees, forest.leaves)
    return replace(
        forest, split_count=np.where(splits, 0, forest.split_count), leaf_count=np.where(leaves, 0, forest.leaf_count)
    )


def path_reference(forest: Forest, row: Floats) -> tuple[float, Floats]:
    """Base and contributions by the path alone, in a few lines of Python; leaves weigh alike where no rows were
    counted.
    """

    def mean(tree: int, node: int) -> tuple[float, int]:
        if node < 0:
            leaf = forest.leaf_start[tree] + ~node
            return float(forest.leaf_value[leaf]), int(forest.leaf_count[leaf]) or 1
        split = int(forest.split_start[tree]) + node
        (a, m), (b, n) = mean(tree, int(forest.left[split])), mean(tree, int(forest.right[split]))
        return (a * m + b * n) / (m + n), m + n

    base, found = 0.0, np.zeros(len(forest.columns))
    for tree in range(forest.trees):
        node = 0 if forest.leaves[tree] > 1 else ~0
        base += mean(tree, node)[0]
        while node >= 0:
            split = int(forest.split_start[tree]) + node
            column = int(forest.split_column[split])
            after = int(forest.left[split] if goes_left(forest, split, row[column]) else forest.right[split])
            found[column] += mean(tree, after)[0] - mean(tree, node)[0]
            node = after
    return base, found


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

"""References for contributions of columns: the definition of a Shapley value, a chain, the paths of a forest."""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest

from serving.kernel.kernel import Kernel
from serving.kernel.shap import Explainer
from tests.forests import values, written
from training.bundle.forest import CATEGORICAL, Forest
from training.bundle.forest_compiler import compile_forest

Floats = npt.NDArray[np.float64]
ROWS = 12
TOLERANCE = 1e-11  # of the largest leaf, for a tree; what was seen is below 1e-14


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

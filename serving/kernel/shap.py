"""What each column adds to a raw score: "why this offer", computed from the compiled forest, without LightGBM.

TreeSHAP (Lundberg et al., 2020), path dependent, the method of LightGBM's `predict(pred_contrib=True)`: a column's
contribution is its Shapley value in the game where a set of columns is known, and a split on an unknown column sends
the row both ways, in proportion to the training rows. The base is what the forest says when nothing is known; base and
contributions add up to the raw score.

How it is computed. The Shapley weight of a set of s out of m columns is an integral, s! (m-1-s)! / m! = int u^s
(1-u)^(m-1-s) du over 0..1: "each column is known with probability u". A column whose splits on the way to a leaf keep
the share z of the rows then passes the factor z + u (1 - z) if the row takes all of them, and z (1 - u) if not. For one
u, all leaves are one pass down the tree (the product of the factors) and one pass up (the mean of the leaves). A leaf
below m columns is a polynomial of degree m - 1 in u, so that ceil(m / 2) points of Gauss and Legendre integrate it
exactly. (After Linear TreeSHAP, Yu et al., 2022.) All factors lie in 0..1 and no difference of near numbers is taken:
this is at least as exact as the recursion of LightGBM.

A forest with a split that no training row passed has no such shares. Its contributions are those of the path alone
(Saabas, 2014): what each split on the row's way changes of the mean below, where leaves of a tree without rows weigh
alike. They add up just so, favour columns low in the tree, and are called by their name in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.columns.contract import Column
from features.common.types import ColumnKind
from serving.kernel.mask_code import ZERO
from training.bundle.forest import Forest

TREE_SHAP: Final = "tree_shap"
PATH: Final = "path"
Method = Literal["tree_shap", "path"]

Floats = NDArray[np.float64]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Contributions:
    """One row explained, in units of the raw score: `base + values.sum()` is the raw score, but for rounding.

    base    the raw score when nothing is known of the row
    values  f8[columns] in model order; 0 for a column that no split uses
    method  how they were attributed
    """

    method: Method
    base: float
    values: Floats


class ColumnGroup(msgspec.Struct, frozen=True):
    """A column with its relative columns (share, rank, ratio), as one line for people."""

    name: str
    kind: ColumnKind
    source: str
    contribution: float
    columns: tuple[str, ...]
    """Those of the model that were added up."""


class Explainer:
    """Explains raw scores of one forest. Never changes after it was made: any thread may use it.

    Made when the first explanation is asked for, not with the server: it loads machine code (the first time on a
    machine it compiles for some seconds, then the code is kept beside this file or in `NUMBA_CACHE_DIR`).
    """

    def __init__(self, forest: Forest) -> None:
        from serving.kernel.shap_code import compiled

        self._code, self._columns = compiled(), len(forest.columns)
        splits = len(forest.left)
        shape = (forest.leaves, forest.leaf_start, forest.split_start, forest.left, forest.right, forest.split_column)
        rules = (forest.threshold, forest.decision, forest.category_start, forest.category_words, forest.leaf_value)
        share, above, mean = np.empty((splits, 2)), np.empty(splits, np.int32), np.empty(splits)
        width = np.zeros(forest.trees, np.int32)
        counted = self._code.prepare(*shape, forest.leaf_value, forest.leaf_count, share, above, mean, width)
        self.method: Method = TREE_SHAP if counted else PATH
        self.base = _base(forest, mean)
        self._forest = (*shape, *rules)
        self._tables: tuple[Array, ...] = (mean,)
        if counted:
            points = np.maximum(width + 1, 2).astype(np.int32) // np.int32(2)
            self._tables = (share, above, points, *_quadrature(int(points.max())))

    def explain(self, values: Floats) -> Contributions:
        """Return the contributions of one row, f8[columns] in model order, NaN for missing; without the interpreter's
        lock.

        Raises:
            ValueError: the row is not of the forest's columns.
        """
        row = np.array(values, np.float64, order="C")
        if row.shape != (self._columns,):
            raise ValueError(f"values: expected a row of the model's {self._columns} columns, got shape {row.shape}")
        row[np.abs(row) <= ZERO] = 0.0
        found = np.empty(self._columns)
        function = self._code.tree_shap if self.method == TREE_SHAP else self._code.path
        function(*self._forest, row, *self._tables, found)
        return Contributions(self.method, self.base, found)


def grouped(contributions: Floats, columns: Sequence[Column]) -> list[ColumnGroup]:
    """Contributions of columns, f8[columns], added up so that a column and what is relative to it are one; the
    weightiest first.

    Raises:
        ValueError: not one contribution a column.
    """
    if contributions.shape != (len(columns),):
        raise ValueError(
            f"contributions: expected one for each of {len(columns)} columns, got shape {contributions.shape}"
        )
    members: dict[str, list[int]] = {}
    for at, column in enumerate(columns):
        members.setdefault(column.relative_to or column.name, []).append(at)
    groups = []
    for name, places in members.items():
        head = next(
            (columns[at] for at in places if columns[at].name == name), columns[places[0]]
        )  # the model may leave it out
        total = math.fsum(contributions[places].tolist())
        groups.append(ColumnGroup(name, head.kind, head.source, total, tuple(columns[at].name for at in places)))
    return sorted(groups, key=lambda group: (-abs(group.contribution), group.name))


def _base(forest: Forest, mean: Floats) -> float:
    """Return the sum over all trees of the mean of their leaves."""
    alone = forest.leaves == 1
    return math.fsum(
        [*mean[forest.split_start[:-1][~alone]].tolist(), *forest.leaf_value[forest.leaf_start[:-1][alone]].tolist()]
    )


def _quadrature(points_max: int) -> tuple[Floats, Floats]:
    """Abscissas and weights on 0..1 for 1, 2, … points, one after another: those for n begin at n (n - 1) / 2."""
    rules = [np.polynomial.legendre.leggauss(count) for count in range(1, points_max + 1)]
    return np.concatenate([(at + 1) / 2 for at, _ in rules]), np.concatenate([weight / 2 for _, weight in rules])

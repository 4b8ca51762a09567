"""The machine code behind `serving.kernel.shap`: loaded by the first explanation, so a worker that never explains holds
none of it.

A tree of S splits has 2 S edges: edge 2 s goes left from split s, edge 2 s + 1 goes right. What `prepare` writes, for
each split:

share   f8[S, 2]  of both edges: the product of (rows after / rows before) over the edges of the same column down to
this one above   i4[S]     the nearest edge above, in the same tree, that is of the same column; -1 where there is none
mean    f8[S]     the mean of the leaf values below, each leaf weighed by its training rows
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from serving.kernel.mask_code import CATEGORY_END
from training.bundle.forest import CATEGORICAL, DEFAULT_LEFT, LEAVES_MAX, MISSING_NAN, MISSING_SHIFT, MISSING_ZERO

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

SPLITS_MAX: Final = LEAVES_MAX - 1


class ShapCode(NamedTuple):
    """The three compiled functions."""

    prepare: Callable[..., bool]
    tree_shap: Callable[..., None]
    path: Callable[..., None]


@cache
def compiled() -> ShapCode:
    """Compile, or load from the cache; afterwards no call compiles anything."""
    u1, i4, i8, f8 = nb.uint8, nb.int32, nb.int64, nb.float64

    def given(dtype: Any, dimensions: int = 1) -> Any:
        return nb.types.Array(dtype, dimensions, "C", readonly=True)  # takes writable arrays too

    def build(result: Any, arguments: list[Any], function: Any) -> Any:
        return nb.njit(result(*arguments), nogil=True, cache=True, error_model="numpy")(function.py_func)

    shape = [given(i4), given(i8), given(i8), given(i4), given(i4), given(i4)]
    rules = [given(f8), given(u1), given(i8), given(nb.uint32), given(f8)]
    return ShapCode(
        build(nb.boolean, [*shape, given(f8), given(i8), f8[:, ::1], i4[::1], f8[::1], i4[::1]], _prepare),
        build(
            nb.void,
            [*shape, *rules, f8[::1], given(f8, 2), given(i4), given(i4), given(f8), given(f8), f8[::1]],
            _tree_shap,
        ),
        build(nb.void, [*shape, *rules, f8[::1], given(f8), f8[::1]], _path),
    )


@nb.njit(nogil=True)
def _prepare(
    leaves: Array,
    leaf_start: Array,
    split_start: Array,
    left: Array,
    right: Array,
    split_column: Array,
    leaf_value: Floats,
    leaf_count: Array,
    share: Floats,
    above: Array,
    mean: Floats,
    width: Array,
) -> bool:
    """Fill `share`, `above`, `mean`, and `width` (most different columns on a way down, a tree); whether all splits
    have rows.

    In a tree where a split has no rows at all, every leaf weighs one, and `share` means nothing.
    """
    rows, sums = np.empty(SPLITS_MAX), np.empty(SPLITS_MAX)
    edge_in, columns = np.empty(SPLITS_MAX, np.int64), np.empty(SPLITS_MAX, np.int64)
    counted = True
    for t in range(leaves.shape[0]):
        s0, v0, splits = split_start[t], leaf_start[t], leaves[t] - 1
        weighed = True
        for attempt in range(2):
            for i in range(splits - 1, -1, -1):  # a child has a larger number than its parent
                rows[i], sums[i] = 0.0, 0.0
                for child in (left[s0 + i], right[s0 + i]):
                    weight = rows[child] if child >= 0 else float(leaf_count[v0 + ~child]) if attempt == 0 else 1.0
                    rows[i] += weight
                    sums[i] += sums[child] if child >= 0 else weight * leaf_value[v0 + ~child]
                weighed &= rows[i] > 0
            if weighed:
                break
            counted = False
        if splits:
            edge_in[0], columns[0] = -1, 0
        for i in range(splits):
            s = s0 + i
            edge = edge_in[i]
            while edge >= 0 and split_column[s0 + edge // 2] != split_column[s]:
                edge = edge_in[edge // 2]
            above[s], mean[s] = edge, sums[i] / rows[i]
            before = share[s0 + edge // 2, edge % 2] if edge >= 0 else 1.0
            many = columns[i] + (edge < 0)
            width[t] = max(width[t], many)
            for side in range(2):
                child = right[s] if side else left[s]
                after = rows[child] if child >= 0 else float(leaf_count[v0 + ~child])
                share[s, side] = before * (after / rows[i])
                if child >= 0:
                    edge_in[child], columns[child] = 2 * i + side, many
    return counted


@nb.njit(nogil=True)
def _goes_left(x: float, decision: int, threshold: float, category_start: Array, category_words: Array) -> bool:
    """LightGBM's decision for one value, 0.0 if it is zero to LightGBM; that of `serving.kernel.mask_code` is for
    intervals of values.
    """
    if decision & CATEGORICAL:
        if not -1.0 < x < CATEGORY_END:  # missing too
            return False
        category, number = np.int64(x), np.int64(threshold)
        word = category_start[number] + (category >> 5)
        return bool(word < category_start[number + 1] and (category_words[word] >> np.uint32(category & 31)) & 1 == 1)
    missing = decision >> MISSING_SHIFT
    unknown = np.isnan(x)
    if (missing == MISSING_NAN and unknown) or (missing == MISSING_ZERO and (unknown or x == 0.0)):
        return decision & DEFAULT_LEFT != 0
    return (0.0 if unknown else x) <= threshold


@nb.njit(nogil=True, error_model="numpy")  # a check for zero at each division would keep the loops from being vectors
def _tree_shap(
    leaves: Array,
    leaf_start: Array,
    split_start: Array,
    left: Array,
    right: Array,
    split_column: Array,
    threshold: Floats,
    decision: Array,
    category_start: Array,
    category_words: Array,
    leaf_value: Floats,
    values: Floats,
    share: Floats,
    above: Array,
    points: Array,
    abscissa: Floats,
    weight: Floats,
    out: Floats,
) -> None:
    """Shapley values of one row into `out`, one a column; `serving.kernel.shap` says how.

    Down the tree `ways[i]` is the product of the factors above split i; up the tree `level` is the mean of the leaves
    below by the factors below. An edge is open while the row itself would take it and all edges above of the same
    column.
    """
    most = points.max()
    total = np.zeros((out.shape[0], most))
    scratch = np.empty((4, SPLITS_MAX, most))
    ways, slope, near, far = scratch[0], scratch[1], scratch[2], scratch[3]
    level = np.empty((SPLITS_MAX + LEAVES_MAX, most))
    is_open, taken = np.empty(2 * SPLITS_MAX, np.bool_), np.empty(SPLITS_MAX, np.int64)
    for t in range(leaves.shape[0]):
        s0, splits, n = split_start[t], leaves[t] - 1, points[t]
        at = n * (n - 1) // 2
        if splits:
            ways[0, :n] = weight[at : at + n]
        for leaf in range(splits + 1):
            level[SPLITS_MAX + leaf, :n] = leaf_value[leaf_start[t] + leaf]
        for i in range(splits):
            s = s0 + i
            edge = above[s]
            z = share[s0 + edge // 2, edge % 2] if edge >= 0 else 1.0
            active = edge < 0 or is_open[edge]
            x = values[split_column[s]]
            side = 0 if _goes_left(x, decision[s], threshold[s], category_start, category_words) else 1
            is_open[2 * i + side], is_open[2 * i + 1 - side] = active, False
            taken[i] = side if active else side + 2
            hot, cold = share[s, side], share[s, 1 - side]
            if active:
                for k in range(n):
                    u = abscissa[at + k]
                    inverse = 1.0 / (z + u * (1.0 - z))
                    near[i, k] = (hot + u * (1.0 - hot)) * inverse
                    far[i, k] = cold * (1.0 - u) * inverse
                    slope[i, k] = cold * inverse * inverse * ways[i, k]
            else:
                near[i, :n] = hot / z
                far[i, :n] = cold / z
            taken_child, other_child = (right[s], left[s]) if side else (left[s], right[s])
            if taken_child >= 0:
                for k in range(n):
                    ways[taken_child, k] = ways[i, k] * near[i, k]
            if other_child >= 0:
                for k in range(n):
                    ways[other_child, k] = ways[i, k] * far[i, k]
        for i in range(splits - 1, -1, -1):
            s = s0 + i
            a, b = (right[s], left[s]) if taken[i] & 1 else (left[s], right[s])
            a = a if a >= 0 else SPLITS_MAX + ~a
            b = b if b >= 0 else SPLITS_MAX + ~b
            column = split_column[s]
            if taken[i] < 2:
                for k in range(n):
                    total[column, k] += slope[i, k] * (level[a, k] - level[b, k])
            for k in range(n):
                level[i, k] = near[i, k] * level[a, k] + far[i, k] * level[b, k]
    for column in range(out.shape[0]):
        out[column] = total[column].sum()


@nb.njit(nogil=True)
def _path(
    leaves: Array,
    leaf_start: Array,
    split_start: Array,
    left: Array,
    right: Array,
    split_column: Array,
    threshold: Floats,
    decision: Array,
    category_start: Array,
    category_words: Array,
    leaf_value: Floats,
    values: Floats,
    mean: Floats,
    out: Floats,
) -> None:
    """Return what each split on the row's way changes of the mean below it, added up by column."""
    out[:] = 0.0
    for t in range(leaves.shape[0]):
        s0, node = split_start[t], 0
        while node >= 0 and leaves[t] > 1:
            s = s0 + node
            x = values[split_column[s]]
            node = left[s] if _goes_left(x, decision[s], threshold[s], category_start, category_words) else right[s]
            after = mean[s0 + node] if node >= 0 else leaf_value[leaf_start[t] + ~node]
            out[split_column[s]] += after - mean[s]

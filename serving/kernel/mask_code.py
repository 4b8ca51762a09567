"""The machine code that turns a forest into rows of masks, when a bundle is loaded; see `serving.kernel.kernel`.

numba keeps compiled code by the file that a function is in, and knows nothing of others: functions that call each other
stay in one file.
"""

from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

from training.bundle.forest import CATEGORICAL, DEFAULT_LEFT, MISSING_NAN, MISSING_SHIFT, MISSING_ZERO

ZERO: Final = float(np.float32(1e-35))  # LightGBM's kZeroThreshold: what is not above it, on either side, is zero
CATEGORY_END: Final = float(1 << 31)  # LightGBM casts to a 32-bit int

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@nb.njit(nogil=True)
def _goes_left(
    kind: int, x: float, decision: int, threshold: float, category_start: Array, category_words: Array
) -> bool:
    """LightGBM's decision for an interval (kind 0, x its upper end), for zero (kind 1, x = 0.0), for missing (kind
    2).
    """
    if decision & CATEGORICAL:
        if kind == 2 or not -1.0 < x < CATEGORY_END:
            return False
        category, number = np.int64(x), np.int64(threshold)
        word = category_start[number] + (category >> 5)
        return bool(word < category_start[number + 1] and (category_words[word] >> np.uint32(category & 31)) & 1 == 1)
    missing = decision >> MISSING_SHIFT
    if (kind == 2 and missing == MISSING_NAN) or (kind > 0 and missing == MISSING_ZERO):
        return decision & DEFAULT_LEFT != 0
    return (0.0 if kind > 0 else x) <= threshold


@nb.njit(nogil=True)
def fill_masks(
    leaves: Array,
    leaf_start: Array,
    split_start: Array,
    left: Array,
    right: Array,
    leaf_value: Array,
    split_column: Array,
    threshold: Array,
    decision: Array,
    category_start: Array,
    category_words: Array,
    cuts: Floats,
    cut_start: Array,
    row_start: Array,
    flip: Array,
    defaults: Floats,
    rows: Array,
    leaf: Floats,
) -> None:
    """Number the leaves of every tree and write the masks of every split into the rows of its column."""
    words, width = rows.shape[1] // leaf.shape[0], leaf.shape[1] // (rows.shape[1] // leaf.shape[0])
    below, begin, keep = np.zeros(256, np.int64), np.zeros(256, np.int64), np.zeros(words, rows.dtype)
    for t in range(leaves.shape[0]):
        s, v = split_start[t], leaf_start[t]
        if leaves[t] == 1:
            leaf[t, 0] = leaf_value[v]
        for i in range(leaves[t] - 2, -1, -1):  # children have larger numbers
            a, b = left[s + i], right[s + i]
            below[i] = (below[a] if a >= 0 else 1) + (below[b] if b >= 0 else 1)
        begin[0] = 0
        for i in range(leaves[t] - 1):
            c, d, th = split_column[s + i], decision[s + i], threshold[s + i]
            swap = False
            if flip[c]:
                x = defaults[c]
                kind = 2 if np.isnan(x) else 1 if abs(x) <= ZERO else 0
                swap = not _goes_left(kind, x, d, th, category_start, category_words)
            a, b = (right[s + i], left[s + i]) if swap else (left[s + i], right[s + i])
            middle = begin[i] + (below[a] if a >= 0 else 1)
            for child, at in ((a, begin[i]), (b, middle)):
                if child >= 0:
                    begin[child] = at
                else:
                    leaf[t, at] = leaf_value[v + ~child]
            keep[:] = ~rows.dtype.type(0)
            for bit in range(begin[i], middle):
                keep[bit // width] &= ~(rows.dtype.type(1) << rows.dtype.type(bit % width))
            many = cut_start[c + 1] - cut_start[c]
            for r in range(many + 3):
                kind = max(0, r - many)
                x = 0.0 if kind else cuts[cut_start[c] + r] if r < many else np.inf
                if _goes_left(kind, x, d, th, category_start, category_words) == swap:
                    for w in range(words):
                        rows[row_start[c] + r, t * words + w] &= keep[w]

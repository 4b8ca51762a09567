"""The kernel's machine code: what numba compiles, with the signatures it is compiled for.

Straight loops over plain arrays, called by `serving.kernel`, which says what they mean. Unsigned indexes spare numba's
check for negative ones.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
from numba.cpython.unsafe import numbers as bit_numbers

from serving.kernel.mask_code import ZERO, fill_masks

BLOCK: Final = 16  # thresholds are searched by blocks: count the block ends below x, then count inside one block
trailing_zeros: Any = bit_numbers.trailing_zeros  # one machine instruction

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class KernelCode(NamedTuple):
    """The three compiled functions, for one width of mask."""

    fill: Callable[..., None]
    prepare: Callable[..., Array]
    score: Callable[..., int]


@cache
def compiled(mask: str) -> KernelCode:
    """Compile for masks of 32 or 64 bits, or load from the cache; afterwards no call compiles anything."""
    u1, i4, i8, u8, f8 = nb.uint8, nb.int32, nb.int64, nb.uint64, nb.float64
    m = nb.uint32 if mask == "uint32" else nb.uint64

    def given(dtype: Any, dimensions: int = 1) -> Any:
        return nb.types.Array(dtype, dimensions, "C", readonly=True)  # takes writable arrays too

    fill = [given(i4), given(i8), given(i8), given(i4), given(i4), given(f8)]
    fill += [given(i4), given(f8), given(u1), given(i8), given(nb.uint32)]
    fill += [f8[::1], i8[::1], i8[::1], u1[::1], f8[::1], m[:, ::1], f8[:, ::1]]
    prepare = [given(f8, 2), i8[:, ::1], f8[::1], m[:, ::1], i8, nb.uint16[:, ::1], u8[::1]]
    score = [m[:, ::1], f8[::1], i8[::1], given(nb.uint16, 2), given(u8), given(m, 2)]
    score += [given(f8), given(i4), given(f8, 2), f8[::1]]

    def build(result: Any, arguments: list[Any], function: Any) -> Any:
        return nb.njit(result(*arguments), nogil=True, cache=True)(function.py_func)

    return KernelCode(build(nb.void, fill, fill_masks), build(m[:, ::1], prepare, _prepare), build(i8, score, _score))


@nb.njit(nogil=True)
def _row(x: float, columns: Array, i: int, search: Floats) -> Any:
    """Return the row of masks for value x of column i of `columns`: (place, first row, cuts, outer at, inner at,
    outers).
    """
    if np.isnan(x):
        return np.uint64(columns[i, 1] + columns[i, 2] + 2)
    if abs(x) <= ZERO:
        return np.uint64(columns[i, 1] + columns[i, 2] + 1)
    block, at = np.uint64(0), np.uint64(columns[i, 3])
    for k in range(np.uint64(columns[i, 5])):
        block += np.uint64(search[at + k] < x)
    at, inside = np.uint64(columns[i, 4]) + block * np.uint64(BLOCK), np.uint64(0)
    for k in range(np.uint64(BLOCK)):
        inside += np.uint64(search[at + k] < x)
    return np.uint64(columns[i, 1]) + block * np.uint64(BLOCK) + inside


@nb.njit(nogil=True)
def _first_leaf(masks: Array, class_mask: Array, k: Any, t: Any, words: Any) -> Any:
    """Return the lowest bit left by the masks of a row and of class k in tree t; there always is one."""
    for w in range(words):
        both = masks[t * words + w] & class_mask[k, w]
        if both:
            return np.uint64(trailing_zeros(both)) + w * np.uint64(64)
    return np.uint64(0)


@nb.njit(nogil=True)
def _and_rows(rows: Array, numbers: Array, count: int, target: Array) -> None:
    """target &= rows[numbers[:count]], four rows at a time; there is room for three more numbers."""
    if count:
        numbers[count : count + 3] = numbers[count - 1]
    for i in range(0, count, 4):
        a, b = rows[np.uint64(numbers[i])], rows[np.uint64(numbers[i + 1])]
        c, d = rows[np.uint64(numbers[i + 2])], rows[np.uint64(numbers[i + 3])]
        for t in range(target.shape[0]):
            target[t] &= a[t] & b[t] & c[t] & d[t]


@nb.njit(nogil=True)
def _prepare(
    values: Floats, columns: Array, search: Floats, rows: Array, words: int, classes: Array, start: Array
) -> Any:
    """AND the rows of each offer, tree by tree; number the distinct masks of a tree (a hash table of open places)."""
    offers, trees = classes.shape
    row = np.zeros((offers, columns.shape[0]), np.uint64)
    for n in range(offers):
        for i in range(columns.shape[0]):
            row[n, i] = _row(values[n, columns[i, 0]], columns, i, search)
    size = 16
    while size < 2 * offers:
        size *= 2
    table, found, total = np.zeros(size, np.int64), np.zeros((1024, words), rows.dtype), 0
    for t in range(trees):
        table[:] = -1
        first = total
        for n in range(offers):
            if total == found.shape[0]:
                grown = np.zeros((2 * total, words), rows.dtype)
                grown[:total] = found
                found = grown
            code = np.uint64(0)
            for w in range(words):
                mask = ~rows.dtype.type(0)
                for i in range(columns.shape[0]):
                    mask &= rows[row[n, i], t * words + w]
                found[total, w] = mask
                code = (code ^ np.uint64(mask)) * np.uint64(0x9E3779B97F4A7C15)
            place = np.int64(code >> np.uint64(40)) & (size - 1)
            while table[place] >= 0 and not (found[table[place]] == found[total]).all():
                place = (place + 1) & (size - 1)
            if table[place] < 0:
                table[place] = total
                total += 1
            classes[n, t] = table[place] - first
        start[t + 1] = total
    return found[:total].copy()


@nb.njit(nogil=True)
def _score(
    rows: Array,
    reals: Floats,
    plan: Array,
    classes: Array,
    class_start: Array,
    class_mask: Array,
    shared_values: Floats,
    chosen: Array,
    pair_values: Floats,
    out: Floats,
) -> int:
    """Raw scores into `out`; 1 if a shape or an offer is wrong, and then nothing is written."""
    offers = chosen.shape[0]
    shared_count, pair_count = plan[0], plan[1]
    if shared_values.shape[0] != shared_count or out.shape[0] != offers:
        return 1
    if pair_values.shape[0] != offers or pair_values.shape[1] != pair_count:
        return 1
    wrong: Any = 0
    for j in range(offers):
        wrong += np.uint64(chosen[j]) >= np.uint64(classes.shape[0])  # a negative one is huge
    if wrong:
        return 1
    trees, words = np.uint64(classes.shape[1]), np.uint64(class_mask.shape[1])
    shared = plan[plan[2] : plan[3]].reshape((-1, 6))
    pair = plan[plan[3] : plan[4]].reshape((-1, 6))
    default = plan[plan[4] : plan[5]].reshape((2, pair_count))
    waiting = plan[plan[5] : plan[6]].reshape((4, 8))
    numbers, plain = plan[plan[6] : plan[9]], plan[plan[9] :]
    search, values = reals[: plan[7]], reals[plan[8] :]
    leaf = reals[plan[7] : plan[8]].reshape((classes.shape[1], -1))
    scratch = rows[rows.shape[0] - 5 :]
    request = scratch[4]
    for i in range(shared.shape[0]):
        numbers[i] = _row(shared_values[shared[i, 0]], shared, i, search)
    request[:] = ~rows.dtype.type(0)
    _and_rows(rows, numbers, shared.shape[0], request)
    # the leaf of every class pays when the offers look at more classes than there are
    by_class = np.uint64(offers) * trees > class_start[trees]
    if by_class:
        for t in range(trees):
            for k in range(class_start[t], class_start[t + np.uint64(1)]):
                values[k] = leaf[t, _first_leaf(request, class_mask, k, t, words)]
    bits, sums, lookups = pair_values.view(np.int64), 0, 0
    for j in range(offers):
        other = np.int64(0)
        for i in range(default.shape[1]):
            other |= (bits[j, i] ^ default[0, i]) & default[1, i]
        found = 0
        if other:
            for i in range(pair.shape[0]):
                place = pair[i, 0]
                if bits[j, place] != default[0, place]:
                    numbers[found] = _row(pair_values[j, place], pair, i, search)
                    found += not plain[numbers[found]]
        if found == 0 and by_class:
            waiting[0, sums] = j
            sums += 1
            if sums == 8:
                _sum_eight(waiting, chosen, classes, class_start, values, out)
                sums = 0
        else:
            waiting[1, lookups], waiting[2, lookups] = j, lookups if found else 4  # its own masks or the request's
            if found:
                scratch[lookups, :] = request
                _and_rows(rows, numbers, found, scratch[lookups])
            lookups += 1
            if lookups == 4:
                _look_up_four(waiting, chosen, classes, class_start, class_mask, scratch, leaf, out)
                lookups = 0
    if sums:
        waiting[0, sums:] = waiting[0, 0]  # the same offer again, the same score again
        _sum_eight(waiting, chosen, classes, class_start, values, out)
    if lookups:
        waiting[1, lookups:], waiting[2, lookups:] = waiting[1, 0], waiting[2, 0]
        _look_up_four(waiting, chosen, classes, class_start, class_mask, scratch, leaf, out)
    return 0


@nb.njit(nogil=True)
def _sum_eight(waiting: Array, chosen: Array, classes: Array, class_start: Array, values: Floats, out: Floats) -> None:
    """Add up eight offers beside each other: one addition waits for the one before it, eight chains hide that."""
    j0, j1, j2, j3 = waiting[0, 0], waiting[0, 1], waiting[0, 2], waiting[0, 3]
    j4, j5, j6, j7 = waiting[0, 4], waiting[0, 5], waiting[0, 6], waiting[0, 7]
    a, b = classes[np.uint64(chosen[j0])], classes[np.uint64(chosen[j1])]
    c, d = classes[np.uint64(chosen[j2])], classes[np.uint64(chosen[j3])]
    e, f = classes[np.uint64(chosen[j4])], classes[np.uint64(chosen[j5])]
    g, h = classes[np.uint64(chosen[j6])], classes[np.uint64(chosen[j7])]
    s0, s1, s2, s3, s4, s5, s6, s7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for t in range(np.uint64(a.shape[0])):
        first = class_start[t]
        s0 += values[first + np.uint64(a[t])]
        s1 += values[first + np.uint64(b[t])]
        s2 += values[first + np.uint64(c[t])]
        s3 += values[first + np.uint64(d[t])]
        s4 += values[first + np.uint64(e[t])]
        s5 += values[first + np.uint64(f[t])]
        s6 += values[first + np.uint64(g[t])]
        s7 += values[first + np.uint64(h[t])]
    out[j0], out[j1], out[j2], out[j3] = s0, s1, s2, s3
    out[j4], out[j5], out[j6], out[j7] = s4, s5, s6, s7


@nb.njit(nogil=True)
def _look_up_four(
    waiting: Array,
    chosen: Array,
    classes: Array,
    class_start: Array,
    class_mask: Array,
    scratch: Array,
    leaf: Floats,
    out: Floats,
) -> None:
    """Score four offers whose leaves are not those of their classes: masks of the request AND of the class."""
    if class_mask.shape[1] > 1:
        for i in range(4):
            out[waiting[1, i]] = _look_up_wide(
                classes[np.uint64(chosen[waiting[1, i]])], class_start, class_mask, scratch[waiting[2, i]], leaf
            )
        return
    j0, j1, j2, j3 = waiting[1, 0], waiting[1, 1], waiting[1, 2], waiting[1, 3]
    k, m, n, o = scratch[waiting[2, 0]], scratch[waiting[2, 1]], scratch[waiting[2, 2]], scratch[waiting[2, 3]]
    a, b = classes[np.uint64(chosen[j0])], classes[np.uint64(chosen[j1])]
    c, d = classes[np.uint64(chosen[j2])], classes[np.uint64(chosen[j3])]
    mask, p, q, r, s = class_mask.reshape(-1), 0.0, 0.0, 0.0, 0.0
    for t in range(np.uint64(a.shape[0])):
        first = class_start[t]
        p += leaf[t, np.uint64(trailing_zeros(k[t] & mask[first + np.uint64(a[t])]))]
        q += leaf[t, np.uint64(trailing_zeros(m[t] & mask[first + np.uint64(b[t])]))]
        r += leaf[t, np.uint64(trailing_zeros(n[t] & mask[first + np.uint64(c[t])]))]
        s += leaf[t, np.uint64(trailing_zeros(o[t] & mask[first + np.uint64(d[t])]))]
    out[j0], out[j1], out[j2], out[j3] = p, q, r, s


@nb.njit(nogil=True)
def _look_up_wide(mine: Array, class_start: Array, class_mask: Array, masks: Array, leaf: Array) -> Any:
    """Score one offer, trees of more than 64 leaves."""
    words: Any = np.uint64(class_mask.shape[1])
    total: Any = 0.0
    for t in range(np.uint64(mine.shape[0])):
        total += leaf[t, _first_leaf(masks, class_mask, class_start[t] + np.uint64(mine[t]), t, words)]
    return total

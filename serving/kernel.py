"""The scoring kernel: a forest evaluated once for the request, once a catalogue load for the offers, then added up.

After QuickScorer (Lucchese et al., SIGIR 2015). Number the leaves of a tree from left to right and give every split a
mask without the leaves of its left side. AND together the masks of all splits that send the row to the right, in any
order: the lowest bit left is the leaf of the row. Since the order is free, the splits can be evaluated apart:

* A column's thresholds, over all trees, cut the line into intervals. All values of one interval take the same sides, so
  an interval has ONE row of masks (a mask a tree), and so have zero and missing. A category set is a union of
  intervals too, because LightGBM cuts the fraction off: category 3 is [3, 4), category 0 is (-1, 1).
* `shared` columns (customer, context) are ANDed once a request.
* `offer` columns (static) are ANDed once a catalogue load. In one tree the offers fall into few classes of equal mask,
  often four or five, whatever their number. A request looks up the leaf of each class, then each offer only adds up the
  values of its classes: two loads and one addition a tree.
* `pair` columns (customer with offer) mostly hold a default. The sides of their splits are swapped, where need be, so
  that the default goes left: it removes no leaf, its mask is all ones, and an offer with nothing but defaults costs no
  more. The others AND the rows of the values that are not default, and look their leaves up one by one.

Leaf values are added in the order of the trees, starting from 0.0, as LightGBM does: raw scores are equal to the bit.

The first `Kernel` of a machine compiles for about ten seconds (a mask width: 32 bits up to 32 leaves, else 64) and keeps
the code beside this file or in `NUMBA_CACHE_DIR`; later starts load it in 0.03 s. Nothing compiles at import or in `score`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
from numba.cpython.unsafe import numbers as bit_numbers

from training.forest import CATEGORICAL, DEFAULT_LEFT, MISSING_NAN, MISSING_SHIFT, MISSING_ZERO, Forest

OFFERS_MAX: Final = 65_536  # a class number is a u16
TABLE_BYTES_MAX: Final = 1 << 30
ZERO: Final = float(np.float32(1e-35))  # LightGBM's kZeroThreshold: what is not above it, on either side, is zero
CATEGORY_END: Final = float(1 << 31)  # LightGBM casts to a 32-bit int
BLOCK: Final = 16  # thresholds are searched by blocks: count the block ends below x, then count inside one block

trailing_zeros: Any = bit_numbers.trailing_zeros  # one machine instruction

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class OfferTable:
    """The offers of one catalogue load, evaluated for one forest; made by `Kernel.prepare`, read by any thread.

    classes      u2[N, T]  class of offer n in tree t
    class_start  u8[T + 1] classes of tree t are `class_mask[start[t]:start[t + 1]]`
    class_mask   mask[K, W]
    key          what the table was made for
    """

    classes: Array
    class_start: Array
    class_mask: Array
    key: str


class Kernel:
    """Scores offers with one forest. It owns scratch memory: one Kernel a thread; `OfferTable`s may be shared."""

    def __init__(
        self, forest: Forest, shared: Sequence[int], offer: Sequence[int], pair: Sequence[int] = (), pair_default: npt.ArrayLike = np.nan
    ) -> None:
        """Build the tables and load (the first time on a machine: compile) the code.

        shared, offer, pair   indices into `forest.columns`; every column that a split uses stands in exactly one
        pair_default          one number or one a pair column: the value most pairs have; it decides speed, not scores
        Raises ValueError if the columns do not cover the forest or the tables would pass TABLE_BYTES_MAX.
        """
        self.counts = len(shared), len(offer), len(pair)
        _check_columns(forest, (*shared, *offer, *pair))
        defaults = np.full(len(forest.columns), np.nan)  # only the pair columns' entries matter
        default = np.array(np.broadcast_to(np.asarray(pair_default, np.float64), (len(pair),)))
        defaults[list(pair)] = default
        self._trees, self._words = forest.trees, -(-int(forest.leaves.max()) // 64)
        mask = np.dtype(np.uint32 if forest.leaves.max() <= 32 else np.uint64)
        ones = (1 << 8 * mask.itemsize) - 1
        self._code = _compiled(mask.name)

        cuts = [_cuts(forest, column) for column in range(len(forest.columns))]
        cut_start = np.concatenate(([0], np.cumsum([len(cut) for cut in cuts])))
        row_start = cut_start + 3 * np.arange(len(cuts) + 1)  # a column of k cuts: k + 1 intervals, zero, missing
        height = int(row_start[-1]) + 5  # and five rows of scratch: four offers with pair values, the request
        size = height * forest.trees * self._words * mask.itemsize
        if size > TABLE_BYTES_MAX:
            raise ValueError(f"expected tables of at most {TABLE_BYTES_MAX} bytes, came {size}; train fewer or smaller trees")
        self._rows = np.full((height, forest.trees * self._words), ones, mask)
        leaf = np.zeros((forest.trees, 8 * mask.itemsize * self._words))
        flip = np.zeros(len(forest.columns), np.uint8)
        flip[list(pair)] = 1
        self._code.fill(
            *(forest.leaves, forest.leaf_start, forest.split_start, forest.left, forest.right, forest.leaf_value),
            *(forest.split_column, forest.threshold, forest.decision, forest.category_start, forest.category_words),
            *(np.concatenate(cuts), cut_start, row_start, flip, defaults, self._rows, leaf),
        )
        self._search, columns = _search_tables(cuts, row_start)
        used = np.diff(cut_start) > 0
        in_shared, self._offer, in_pair = (
            np.array([(place, *columns[c]) for place, c in enumerate(kind) if used[c]], np.int64).reshape(-1, 6)
            for kind in (shared, offer, pair)
        )
        # One call takes few arrays, as each costs 0.07 us: numbers of a kind lie in one array, `plan` says where.
        parts: list[Array] = [in_shared, in_pair, np.array([default.view(np.int64), np.where(used[list(pair)], -1, 0)])]
        parts += [np.zeros(32, np.int64), np.zeros(4 + max(len(shared), len(pair)), np.int64)]  # scratch: waiting, numbers
        parts += [np.all(self._rows == ones, axis=1).astype(np.int64)]  # rows that remove no leaf
        ends = 10 + np.cumsum([0] + [part.size for part in parts[:-1]])
        reals = len(self._search), len(self._search) + leaf.size
        head = [len(shared), len(pair), *ends[:5], *reals, ends[5]]
        self._plan = np.concatenate([head, *(part.ravel() for part in parts)], dtype=np.int64)  # no way over floats
        self._reals = np.concatenate((self._search, leaf.ravel(), np.zeros(4096)))
        self._values_at = reals[1]
        self._key = f"{forest.digest} {tuple(shared)} {tuple(offer)} {tuple(pair)} {default.tobytes().hex()}"

    def prepare(self, offer_values: Floats) -> OfferTable:
        """Evaluate the static columns of N offers, f8[N, offer columns], NaN for missing. Raises ValueError.

        About 13 ms for 1,000 offers and 200 trees; once a catalogue load, off the hot path, without the GIL.
        """
        values = np.ascontiguousarray(offer_values, np.float64)
        if values.ndim != 2 or values.shape[1] != self.counts[1] or len(values) > OFFERS_MAX:
            raise ValueError(f"offer_values: expected [at most {OFFERS_MAX}, {self.counts[1]}], came {list(values.shape)}")
        classes = np.zeros((len(values), self._trees), np.uint16)
        start = np.zeros(self._trees + 1, np.uint64)
        masks = self._code.prepare(values, self._offer, self._search, self._rows, self._words, classes, start)
        for array in (classes, start, masks):
            array.flags.writeable = False
        return OfferTable(classes, start, masks, self._key)

    def score(self, shared_values: Floats, table: OfferTable, chosen: Array, pair_values: Floats, out: Floats) -> None:
        """Write the raw score of each chosen offer to `out`; nothing is allocated.

        shared_values  f8[shared columns]    in the order given to the Kernel; NaN is missing
        chosen         i4[n]                 offers, as rows of `table`
        pair_values    f8[n, pair columns]   row i belongs to `chosen[i]`; [n, 0] without pair columns
        out            f8[n]                 sum of leaf values, bit for bit `Booster.predict(raw_score=True)`
        Raises ValueError for a wrong shape, an offer outside the table, or the table of another kernel;
        TypeError for another dtype or memory that is not contiguous.
        """
        if table.key != self._key:
            raise ValueError("table: expected one prepared for this forest and these columns; call prepare() again")
        if len(table.class_mask) > len(self._reals) - self._values_at:  # once a catalogue load
            self._reals = np.concatenate((self._reals[: self._values_at], np.zeros(2 * len(table.class_mask))))
        wrong = self._code.score(
            *(self._rows, self._reals, self._plan, table.classes, table.class_start, table.class_mask),
            *(shared_values, chosen, pair_values, out),
        )
        if wrong:
            self._complain(shared_values, table, chosen, pair_values, out)

    def _complain(self, shared_values: Floats, table: OfferTable, chosen: Array, pair_values: Floats, out: Floats) -> None:
        n = len(chosen)
        for name, array, shape in (
            ("shared_values", shared_values, (self.counts[0],)),
            ("pair_values", pair_values, (n, self.counts[2])),
            ("out", out, (n,)),
        ):
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, came {array.shape}")
        offers = len(table.classes)
        raise ValueError(f"chosen: expected offers 0 to {offers - 1}, came {chosen.min()} to {chosen.max()}")


def _check_columns(forest: Forest, columns: Sequence[int]) -> None:
    """`columns` names every column that a split uses, none twice."""
    names = forest.columns
    if len(set(columns)) != len(columns) or not all(0 <= column < len(names) for column in columns):
        raise ValueError(f"columns: expected distinct indices 0 to {len(names) - 1}, came {list(columns)}")
    left_out = sorted(set(forest.split_column.tolist()) - set(columns))
    if left_out:
        named = [names[column] for column in left_out]
        raise ValueError(f"columns: expected each column of a split as shared, offer or pair, left out {named}")


def _cuts(forest: Forest, column: int) -> Floats:
    """Upper ends, sorted, of the intervals in which all splits of a column decide alike; the last interval has none."""
    mine = forest.split_column == column
    sets = mine & ((forest.decision & CATEGORICAL) > 0)
    ends = [forest.threshold[mine & ~sets]]
    for number in np.unique(forest.threshold[sets]).astype(int):
        words = forest.category_words[forest.category_start[number] : forest.category_start[number + 1]]
        category = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).astype(np.float64)
        below = np.where(category == 0, -1.0, np.nextafter(category, -np.inf))  # all that is cut off to 0 is (-1, 1)
        ends += [below, np.nextafter(category + 1, -np.inf)]
    return np.unique(np.concatenate(ends))


def _search_tables(cuts: list[Floats], row_start: Array) -> tuple[Floats, list[tuple[int, int, int, int, int]]]:
    """Cuts in blocks padded with infinity, the ends of the blocks before them; where those of each column lie."""
    pieces, columns, at = [], [], 0
    for column, cut in enumerate(cuts):
        blocks = len(cut) // BLOCK + 1  # at least one infinity, so that every search ends inside
        inner = np.full(blocks * BLOCK, np.inf)
        inner[: len(cut)] = cut
        outer = np.full(-(-blocks // BLOCK) * BLOCK, np.inf)
        outer[:blocks] = inner[BLOCK - 1 :: BLOCK]
        pieces += [outer, inner]
        columns.append((int(row_start[column]), len(cut), at, at + len(outer), len(outer)))
        at += len(outer) + len(inner)
    return np.concatenate(pieces), columns


class _Code(NamedTuple):
    """The three compiled functions, for one width of mask."""

    fill: Callable[..., None]
    prepare: Callable[..., Array]
    score: Callable[..., int]


@cache
def _compiled(mask: str) -> _Code:
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

    return _Code(build(nb.void, fill, _fill), build(m[:, ::1], prepare, _prepare), build(i8, score, _score))


# Below: code for numba. Unsigned indexes spare numba's check for negative ones.


@nb.njit(nogil=True)
def _goes_left(kind: int, x: float, decision: int, threshold: float, category_start: Array, category_words: Array) -> bool:
    """LightGBM's decision for an interval (kind 0, x its upper end), for zero (kind 1, x = 0.0), for missing (kind 2)."""
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
def _fill(
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


@nb.njit(nogil=True)
def _row(x: float, columns: Array, i: int, search: Floats) -> Any:
    """The row of masks for value x of column i of `columns`: (place, first row, cuts, outer at, inner at, outers)."""
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
    """The lowest bit left by the masks of a row and of class k in tree t; there always is one."""
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
def _prepare(values: Floats, columns: Array, search: Floats, rows: Array, words: int, classes: Array, start: Array) -> Any:
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
    waiting: Array, chosen: Array, classes: Array, class_start: Array, class_mask: Array, scratch: Array, leaf: Floats, out: Floats
) -> None:
    """The same for four offers whose leaves are not those of their classes: masks of the request AND of the class."""
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
    """One offer, trees of more than 64 leaves."""
    words: Any = np.uint64(class_mask.shape[1])
    total: Any = 0.0
    for t in range(np.uint64(mine.shape[0])):
        total += leaf[t, _first_leaf(masks, class_mask, class_start[t] + np.uint64(mine[t]), t, words)]
    return total

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

The first `Kernel` of a machine compiles for about ten seconds (a mask width: 32 bits up to 32 leaves, else 64) and
keeps the code beside this file or in `NUMBA_CACHE_DIR`; later starts load it in 0.03 s. Nothing compiles at import or
in `score`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serving.kernel.kernel_code import BLOCK, compiled
from training.bundle.forest import CATEGORICAL, Forest

OFFERS_MAX: Final = 65_536  # a class number is a u16
TABLE_BYTES_MAX: Final = 1 << 30


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


def mask_of(leaves_max: int) -> np.dtype[Any]:
    """Return the type of the masks that score trees of at most so many leaves."""
    return np.dtype(np.uint32 if leaves_max <= 32 else np.uint64)


class Kernel:
    """Scores offers with one forest. It owns scratch memory: one Kernel a thread; `OfferTable`s may be shared."""

    def __init__(
        self,
        forest: Forest,
        shared: Sequence[int],
        offer: Sequence[int],
        pair: Sequence[int] = (),
        pair_default: npt.ArrayLike = np.nan,
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
        mask = mask_of(int(forest.leaves.max()))
        ones = (1 << 8 * mask.itemsize) - 1
        self._code = compiled(mask.name)

        cuts = [_cuts(forest, column) for column in range(len(forest.columns))]
        cut_start = np.concatenate(([0], np.cumsum([len(cut) for cut in cuts])))
        row_start = cut_start + 3 * np.arange(len(cuts) + 1)  # a column of k cuts: k + 1 intervals, zero, missing
        height = int(row_start[-1]) + 5  # and five rows of scratch: four offers with pair values, the request
        size = height * forest.trees * self._words * mask.itemsize
        if size > TABLE_BYTES_MAX:
            raise ValueError(
                f"expected tables of at most {TABLE_BYTES_MAX} bytes, came {size}; train fewer or smaller trees"
            )
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
        parts += [
            np.zeros(32, np.int64),
            np.zeros(4 + max(len(shared), len(pair)), np.int64),
        ]  # scratch: waiting, numbers
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
            raise ValueError(
                f"offer_values: expected [at most {OFFERS_MAX}, {self.counts[1]}], came {list(values.shape)}"
            )
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

    def _complain(
        self, shared_values: Floats, table: OfferTable, chosen: Array, pair_values: Floats, out: Floats
    ) -> None:
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

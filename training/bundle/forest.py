"""The compiled forest: a LightGBM model as plain arrays, exact to the bit, with a digest.

The arrays keep the trees as LightGBM made them: columns, thresholds, children, category sets, leaf values, row counts.
That is enough to score (`serving.kernel` builds its masks from it) and to explain (TreeSHAP needs children and counts).

File format: an uncompressed `.npz` without pickle, its digest inside. Loading checks the checksum of every member, the
digest, every shape and every index: a file that loads can be scored without reading outside an array.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

FORMAT: Final = 1
LEAVES_MAX: Final = 256  # leaves a tree: four 64-bit words in the kernel
TREES_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 1 << 30
CATEGORICAL: Final = 1  # bits of `decision`, as LightGBM writes them
DEFAULT_LEFT: Final = 2
MISSING_SHIFT: Final = 2
MISSING_ZERO: Final = 1
MISSING_NAN: Final = 2
Array = npt.NDArray[Any]
# name -> (dtype, what one entry is); the order is the order of the digest
LAYOUT: Final = {
    "leaves": ("<i4", "tree"),
    "split_column": ("<i4", "split"),
    "threshold": ("<f8", "split"),
    "decision": ("|u1", "split"),
    "left": ("<i4", "split"),
    "right": ("<i4", "split"),
    "split_count": ("<i8", "split"),
    "leaf_value": ("<f8", "leaf"),
    "leaf_count": ("<i8", "leaf"),
    "category_start": ("<i8", "category set, and one more"),
    "category_words": ("<u4", "category word"),
}


class ForestDamaged(ValueError):
    """The bytes of a saved forest are not what was written; take the bundle from the registry again."""


@dataclass(frozen=True, eq=False)
class Forest:
    """A forest of T trees with S splits and L leaves in all, trees one after another.

    Tree t has `leaves[t]` leaves and `leaves[t] - 1` splits; `split_start[t]` and `leaf_start[t]` say where they begin.
    A child >= 0 is a split of the same tree, a child < 0 is leaf `~child` of the same tree; split 0 is the root.

    leaves          i4[T]   1..256
    split_column    i4[S]   index into `columns`
    threshold       f8[S]   numeric: left if value <= threshold; categorical: index of the category set
    decision        u1[S]   bit 0 categorical, bit 1 missing goes left, bits 2-3 missing type (0 none, 1 zero, 2 NaN)
    left, right     i4[S]
    split_count     i8[S]   training rows that passed the split
    leaf_value      f8[L]   in units of the raw score (log odds for `binary`)
    leaf_count      i8[L]   training rows that ended in the leaf
    category_start  i8[C+1] set c is `category_words[start[c]:start[c + 1]]`
    category_words  u4[...] bit b of word w: category 32 w + b goes left
    """

    columns: tuple[str, ...]
    objective: str
    leaves: Array
    split_column: Array
    threshold: Array
    decision: Array
    left: Array
    right: Array
    split_count: Array
    leaf_value: Array
    leaf_count: Array
    category_start: Array
    category_words: Array

    def __post_init__(self) -> None:
        """Check everything that an index is made of. Raises ForestDamaged with the array and what was expected."""
        _check(self)
        for name in LAYOUT:
            getattr(self, name).flags.writeable = False

    @property
    def trees(self) -> int:
        """Number of trees, T."""
        return len(self.leaves)

    @cached_property
    def leaf_start(self) -> Array:
        """i8[T + 1]: leaves of tree t are `leaf_start[t]:leaf_start[t + 1]`."""
        return np.concatenate(([0], np.cumsum(self.leaves, dtype=np.int64)))

    @cached_property
    def split_start(self) -> Array:
        """i8[T + 1]: splits of tree t are `split_start[t]:split_start[t + 1]`."""
        return np.concatenate(([0], np.cumsum(self.leaves.astype(np.int64) - 1)))

    @cached_property
    def digest(self) -> str:
        """Sha256, hex, over names, dtypes, shapes and bytes; the same on every machine and for every file date."""
        state = hashlib.sha256(self._head())
        for name, (dtype, _) in LAYOUT.items():
            array = getattr(self, name)
            state.update(f"{name} {dtype} {array.shape}\n".encode())
            state.update(array.tobytes())
        return state.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the forest with its digest. Raises OSError."""
        arrays = {name: getattr(self, name) for name in LAYOUT}
        head = np.frombuffer(self._head(), np.uint8)
        digest = np.frombuffer(bytes.fromhex(self.digest), np.uint8)
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, head=head, digest=digest, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Forest":
        """Read a saved forest. Raises OSError if there is none, ForestDamaged if it is not what `save` wrote."""
        path = Path(path)
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ForestDamaged(
                f"{path}: expected at most {FILE_BYTES_MAX} bytes, came {size}; publish the model again"
            )
        members = _members(path, path.read_bytes())
        try:
            head = json.loads(members["head"].tobytes())
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise ValueError(f"expected a head of format {FORMAT}, came {str(head)[:80]}")
            arrays = {name: members[name] for name in LAYOUT}
            forest = cls(columns=tuple(head["columns"]), objective=str(head["objective"]), **arrays)
        except (ValueError, KeyError, TypeError) as error:
            _damaged(path, error)
        if bytes.fromhex(forest.digest) != members["digest"].tobytes():
            _damaged(path, f"digest {forest.digest} of the content is not the digest in the file")
        return forest

    def _head(self) -> bytes:
        head = {"format": FORMAT, "columns": list(self.columns), "objective": self.objective}
        return json.dumps(head, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _check(forest: Forest) -> None:
    """Shapes, ranges, and that the children of every tree form one tree."""
    if not all(isinstance(name, str) for name in forest.columns):
        _wrong("columns", "names", str(forest.columns)[:80])
    for name, (dtype, _) in LAYOUT.items():
        array = getattr(forest, name)
        if array.dtype != np.dtype(dtype) or array.ndim != 1 or not array.flags.c_contiguous:
            _wrong(name, f"a plain vector of {dtype}", f"{array.dtype} of shape {array.shape}")
    leaves = forest.leaves.astype(np.int64)
    if not 0 < len(leaves) <= TREES_MAX or leaves.min() < 1 or leaves.max() > LEAVES_MAX:
        _wrong("leaves", f"1 to {TREES_MAX} trees of 1 to {LEAVES_MAX} leaves", f"{len(leaves)} trees, {leaves[:4]}…")
    lengths = {"split": int((leaves - 1).sum()), "leaf": int(leaves.sum())}
    for name, (_, entry) in LAYOUT.items():
        length = len(getattr(forest, name))
        if entry in lengths and length != lengths[entry]:
            _wrong(name, f"{lengths[entry]} entries, one a {entry}", f"{length}")
    if not np.isfinite(forest.leaf_value).all() or np.isnan(forest.threshold).any():
        _wrong("leaf_value, threshold", "numbers", "NaN or an infinite leaf")
    if (forest.decision >> MISSING_SHIFT > MISSING_NAN).any():
        _wrong("decision", "a missing type 0, 1 or 2", f"{forest.decision.max() >> MISSING_SHIFT}")
    if len(forest.split_column) and not 0 <= forest.split_column.min() <= forest.split_column.max() < len(
        forest.columns
    ):
        _wrong("split_column", f"0 to {len(forest.columns) - 1}", f"up to {forest.split_column.max()}")
    if min(forest.split_count.min(initial=0), forest.leaf_count.min(initial=0)) < 0:
        _wrong("split_count, leaf_count", "counts", "a negative number")
    start = forest.category_start
    if len(start) < 1 or start[0] != 0 or (np.diff(start) < 1).any() or start[-1] != len(forest.category_words):
        _wrong("category_start", f"rising from 0 to {len(forest.category_words)}", f"{start[:4]}…")
    sets = forest.threshold[(forest.decision & CATEGORICAL) > 0]
    if len(sets) and (sets.min() < 0 or sets.max() >= len(start) - 1 or (sets != np.floor(sets)).any()):
        _wrong("threshold of a categorical split", f"a category set 0 to {len(start) - 2}", f"{sets.max()}")
    _check_children(forest, leaves)


def _check_children(forest: Forest, leaves: npt.NDArray[np.int64]) -> None:
    """Every split but the root and every leaf is the child of one split, and a child's number is above its parent's.

    That makes each tree a tree: going up from any node the numbers fall, so every way ends at split 0.
    """
    tree = np.repeat(np.arange(len(leaves)), leaves - 1)
    number = np.arange(len(tree)) - forest.split_start[tree]
    child = np.concatenate((forest.left, forest.right)).astype(np.int64)
    tree, parent = np.concatenate((tree, tree)), np.concatenate((number, number))
    inner = child >= 0
    inside = np.where(inner, (child > parent) & (child < leaves[tree] - 1), ~child < leaves[tree])
    if not inside.all():
        _wrong("left, right", "splits below their parent and leaves of the tree", f"{child[~inside][:4]}…")
    nodes = np.where(inner, forest.split_start[tree] + child, len(forest.left) + forest.leaf_start[tree] + ~child)
    alone = np.flatnonzero(leaves == 1)  # a tree that is one leaf has no split to name it
    roots = np.concatenate((forest.split_start[:-1][leaves > 1], len(forest.left) + forest.leaf_start[alone]))
    if (np.bincount(np.concatenate((nodes, roots)), minlength=len(forest.left) + len(forest.leaf_value)) != 1).any():
        _wrong("left, right", "each node the child of one split", "a node with no parent or two")


def _members(path: Path, data: bytes) -> dict[str, Array]:
    """Return the arrays of an npz; each member's checksum is verified before its header is believed."""
    members = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in ("head", "digest", *LAYOUT):
                info = archive.getinfo(name + ".npy")
                if info.file_size > len(data):  # members are stored, not packed: a larger one is a lie
                    raise ValueError(f"member {name} claims {info.file_size} bytes")
                members[name] = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)
    except (
        ValueError,
        KeyError,
        OSError,
        EOFError,
        RuntimeError,
        OverflowError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        _damaged(path, error)
    return members


def _damaged(path: Path, reason: object) -> NoReturn:
    raise ForestDamaged(f"{path}: expected a forest as it was saved, came {reason}; publish the model again")


def _wrong(name: str, expected: str, came: str) -> NoReturn:
    raise ForestDamaged(f"forest array {name}: expected {expected}, came {came}")

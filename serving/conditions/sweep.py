"""The sweep of conditions: all comparisons of pair columns with constants, in one pass of machine code."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from serving.conditions.scope import Atom

Floats = NDArray[np.float64]

_READ = numba.types.Array(numba.float64, 1, "C", readonly=True)
_TABLE = numba.types.Array(numba.float64, 2, "C", readonly=True)
_BYTES = numba.uint8[::1]

# Eight truths of one byte each become the eight bits of one byte: the product moves each to its place in the highest
# byte.
_GATHER, _HIGHEST = np.uint64(0x0102_0408_1020_4080), np.uint64(56)


@numba.njit(
    numba.void(_TABLE, numba.types.Array(numba.int32, 1, "C", readonly=True), _READ, numba.int64, _BYTES, _BYTES),
    nogil=True,
    cache=True,
)
def _sweep(rows, which, constants, least, truths, packed):  # type: ignore[no-untyped-def]
    """Compare row `which[a]` with constant `a`: the first `least` by >=, the others by <=; `packed` gets a bit an
    offer.

    Args:
        truths: scratch, a byte an offer, to a whole multiple of 8; those beyond the offers stay 0.
    """
    eights, width = truths.view(np.uint64), truths.shape[0] // 8
    for a in range(which.shape[0]):
        row, constant = rows[which[a]], constants[a]
        if a < least:
            for at in range(row.shape[0]):
                truths[at] = row[at] >= constant
        else:
            for at in range(row.shape[0]):
                truths[at] = row[at] <= constant
        for at in range(width):
            packed[a * width + at] = (eights[at] * _GATHER) >> _HIGHEST


class Sweep:
    """All atoms on rows of `count` offers. Holds scratch memory: for one thread only."""

    def __init__(self, atoms: Sequence[Atom], count: int) -> None:
        order = sorted(range(len(atoms)), key=lambda at: (atoms[at][1] == "<=", atoms[at]))
        width = (count + 7) // 8
        places = [order.index(at) * width for at in range(len(atoms))]
        self._slices = [slice(begin, begin + width) for begin in places]
        self._which = np.array([atoms[at][0] for at in order], np.int32)
        self._constants = np.array([atoms[at][2] for at in order], np.float64)
        self._least = sum(op == ">=" for _, op, _ in atoms)
        self._truths, self._packed = np.zeros(8 * width, np.uint8), np.empty(len(atoms) * width, np.uint8)

    def __call__(self, rows: Floats) -> list[int]:
        """Return the set of each atom, in their order."""
        if not self._slices:
            return []
        _sweep(rows, self._which, self._constants, self._least, self._truths, self._packed)
        packed, integer = self._packed.tobytes(), int.from_bytes
        return [integer(packed[place], "little") for place in self._slices]

"""Where an entry stands in a contact history, and how many there are: machine code, so that one more event costs no
decoding of the rest.
"""

from __future__ import annotations

import numba
import numpy as np

_WORDS = numba.types.Array(numba.uint64, 1, "C", readonly=True)


@numba.njit(numba.void(_WORDS, _WORDS, numba.int64[::1]), nogil=True, cache=True)
def seek(history, entry, found):  # type: ignore[no-untyped-def]
    """Find the last entry that is one with another: of a decision's contact by decision and offer, else by all there
    is.

    Args:
        history, entry: 6 words an entry, see `contacts`.
        found: filled with its position or -1, the number of contacts, the number of outcomes.
    """
    at, contacts, outcomes = -1, 0, 0
    kind = entry[5] >> np.uint64(32) & np.uint64(0xFF)
    for number in range(history.shape[0] // 6):
        first = 6 * number
        other = history[first + 5] >> np.uint64(32) & np.uint64(0xFF)
        is_contact = other == 1 or other == 2
        contacts += is_contact
        outcomes += other == 3
        if history[first + 1] != entry[1] or history[first + 2] != entry[2]:
            continue
        if kind <= 2 and entry[2] != 0:
            if is_contact:
                at = number
        elif other == kind and history[first] == entry[0] and history[first + 4] == entry[4]:
            at = number
    found[0], found[1], found[2] = at, contacts, outcomes

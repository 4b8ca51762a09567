"""32-bit FNV-1a as machine code. Loaded where a hash is made of it, and not before: most verbs have no use for a
compiler.
"""

from __future__ import annotations

from typing import Any

import numba

FNV_OFFSET = 2_166_136_261
_FNV_PRIME: Any = numba.uint32(16_777_619)
_BYTES = numba.types.Bytes(numba.types.uint8, 1, "C")
_ZERO, _ONE, _TEN, _DIGIT, _EIGHT, _OFFSET = (numba.uint32(number) for number in (0, 1, 10, 48, 8, FNV_OFFSET))


@numba.njit(numba.uint32(numba.uint32, _BYTES), cache=True)
def fnv1a_bytes(state: int, text: bytes) -> int:
    """32-bit FNV-1a of bytes, going on from a state; that of nothing is 2166136261."""
    for at in range(len(text)):
        state = numba.uint32((state ^ numba.uint32(text[at])) * _FNV_PRIME)
    return state


@numba.njit(numba.uint32(numba.uint32, _BYTES), cache=True)
def fnv1a_units(state: int, text: bytes) -> int:
    """Return the same over the 16-bit code units of UTF-16 in little-endian bytes, as a loop over `charCodeAt` does
    it.
    """
    for at in range(0, len(text), 2):
        unit = numba.uint32(text[at]) | (numba.uint32(text[at + 1]) << _EIGHT)
        state = numba.uint32((state ^ unit) * _FNV_PRIME)
    return state


@numba.njit(numba.uint32(numba.uint32), cache=True)
def fnv1a_digits(number: int) -> int:
    """32-bit FNV-1a of a number written in decimal digits."""
    power: Any = _ONE
    state: Any = _OFFSET
    while number // power >= _TEN:
        power = numba.uint32(power * _TEN)
    while power > _ZERO:
        state = numba.uint32((state ^ numba.uint32(_DIGIT + (number // power) % _TEN)) * _FNV_PRIME)
        power = numba.uint32(power // _TEN)
    return int(state)

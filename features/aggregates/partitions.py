"""Work over all customers, a bucket at a time, through one small `map`.

Every step that touches all customers is a function of one bucket. The map is serial here; an engine for many machines
needs only another map. Which bucket a customer is in must never change, so the hash is ours: FNV-1a over UTF-8, 32
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_OFFSET, _PRIME, _MASK = 2_166_136_261, 16_777_619, 0xFFFFFFFF


def fnv1a(text: str) -> int:
    """32-bit FNV-1a of a text's UTF-8 bytes."""
    value = _OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def bucket_of(customer_id: str, buckets: int) -> int:
    """Return the bucket of a customer, 0 to buckets - 1."""
    return fnv1a(customer_id) % buckets


def map_buckets(work: Callable[[int], T], buckets: int) -> Iterator[T]:
    """`work(bucket)` for each bucket, in order; serial. A bucket that raises ends the map: steps are idempotent, so run
    it again.
    """
    for bucket in range(buckets):
        yield work(bucket)

"""Hashes that experimentation tools publish: from a unit and the words of an experiment to a bucket, to the bit.

Each function makes a `Hash`: it takes the part that never changes (seed, salt, key) and gives a function of the unit.
Texts are hashed as UTF-8. GrowthBook's own kits for JavaScript and Python hash UTF-16 code units instead;
`encoding="utf-16"` does as they do. Both are the same for ids of ASCII. Oracles:
`tests/features/bucketing/test_hashing.py`.

No hash here keeps a secret. MD5 and SHA-1 are what the tools use to spread units evenly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

import mmh3

Encoding = Literal["utf-8", "utf-16"]

Hash = Callable[[str], int]
"""From a unit to its bucket, a whole number from 0 on."""

GROWTHBOOK_V2_BUCKETS = 10_000
GROWTHBOOK_V1_BUCKETS = 1_000
EPPO_SHARDS = 10_000
UNLEASH_VARIANT_SEED = 86_028_157
OPTIMIZELY_BUCKETS = 10_000
STATSIG_BUCKETS = 10_000
STATSIG_EXPERIMENT_BUCKETS = 1_000
LAUNCHDARKLY_SCALE = float(0xFFFFFFFFFFFFFFF)
"""The largest number of 15 hexadecimal digits: 60 bits."""

_FNV_OFFSET = 2_166_136_261


def growthbook_v2(seed: str, encoding: Encoding = "utf-8") -> Hash:
    """GrowthBook, hash version 2: `fnv1a32(str(fnv1a32(seed + unit))) % 10000`. GrowthBook's `n` is that, divided by
    10,000.
    """
    from features.bucketing.fnv import fnv1a_digits

    fnv, code = _fnv(encoding)
    begun = fnv(_FNV_OFFSET, _bytes(seed, code))

    def bucket(unit: str) -> int:
        return int(fnv1a_digits(fnv(begun, unit.encode(code, "surrogatepass")))) % GROWTHBOOK_V2_BUCKETS

    return bucket


def growthbook_v1(seed: str, encoding: Encoding = "utf-8") -> Hash:
    """GrowthBook, hash version 1: `fnv1a32(unit + seed) % 1000`. Known to be biased over several experiments;
    namespaces use it still.
    """
    fnv, code = _fnv(encoding)
    ending = _bytes(seed, code)

    def bucket(unit: str) -> int:
        return int(fnv(fnv(_FNV_OFFSET, unit.encode(code, "surrogatepass")), ending)) % GROWTHBOOK_V1_BUCKETS

    return bucket


def eppo(salt: str) -> Hash:
    """Eppo's shard of 10,000: the first 8 hexadecimal digits of `md5("<salt>-<unit>")`."""
    begun = _bytes(salt) + b"-"

    def bucket(unit: str) -> int:
        return eppo_shard(begun + unit.encode("utf-8", "surrogatepass"))

    return bucket


def eppo_shard(text: bytes) -> int:
    """Eppo's shard of a whole text."""
    return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:4], "big") % EPPO_SHARDS


def unleash(group: str, total: int, seed: int = 0) -> Hash:
    """Unleash's normalized number, less one: `murmur3_32("<group>:<unit>", seed) % total`, 0 to total - 1.

    Args:
        total: 100 for a rollout, the sum of the weights for variants.
        seed: 0 for a rollout, `UNLEASH_VARIANT_SEED` for variants.
    """
    begun = _bytes(group) + b":"

    def bucket(unit: str) -> int:
        return mmh3.hash(begun + unit.encode("utf-8", "surrogatepass"), seed, signed=False) % total

    return bucket


def optimizely(parent: str) -> Hash:
    """Optimizely's bucket value: `floor(murmur3_32(unit + parent, 1) / 2^32 * 10000)`; the parent is an experiment's
    id.
    """
    ending = _bytes(parent)

    def bucket(unit: str) -> int:
        # Their double is exact until the floor: 32 bits times 10,000 fit into 53.
        return (mmh3.hash(unit.encode("utf-8", "surrogatepass") + ending, 1, signed=False) * OPTIMIZELY_BUCKETS) >> 32

    return bucket


def statsig(salt: str, rule: str) -> Hash:
    """Return a Statsig gate's or rule's bucket: the first 8 bytes of `sha256("<salt>.<rule>.<unit>")`, modulo
    10,000.
    """
    return _statsig(f"{salt}.{rule}.", STATSIG_BUCKETS)


def statsig_experiment(salt: str) -> Hash:
    """Return a Statsig experiment's or layer's bucket: the first 8 bytes of `sha256("<salt>.<unit>")`, modulo 1,000."""
    return _statsig(f"{salt}.", STATSIG_EXPERIMENT_BUCKETS)


def launchdarkly(flag: str, salt: str, seed: int | None = None) -> Hash:
    """Return the first 15 hexadecimal digits of `sha1("<flag>.<salt>.<unit>")`, or of `sha1("<seed>.<unit>")`.

    LaunchDarkly's bucket is this number over `LAUNCHDARKLY_SCALE`, in doubles, 0 to 1.
    """
    begun = _bytes(f"{flag}.{salt}." if seed is None else f"{seed}.")

    def bucket(unit: str) -> int:
        digest = hashlib.sha1(begun + unit.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        return int.from_bytes(digest[:8], "big") >> 4

    return bucket


def _statsig(words: str, buckets: int) -> Hash:
    begun = _bytes(words)

    def bucket(unit: str) -> int:
        digest = hashlib.sha256(begun + unit.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % buckets

    return bucket


def _fnv(encoding: Encoding) -> tuple[Callable[[int, bytes], int], str]:
    from features.bucketing.fnv import fnv1a_bytes, fnv1a_units

    return (fnv1a_bytes, "utf-8") if encoding == "utf-8" else (fnv1a_units, "utf-16-le")


def _bytes(text: str, encoding: str = "utf-8") -> bytes:
    """Half of a surrogate pair cannot come in over HTTP; it is hashed as it stands, so that no text is an error."""
    return text.encode(encoding, "surrogatepass")

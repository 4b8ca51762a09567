"""Splits: from the bucket of a unit to an arm, by the ranges that each experimentation tool would cut.

Two ways of coverage are in use. GrowthBook leaves a hole after each arm, so that raising the coverage moves nobody;
Optimizely, Statsig and LaunchDarkly put the arms side by side and leave the rest at the end. Eppo and Unleash draw with
a second hash who takes part at all. Oracles: the tools themselves, in `tests/features/bucketing/test_splits.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from features.bucketing import hashing
from features.bucketing.hashing import Encoding, Hash

ARMS_MAX = 20
WEIGHT_SUM_MIN, WEIGHT_SUM_MAX = 0.99, 1.01
"""GrowthBook splits equally where weights add up to less or more."""
LAUNCHDARKLY_WEIGHTS = 100_000
UNLEASH_PERCENT = 100
UNLEASH_WEIGHT_SUM_MAX = 100_000
UNLEASH_RAMP_WEIGHTS = 1_000
"""The sum of Unleash's own variants."""
_BELOW_ONE = math.nextafter(1.0, 0.0)

Range = tuple[float, float]
"""From (inclusive) and up to (exclusive), as parts of all buckets, 0 to 1."""


class Split:
    """Where the units of one experiment go.

    Attributes:
        covered: the part of all units that gets an arm, 0 to 1, as the buckets have it.
        shares: for each arm the part of the covered units; they add up to 1. Nobody covered: all 0.

    Both are exact for hashes whose values are all equally likely, but for the remainder of 2^32 values over 10,000
    buckets, less than 3 in a million.
    """

    def __init__(
        self,
        hash_: Hash,
        arm_of: Callable[[int], int],
        parts: Sequence[float],
        gate: tuple[Hash, int, int] | None = None,
    ) -> None:
        """
        Args:
            arm_of: the arm of a bucket; -1 where none has it.
            parts: for each arm the part of all buckets.
            gate: a hash of its own that draws who takes part: those in buckets below an end, and of how many buckets.
        """
        self.hash, self._arm_of, self._gate = hash_, arm_of, gate
        total = sum(parts)
        self.shares = tuple(part / total if total else 0.0 for part in parts)
        self.covered = total if gate is None else total * gate[1] / gate[2]

    def __call__(self, unit: str) -> tuple[int, int]:
        """Return the arm of a unit, -1 where it is not covered, and its bucket."""
        bucket = self.hash(unit)
        if self._gate is not None and self._gate[0](unit) >= self._gate[1]:
            return -1, bucket
        return self._arm_of(bucket), bucket


def growthbook_ranges(weights: Sequence[float], coverage: float = 1.0) -> list[Range]:
    """GrowthBook's `getBucketRanges`: cumulative weights, each arm `[start, start + coverage * weight)`.

    A coverage outside 0 to 1 is taken to its nearer end; weights that add up to less than .99 or more than 1.01 are
    passed over for equal ones.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    if not WEIGHT_SUM_MIN <= sum(weights) <= WEIGHT_SUM_MAX:
        weights = [1 / len(weights)] * len(weights)
    starts = [0.0, *accumulate(weights)]
    return [(start, start + coverage * weight) for start, weight in zip(starts, weights, strict=False)]


def side_by_side(weights: Sequence[float], coverage: float = 1.0) -> list[Range]:
    """Arms one after the other, the rest at the end."""
    ends = [0.0, *accumulate(weight * coverage for weight in weights)]
    return list(pairwise(ends))


def ramp_ranges(share: float) -> tuple[Sequence[Range], Sequence[Range]]:
    """Return what a ramped arm and its control have at a share of 0 to 1: the arm begins at one end, and an equally
    large control at the other.

    So a larger share moves nobody from arm to arm until both halves meet; beyond, the control gives way.
    """
    if share <= 0:
        return (), ()
    return [(0.0, share)], [(max(share, 1 - share), 1.0)]


def by_ranges(
    hash_: Hash, buckets: int, ranges: Sequence[Sequence[Range]], gate: tuple[Hash, int, int] | None = None
) -> Split:
    """Return a split by the ranges of each arm; where ranges overlap, the first arm that has the bucket.

    A bucket `b` of `n` is in a range where `from <= b / n < to`, in doubles, as GrowthBook compares.
    """
    numbers = np.arange(buckets) / buckets
    table = np.full(buckets, -1)
    for arm in range(len(ranges) - 1, -1, -1):
        for start, end in ranges[arm]:
            table[(start <= numbers) & (numbers < end)] = arm
    return _by_table(hash_, table.tolist(), len(ranges), gate)


def by_ends(
    hash_: Hash, buckets: int, ranges: Sequence[Sequence[Range]], gate: tuple[Hash, int, int] | None = None
) -> Split:
    """Return the same by whole buckets: both ends of a range are rounded to the nearest one."""
    table = [-1] * buckets
    for arm in range(len(ranges) - 1, -1, -1):
        for start, end in ranges[arm]:
            first, last = round(start * buckets), round(end * buckets)
            table[first:last] = [arm] * (last - first)
    return _by_table(hash_, table, len(ranges), gate)


def _by_table(hash_: Hash, table: list[int], arms: int, gate: tuple[Hash, int, int] | None) -> Split:
    parts = [table.count(arm) / len(table) for arm in range(arms)]
    return Split(hash_, table.__getitem__, parts, gate)


def by_places(hash_: Hash, scale: float, ranges: Sequence[Sequence[Range]]) -> Split:
    """Return the same for a hash with too many buckets for a table: an arm has those whose part of `scale` is in one of
    its ranges.
    """
    flat = [(start, end, arm) for arm, given in enumerate(ranges) for start, end in given]

    def arm_of(bucket: int) -> int:
        place = min(bucket / scale, _BELOW_ONE)
        return next((arm for start, end, arm in flat if start <= place < end), -1)

    return Split(hash_, arm_of, [sum(end - start for start, end in given) for given in ranges])


def growthbook(version: int, seed: str, ranges: Sequence[Sequence[Range]], encoding: Encoding = "utf-8") -> Split:
    """GrowthBook's split, hash version 1 or 2."""
    if version == 1:
        return by_ranges(hashing.growthbook_v1(seed, encoding), hashing.GROWTHBOOK_V1_BUCKETS, ranges)
    return by_ranges(hashing.growthbook_v2(seed, encoding), hashing.GROWTHBOOK_V2_BUCKETS, ranges)


def eppo(salt: str, traffic_salt: str, ranges: Sequence[Sequence[Range]], coverage: float) -> Split:
    """Eppo's allocation: a shard of one salt draws who takes part, a shard of the other which arm."""
    gate = (
        None
        if coverage >= 1
        else (hashing.eppo(traffic_salt), round(coverage * hashing.EPPO_SHARDS), hashing.EPPO_SHARDS)
    )
    return by_ends(hashing.eppo(salt), hashing.EPPO_SHARDS, ranges, gate)


def unleash(group: str, weights: Sequence[int], coverage: float) -> Split:
    """Unleash's gradual rollout, then its variants: normalized numbers 1 to 100, and 1 to the sum of the weights."""
    percent = round(coverage * UNLEASH_PERCENT)
    gate = None if percent >= UNLEASH_PERCENT else (hashing.unleash(group, UNLEASH_PERCENT), percent, UNLEASH_PERCENT)
    table = [arm for arm, weight in enumerate(weights) for _ in range(weight)]
    return _by_table(hashing.unleash(group, len(table), hashing.UNLEASH_VARIANT_SEED), table, len(weights), gate)


def optimizely(parent: str, ranges: Sequence[Sequence[Range]]) -> Split:
    """Optimizely's traffic allocation: ends of ranges of 10,000."""
    return by_ends(hashing.optimizely(parent), hashing.OPTIMIZELY_BUCKETS, ranges)


def statsig(salt: str, rule: str, ranges: Sequence[Sequence[Range]]) -> Split:
    """Statsig's pass percentage of a gate, of 10,000: the first arm passes, the next has the next ones."""
    return by_ends(hashing.statsig(salt, rule), hashing.STATSIG_BUCKETS, ranges)


def statsig_experiment(salt: str, ranges: Sequence[Sequence[Range]]) -> Split:
    """Statsig's groups of an experiment, of 1,000."""
    return by_ends(hashing.statsig_experiment(salt), hashing.STATSIG_EXPERIMENT_BUCKETS, ranges)


def launchdarkly(flag: str, salt: str, seed: int | None, weights: Sequence[float], coverage: float) -> Split:
    """LaunchDarkly's rollout: weights of 100,000, added up as doubles; the rest is untracked.

    With a coverage of 1 the last arm takes what rounding leaves over, as there.
    """
    whole = [round(weight * coverage * LAUNCHDARKLY_WEIGHTS) for weight in weights]
    ends = list(accumulate(weight / LAUNCHDARKLY_WEIGHTS for weight in whole))
    rest = len(whole) - 1 if coverage >= 1 else -1

    def arm_of(bucket: int) -> int:
        place = bucket / hashing.LAUNCHDARKLY_SCALE
        return next((arm for arm, end in enumerate(ends) if place < end), rest)

    parts = [weight / LAUNCHDARKLY_WEIGHTS for weight in whole]
    if coverage >= 1:
        parts[-1] += 1 - sum(parts)
    return Split(hashing.launchdarkly(flag, salt, seed), arm_of, parts)

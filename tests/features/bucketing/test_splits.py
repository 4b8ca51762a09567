"""Splits: which arm the tools themselves give over many units, their published ranges, and what holds for any
weights.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from growthbook.core import chooseVariation, getBucketRanges
from hypothesis import given
from hypothesis import strategies as st

from features.bucketing import splits
from features.bucketing.splits import Split
from features.config.experiments import Experiment
from features.workspace.experiments import split_of
from tests.features import vendor_sdks
from tests.features.vendor_sdks import SEED, Ask, units


def entry(hash_: str, weights: list[float], **more: Any) -> Experiment:
    """An experiment of arms `arm-0` and so on."""
    arms = {f"arm-{at}": {"weight": weight} for at, weight in enumerate(weights)}
    return msgspec.convert({"hash": hash_, "arms": arms} | more, Experiment)


def assert_same(split: Split, ask: Ask, count: int = 100_000, *, ascii_only: bool = False) -> Counter[str | None]:
    """Both give each unit the same arm; how many got which."""
    found: Counter[str | None] = Counter()
    for unit in units(count):
        if ascii_only and not unit.isascii():
            continue
        arm, _ = split(unit)
        name = None if arm < 0 else f"arm-{arm}"
        assert name == ask(unit), unit
        found[name] += 1
    total = found.total()
    for at, share in enumerate(split.shares):
        expected = split.covered * share
        margin = 6 * math.sqrt(expected * (1 - expected) / total)
        assert abs(found[f"arm-{at}"] / total - expected) <= margin
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_growthbook_gives_the_same_arms(version: int) -> None:
    """GrowthBook's own `run` gives the same arm to 20,000 units, UTF-16 and all."""
    split = split_of(SEED, entry(f"growthbook-v{version}", [0.2, 0.3, 0.5], coverage=0.7, encoding="utf-16"))
    assert len(assert_same(split, vendor_sdks.growthbook([0.2, 0.3, 0.5], 0.7, version), 20_000)) == 4
    assert_same(
        split_of(SEED, entry(f"growthbook-v{version}", [0.2, 0.3, 0.5], coverage=0.7)),
        vendor_sdks.growthbook([0.2, 0.3, 0.5], 0.7, version),
        4_000,
        ascii_only=True,
    )


def test_eppo_gives_the_same_arms() -> None:
    """Eppo's client gives the same arm to 100,000 units: traffic by one salt, the split by another."""
    given_ = entry("eppo", [0.25, 0.25, 0.5], coverage=0.6, salt="split", traffic_salt="traffic")
    assert (
        len(assert_same(split_of("key", given_), vendor_sdks.eppo("split", "traffic", [2_500, 5_000, 10_000], 6_000)))
        == 4
    )


@pytest.mark.slow
def test_unleash_gives_the_same_arms() -> None:
    """The engine of Unleash's clients gives the same variant to 100,000 units, behind a gradual rollout."""
    split = split_of("key", entry("unleash", [33, 33, 934], coverage=0.37, group="Feature"))
    assert len(assert_same(split, vendor_sdks.unleash("Feature", [33, 33, 934], 37))) == 4


@pytest.mark.slow
def test_optimizely_gives_the_same_arms() -> None:
    """Optimizely's bucketer gives the same variation to 100,000 units: arms side by side, the rest at the end."""
    split = split_of("key", entry("optimizely", [0.5, 0.25, 0.25], coverage=0.8, parent="1886780721"))
    assert len(assert_same(split, vendor_sdks.optimizely("1886780721", [4_000, 6_000, 8_000]))) == 4


@pytest.mark.slow
def test_statsig_gives_the_same_arms() -> None:
    """Statsig's core lets the same units pass a gate, and puts the same into the groups of an experiment, 100,000
    each.
    """
    first = split_of("key", entry("statsig", [1, 0], coverage=0.375, salt="config", rule="rule"))
    groups = split_of("key", entry("statsig-experiment", [0.5, 0.5], coverage=0.9, salt="config"))
    with vendor_sdks.statsig("config", "rule", 37.5, [450, 900]) as (gate, test):
        assert len(assert_same(first, gate)) == 2
        assert len(assert_same(groups, test)) == 3


@pytest.mark.parametrize("coverage", [1.0, 0.4])
def test_launchdarkly_gives_the_same_arms(coverage: float) -> None:
    """LaunchDarkly's evaluator gives the same variation to 100,000 units; what is not covered is untracked there."""
    split = split_of("key", entry("launchdarkly", [0.25, 0.75], coverage=coverage, flag="flag", salt="salt"))
    ask = vendor_sdks.launchdarkly("flag", "salt", [round(25_000 * coverage), round(75_000 * coverage)])
    assert len(assert_same(split, ask)) == (2 if coverage == 1 else 3)


RANGES = [
    ([0.5, 0.5], 1.0, [(0, 0.5), (0.5, 1)]),
    ([0.5, 0.5], 0.5, [(0, 0.25), (0.5, 0.75)]),
    ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
    ([0.4, 0.1], 1.0, [(0, 0.5), (0.5, 1)]),
    ([0.7, 0.6], 1.0, [(0, 0.5), (0.5, 1)]),
    ([0.5, 0.5], -1, [(0, 0), (0.5, 0.5)]),
    ([0.5, 0.5], 2, [(0, 0.5), (0.5, 1)]),
    ([0.4, 0.5999], 1.0, [(0, 0.4), (0.4, 0.9999)]),
]


@pytest.mark.parametrize(("weights", "coverage", "expected"), RANGES)
def test_published_ranges(weights: list[float], coverage: float, expected: list[tuple[float, float]]) -> None:
    """GrowthBook's published ranges: coverage leaves holes, weights that do not add up to about 1 are equal."""
    assert [pytest.approx(one) for one in expected] == splits.growthbook_ranges(weights, coverage)


WEIGHTS = st.lists(st.integers(0, 1_000), min_size=2, max_size=splits.ARMS_MAX).filter(any)
SHARES = st.floats(0, 1)


@given(parts=WEIGHTS, coverage=SHARES, off=st.floats(0.985, 1.015))
def test_any_ranges_are_those_of_growthbook(parts: list[int], coverage: float, off: float) -> None:
    """For any weights, ranges and the arm of each of 10,000 buckets are GrowthBook's, to the bit."""
    weights = [part / sum(parts) * off for part in parts]
    ranges = splits.growthbook_ranges(weights, coverage)
    assert ranges == getBucketRanges(len(weights), coverage, weights)
    split = splits.by_ranges(int, 10_000, [[one] for one in ranges])
    for bucket in range(0, 10_000, 7):
        assert split(str(bucket)) == (chooseVariation(bucket / 10_000, ranges), bucket)


@given(parts=WEIGHTS, coverage=SHARES)
def test_arms_side_by_side_share_no_bucket(parts: list[int], coverage: float) -> None:
    """For any weights each arm has its part of the buckets, none has two arms, and the rest is at the end."""
    weights = [part / sum(parts) for part in parts]
    split = splits.by_ends(int, 1_000, [[one] for one in splits.side_by_side(weights, coverage)])
    found = [split(str(bucket))[0] for bucket in range(1_000)]
    covered = [arm for arm in found if arm >= 0]
    assert covered == sorted(covered) and found[: len(covered)] == covered
    for arm, weight in enumerate(weights):
        assert abs(covered.count(arm) - 1_000 * weight * coverage) <= 1
        assert split.covered * split.shares[arm] == pytest.approx(covered.count(arm) / 1_000)


@given(parts=WEIGHTS, low=SHARES, high=SHARES)
def test_raising_the_coverage_moves_nobody(parts: list[int], low: float, high: float) -> None:
    """With GrowthBook's ranges whoever has an arm keeps it when the coverage rises."""
    low, high = sorted((low, high))
    weights = [part / sum(parts) for part in parts]
    before, after = (
        splits.by_ranges(int, 1_000, [[one] for one in splits.growthbook_ranges(weights, part)]) for part in (low, high)
    )
    for bucket in map(str, range(1_000)):
        arm = before(bucket)[0]
        assert arm in (-1, after(bucket)[0])


def test_ranges_that_an_arm_states() -> None:
    """An arm may state its very buckets, several ranges of them, as a tool has them after its split was changed."""
    arms = {"a": {"ranges": [[0, 0.1], [0.5, 0.6]]}, "b": {"ranges": [[0.1, 0.5]]}}
    for hash_ in ("growthbook-v2", "growthbook-v1", "eppo", "optimizely", "statsig", "statsig-experiment"):
        split = split_of("key", msgspec.convert({"hash": hash_, "arms": arms}, Experiment))
        assert split.covered == pytest.approx(0.6)
        assert split.shares == pytest.approx((1 / 3, 2 / 3))


def test_nobody_is_covered() -> None:
    """With a coverage of 0 no unit gets an arm, whatever the hash."""
    for hash_ in (
        "growthbook-v2",
        "growthbook-v1",
        "eppo",
        "optimizely",
        "statsig",
        "statsig-experiment",
        "launchdarkly",
        "unleash",
    ):
        split = split_of("key", entry(hash_, [1, 1] if hash_ == "unleash" else [0.5, 0.5], coverage=0))
        assert split.covered == 0 and {split(unit)[0] for unit in units(200)} == {-1}

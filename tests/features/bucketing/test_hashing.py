"""Hashes: the published vectors, the vendors' own code over many units, and texts that are not ASCII."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmh3
import pytest
from growthbook.core import gbhash
from hypothesis import given
from hypothesis import strategies as st
from ldclient import Context
from ldclient.impl.evaluator_common import _bucket_context
from optimizely.bucketer import Bucketer

from features.bucketing import fnv, hashing
from tests.features.vendor_sdks import SEED, units

GOLDEN = Path(__file__).parents[2] / "fixtures" / "assignment" / "hashes-1.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["cases"]
MAKERS: dict[str, Any] = {
    "growthbook-v2": hashing.growthbook_v2,
    "growthbook-v1": hashing.growthbook_v1,
    "eppo": hashing.eppo,
    "optimizely": hashing.optimizely,
    "statsig": hashing.statsig,
    "statsig-experiment": hashing.statsig_experiment,
    "launchdarkly": hashing.launchdarkly,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['hash']}-{case['unit'][:20]}")
def test_published_vectors(case: dict[str, Any]) -> None:
    """Every vector of the golden file, most of them published by the tools themselves, is met to the bit."""
    name, words, unit = case["hash"], case["words"], case["unit"]
    if name in MAKERS:
        assert MAKERS[name](**words)(unit) == case["bucket"]
    elif name == "eppo-text":  # these hash a text as it stands; `eppo` puts salt and a hyphen before the unit
        assert hashing.eppo_shard(unit.encode()) == case["bucket"]
    elif name == "unleash-variant":
        bucket = hashing.unleash(words["group"], sum(words["weights"]), hashing.UNLEASH_VARIANT_SEED)(unit)
        assert bucket // words["weights"][0] == case["arm"]
    else:
        assert name == "unleash-rollout"
        assert (hashing.unleash(words["group"], 100)(unit) < words["percent"]) == case["on"]


def test_the_golden_file_is_whole() -> None:
    """The golden file holds vectors for every algorithm, of which the count is known."""
    assert len(CASES) == 76
    assert {case["hash"] for case in CASES} == {*MAKERS, "eppo-text", "unleash-variant", "unleash-rollout"}


def test_growthbook_equals_its_own_kit() -> None:
    """Over 100,000 units GrowthBook's Python kit gives the same number, in UTF-8 for ASCII, and in UTF-16 for all."""
    narrow = hashing.growthbook_v2(SEED), hashing.growthbook_v1(SEED)
    wide = hashing.growthbook_v2("prüfung", "utf-16"), hashing.growthbook_v1("prüfung", "utf-16")
    seen = 0
    for unit in units(100_000):
        assert wide[0](unit) / 10_000 == gbhash("prüfung", unit, 2)
        assert wide[1](unit) / 1_000 == gbhash("prüfung", unit, 1)
        if unit.isascii():
            seen += 1
            assert narrow[0](unit) / 10_000 == gbhash(SEED, unit, 2)
            assert narrow[1](unit) / 1_000 == gbhash(SEED, unit, 1)
    assert 40_000 < seen < 60_000


def test_optimizely_equals_its_own_kit() -> None:
    """Over 100,000 units Optimizely's bucketer, on the murmur3 that it brings, gives the same number."""
    bucketer, ours = Bucketer(), hashing.optimizely("1886780721")
    for unit in units(100_000):
        assert ours(unit) == bucketer._generate_bucket_value(f"{unit}1886780721")


def test_launchdarkly_equals_its_own_kit() -> None:
    """Over 100,000 units LaunchDarkly's evaluator gives the same double, by flag and salt and by seed."""
    by_salt, by_seed = hashing.launchdarkly("flag", "salt"), hashing.launchdarkly("flag", "salt", 61)
    for unit in units(100_000):
        context = Context.create(unit)
        assert by_salt(unit) / hashing.LAUNCHDARKLY_SCALE == _bucket_context(None, context, None, "flag", "salt", None)
        assert by_seed(unit) / hashing.LAUNCHDARKLY_SCALE == _bucket_context(61, context, None, "flag", "salt", None)


def _fnv(numbers: list[int]) -> int:
    state = 2_166_136_261
    for number in numbers:
        state = ((state ^ number) * 16_777_619) % 2**32
    return state


ANY_TEXT = st.text(st.characters())
"""Of any characters, halves of surrogate pairs too."""


@given(seed=ANY_TEXT, unit=ANY_TEXT)
def test_growthbook_equals_the_formula(seed: str, unit: str) -> None:
    """For any text the compiled hash is what a loop over bytes, or over code units, gives."""
    text = list((seed + unit).encode("utf-8", "surrogatepass"))
    assert hashing.growthbook_v2(seed)(unit) == _fnv(list(str(_fnv(text)).encode())) % 10_000
    wide = (unit + seed).encode("utf-16-le", "surrogatepass")
    expected = _fnv([wide[at] | wide[at + 1] << 8 for at in range(0, len(wide), 2)]) % 1_000
    assert hashing.growthbook_v1(seed, "utf-16")(unit) == expected


@given(number=st.integers(0, 2**32 - 1))
def test_digits_are_those_of_the_number(number: int) -> None:
    """Hashing the digits of a number is hashing its text."""
    assert fnv.fnv1a_digits(number) == _fnv(list(str(number).encode()))


@pytest.mark.parametrize("number", [0, 9, 10, 999_999_999, 1_000_000_000, 2**32 - 1])
def test_digits_at_the_edges(number: int) -> None:
    """The first and last numbers of a length have all their digits."""
    assert fnv.fnv1a_digits(number) == _fnv(list(str(number).encode()))


@given(parent=st.text(max_size=20), unit=st.text(max_size=40))
def test_optimizely_equals_its_doubles(parent: str, unit: str) -> None:
    """Whole numbers give what Optimizely computes in doubles."""
    ratio = float(mmh3.hash(unit + parent, 1, signed=False)) / 2**32
    assert hashing.optimizely(parent)(unit) == int(ratio * 10_000)


def test_the_same_in_every_process() -> None:
    """Processes with different hash seeds give the same buckets for the same units."""
    code = (
        "from features.bucketing import fnv, hashing\nhashes = [hashing.growthbook_v2('s'), hashing.growthbook_v1('s'),"
        " hashing.eppo('s'), hashing.unleash('s', 100),\n    hashing.optimizely('s'), hashing.statsig('s', 'r'),"
        " hashing.statsig_experiment('s'), hashing.launchdarkly('f', 's')]\nprint([hash_(f'{at}-\\u00fc') for at in"
        " range(200) for hash_ in hashes])\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=Path(__file__).parents[3],
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "4242")
    ]
    assert found[0] == found[1] and len(json.loads(found[0])) == 1_600

"""Assignment: who gets which arm, in which order things decide, how even and how independent it is over a million
units.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from growthbook.core import inNamespace
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from features.common.timestamps import parse_moment
from features.config.experiments import CONTROL_GROUPS
from serving.assignment.assignment import Assigned, Reason, StickyArm, Units
from tests.serving.assigners import NOW, ask, assigner, everybody, within

MANY = 1_000_000


@pytest.mark.parametrize(
    "hash_",
    [
        "growthbook-v2",
        "growthbook-v1",
        "eppo",
        "unleash",
        "optimizely",
        "statsig",
        "statsig-experiment",
        "launchdarkly",
    ],
)
def test_a_million_units_are_split_as_declared(hash_: str) -> None:
    """Over 1,000,000 units each arm has its share of the covered, and the covered are their part of all, within
    binomial bounds.
    """
    arms = (
        {"a": {"weight": 1}, "b": {"weight": 3}}
        if hash_ == "unleash"
        else {"a": {"weight": 0.25}, "b": {"weight": 0.75}}
    )
    (read,) = assigner({"e": {"hash": hash_, "arms": arms, "coverage": 0.6}}).experiments.experiments
    found = Counter(read.split(f"customer-{at}")[0] for at in range(MANY))
    assert read.split.covered == pytest.approx(0.6) and read.split.shares == pytest.approx((0.25, 0.75))
    assert within(MANY - found[-1], MANY, 0.6)
    assert within(found[0], MANY - found[-1], 0.25)


INDEPENDENT = [(hash_, MANY // 5) for hash_ in ("eppo", "unleash", "optimizely", "statsig", "launchdarkly")]


@pytest.mark.parametrize(
    ("hash_", "count"), [pytest.param("growthbook-v2", MANY, marks=pytest.mark.slow), *INDEPENDENT]
)
def test_experiments_are_independent(hash_: str, count: int) -> None:
    """Over 1,000,000 units (200,000 for hashes other than the default) experiments of four arms know nothing of each
    other, by chi-square.
    """
    keys = ("checkout", "checkout-2", "levers")
    asked = assigner({key: {"hash": hash_, "arms": {name: {} for name in "abcd"}} for key in keys})
    splits = [read.split for read in asked.experiments.experiments]
    units = [str(at) for at in range(count)]
    arms = [np.fromiter((split(unit)[0] for unit in units), np.int64, count) for split in splits]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        table = np.bincount(arms[one] * 4 + arms[other], minlength=16).reshape(4, 4)
        assert chi2_contingency(table).pvalue > 1e-4


def test_holdout_groups_and_the_rest() -> None:
    """Holdout and control groups have their exact shares, are drawn before experiments, and are in none."""
    shares = {
        "random_eligible": 0.05,
        "propensity_only": 0.04,
        "no_levers": 0.03,
        "eligibility_only": 0.02,
        "random_propensity": 0.01,
    }
    asked = assigner({"e": {}}, holdout={"share": 0.1}, control_groups=shares)
    groups: Counter[str | None] = Counter()
    units = 100_000
    for at in range(units):
        group, (one,) = asked.assign(Units(str(at)), everybody, NOW)
        groups[group.name] += 1
        expected = 0.1 if group.name == "holdout" else 0.9 * shares.get(str(group.name), 0.85)
        assert group.probability == pytest.approx(expected)
        reason = {None: "split", "holdout": "holdout"}.get(group.name, "control_group")
        assert (one.reason, one.arm is None) == (reason, group.name is not None)
    assert set(groups) == {None, "holdout", *CONTROL_GROUPS}
    for name, count in groups.items():
        assert within(count, units, 0.1 if name == "holdout" else 0.9 * shares.get(str(name), 0.85))


def test_the_holdout_is_of_the_customer_or_the_anonymous_id() -> None:
    """Before log-in the anonymous id is held out, after it the customer; who names nobody is in no group."""
    asked = assigner({}, holdout={"share": 1.0})
    assert asked.group(Units(customer="a")).name == asked.group(Units(anonymous="a")).name == "holdout"
    assert asked.group(Units()) == asked.group(Units(account="a")) == (None, 1.0)
    half = assigner({}, holdout={"share": 0.5})
    assert len({half.group(Units(f"c{at}", "same")).name for at in range(50)}) == 2
    assert [half.group(Units(anonymous=str(at))) for at in range(50)] == [
        half.group(Units(str(at))) for at in range(50)
    ]


def test_namespaces_exclude_each_other() -> None:
    """Of 100,000 units none is in two experiments of a namespace; each is where GrowthBook puts it, and each has its
    share.
    """
    ranges = {"a": [0, 0.25], "b": [0.25, 0.7], "c": [0.7, 1]}
    asked = assigner(
        {key: {"namespace": {"name": "checkout", "range": range_}, "coverage": 0.8} for key, range_ in ranges.items()}
    )
    inside: Counter[str] = Counter()
    for at in range(100_000):
        found = asked.assign(Units(str(at)), everybody, NOW).assignments
        open_ = [one for one in found if one.reason != "namespace"]
        assert len(open_) == 1
        low, high = ranges[open_[0].experiment]
        assert inNamespace(str(at), ("checkout", low, high))
        assert open_[0].covered == pytest.approx((high - low) * 0.8)
        inside[open_[0].experiment] += 1
    for key, (low, high) in ranges.items():
        assert within(inside[key], 100_000, high - low)


@pytest.mark.parametrize(
    ("unit", "name", "range_", "expected"), [("1", "namespace1", [0, 0.4], False), ("3", "namespace2", [0, 0.4], True)]
)
def test_published_namespaces(unit: str, name: str, range_: list[float], expected: bool) -> None:
    """GrowthBook's published cases: who is in a namespace's range."""
    asked = assigner({"e": {"namespace": {"name": name, "range": range_}}})
    assert (ask(asked, unit).arm is not None) == expected


def test_what_is_not_running_assigns_nobody() -> None:
    """A draft, a stopped experiment, one to come and one that is over say so; start is included, end is not."""
    window = {"start": "2026-11-22T12:00:00Z", "end": "2026-11-23"}
    asked = assigner(
        {"draft": {"status": "draft"}, "stopped": {"status": "stopped"}, "timed": window}, holdout={"share": 0.5}
    )
    end = parse_moment("2026-11-23")
    for unit in map(str, range(20)):
        timed = {}
        for now in (NOW - 1, NOW, end - 1, end):
            draft, stopped, timed[now] = asked.assign(Units(unit), everybody, now).assignments
            assert (draft.reason, stopped.reason) == ("draft", "stopped")
        assert (timed[NOW - 1].reason, timed[end].reason) == ("not_started", "ended")
        assert timed[NOW] == timed[end - 1] and timed[NOW].reason in ("split", "holdout")


def test_each_experiment_has_its_kind_of_unit() -> None:
    """A customer, an anonymous id and an account are hashed as they stand; without one its experiments say so."""
    asked = assigner({kind: {"unit": kind, "seed": "same"} for kind in ("customer", "anonymous", "account")})
    reasons = [one.reason for one in asked.assign(Units(anonymous="x"), everybody, NOW).assignments]
    assert reasons == ["no_unit", "split", "no_unit"]
    found = asked.assign(Units("x", "x", "x"), everybody, NOW).assignments
    assert len({(one.arm, one.bucket) for one in found}) == 1
    assert [one.reason for one in asked.assign(Units(), everybody, NOW).assignments] == ["no_unit"] * 3


def test_targeting_is_asked_only_where_there_is_one() -> None:
    """Targeting is asked by the experiment's key; who is not targeted has no arm, and no bucket is computed."""
    asked = assigner({"all": {}, "app": {"targeting": 'context.channel == "app"'}})
    for truth in (True, False):
        keys: list[str] = []
        everyone, app = asked.assign(
            Units("1"), lambda key, keys=keys, truth=truth: keys.append(key) or truth, NOW
        ).assignments  # type: ignore[misc]
        assert keys == ["app"] and everyone.reason == "split"
        assert (app.reason, app.bucket is None) == (("split", False) if truth else ("not_targeted", True))


def test_probabilities_are_exact() -> None:
    """P(arm | in) are the shares of the buckets, P(in) is namespace x coverage, and the product is what is seen."""
    arms = {"a": {"weight": 0.2}, "b": {"weight": 0.3}, "c": {"weight": 0.5}}
    asked = assigner({"e": {"arms": arms, "coverage": 0.5, "namespace": {"name": "n", "range": [0, 0.4]}}})
    units, found = 200_000, Counter[str]()
    for at in range(units):
        one = ask(asked, str(at))
        assert one.covered == pytest.approx(0.2)
        if one.arm is not None:
            assert one.probability == pytest.approx(arms[one.arm]["weight"])
            found[one.arm] += 1
    for arm, given_ in arms.items():
        assert within(found[arm], units, 0.2 * given_["weight"])


PROGRAM = """
import json, sys
from tests.serving.assigners import NOW, assigner, everybody
from serving.assignment.assignment import Units
asked = assigner(json.loads(sys.argv[1]), holdout={"share": 0.1}, control_groups={"no_levers": 0.1})
print([repr(asked.assign(Units(f"{at}-\\u00fc"), everybody, NOW)) for at in range(300)])
"""


def test_every_process_assigns_alike() -> None:
    """Processes with different hash seeds, as after a restart, give the same answer to the same units, down to the last
    probability.
    """
    hashes = ["growthbook-v2", "growthbook-v1", "eppo", "optimizely", "statsig", "launchdarkly"]
    given_ = {
        hash_: {"hash": hash_, "coverage": 0.5, "namespace": {"name": hash_, "range": [0, 0.9]}} for hash_ in hashes
    }
    root = Path(__file__).parents[3]
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(given_)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": "", "TZ": "UTC"},
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "77")
    }
    asked = assigner(given_, holdout={"share": 0.1}, control_groups={"no_levers": 0.1})
    here = [repr(asked.assign(Units(f"{at}-ü"), everybody, NOW)) for at in range(300)]
    assert {text.decode().strip() for text in found} == {repr(here)}


@given(
    unit=st.text(min_size=1),
    kept=st.none()
    | st.builds(
        StickyArm, st.sampled_from(["control", "treatment", "gone"]), st.integers(0, 3), st.none() | st.floats(0, 1)
    ),
    status=st.sampled_from(["draft", "running", "stopped"]),
    sticky=st.booleans(),
    targeted=st.booleans(),
    coverage=st.floats(0, 1),
    least=st.integers(0, 2),
)
def test_an_assignment_holds_together(
    unit: str, kept: StickyArm | None, status: str, sticky: bool, targeted: bool, coverage: float, least: int
) -> None:
    """Whatever is asked: an arm comes with its probability, a write only with a drawn sticky arm, and the same question
    has the same answer.
    """
    entry = {"status": status, "sticky": sticky, "coverage": coverage, "bucket_version": 2, "min_bucket_version": least}
    asked = assigner({"e": entry | {"targeting": 'context.channel == "app"'}})
    stored = {} if kept is None else {"e": kept}

    def once() -> Assigned:
        return asked.assign(Units(unit), lambda key: targeted, NOW, stored)

    found = once()
    (one,) = found.assignments
    assert found == once()
    assert one.reason in get_args(Reason)
    assert (one.arm is None) == (one.probability is None) == (one.reason not in ("split", "sticky"))
    assert (one.to_store is not None) == (sticky and one.reason == "split")
    assert found.writes == ({"e": one.to_store} if one.to_store else {})
    if one.to_store is not None:
        assert one.to_store == (one.arm, 2, one.probability)
        (after,) = asked.assign(Units(unit), lambda key: targeted, NOW, found.writes).assignments
        assert (after.arm, after.reason) == (one.arm, "sticky")

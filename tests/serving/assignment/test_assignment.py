"""Assignment: who gets which arm, in which order things decide, how even and how independent it is over a million
units.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from growthbook.core import inNamespace
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from features.common.timestamps import parse_moment
from features.config.experiments import CONTROL_GROUPS, ExperimentsFile
from features.config.features_file import FeaturesFile
from features.config.policies import PoliciesFile
from features.workspace.experiments import read_experiments
from features.workspace.rulebook import read_rules
from serving.assignment.assignment import Assigned, Assigner, Assignment, Reason, StickyArm, Units

NOW = parse_moment("2026-11-22T12:00:00Z")
FEATURES = msgspec.convert({"context": {"channel": {"dtype": "category"}}}, FeaturesFile)
BOOK = read_rules(PoliciesFile(), FEATURES, "EUR")
ARMS = {"control": {}, "treatment": {}}
MANY = 1_000_000
SIGMAS = 5.0
"""A bound that an even split leaves once in two million times; the hashes are fixed, so that a test that passes once
always does.
"""


def assigner(experiments: Mapping[str, Any], **more: Any) -> Assigner:
    """Of experiments that run, unless they say otherwise."""
    given_ = {key: {"status": "running", "arms": ARMS} | entry for key, entry in experiments.items()}
    return Assigner.of(read_experiments(msgspec.convert({"experiments": given_} | more, ExperimentsFile), BOOK))


def everybody(key: str) -> bool:
    """All are targeted."""
    return True


def ask(asked: Assigner, unit: str = "1042", kept: Mapping[str, StickyArm] | None = None, now: int = NOW) -> Assignment:
    """What the only experiment says to a customer."""
    (found,) = asked.assign(Units(unit), everybody, now, kept or {}).assignments
    return found


def within(count: int, of: int, share: float) -> bool:
    """Whether a count is what a share allows."""
    return abs(count - of * share) <= SIGMAS * math.sqrt(of * share * (1 - share))


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


def test_changing_the_split_moves_no_sticky_unit() -> None:
    """Whatever becomes of weights, coverage, namespace and targeting, who was assigned keeps arm and probability;
    others are drawn anew.
    """
    before = assigner({"e": {"sticky": True, "coverage": 0.5, "arms": {"a": {"weight": 0.5}, "b": {"weight": 0.5}}}})
    arms = {"a": {"weight": 0.05}, "b": {"weight": 0.95}}
    changed = {
        "sticky": True,
        "coverage": 0.9,
        "arms": arms,
        "targeting": 'context.channel == "app"',
        "namespace": {"name": "n", "range": [0, 0.1]},
    }
    after, loose = assigner({"e": changed}), assigner({"e": changed | {"sticky": False}})
    kept = {
        str(at): written.writes
        for at in range(5_000)
        if (written := before.assign(Units(str(at)), everybody, NOW)).writes
    }
    assert within(len(kept), 5_000, 0.5)
    for unit, stored in kept.items():
        for targeted in (everybody, lambda key: False):
            (found,) = after.assign(Units(unit), targeted, NOW, stored).assignments
            assert (found.reason, found.arm, found.probability, found.to_store) == (
                "sticky",
                stored["e"].arm,
                0.5,
                None,
            )
        assert loose.assign(Units(unit), everybody, NOW, stored) == loose.assign(Units(unit), everybody, NOW)
    reasons = Counter(ask(after, str(at)).reason for at in range(5_000) if str(at) not in kept)
    assert set(reasons) == {"namespace", "not_covered", "split"}


def test_a_bucket_version_draws_everybody_again() -> None:
    """A higher bucket version passes over what was kept and wants a new write; a lowest version lets older units out
    for good.
    """
    kept = {"e": StickyArm("treatment", 1, 0.5)}
    arms = {"control": {"weight": 1}, "treatment": {"weight": 0}}
    same, higher, blocked = (
        assigner({"e": {"sticky": True, "arms": arms, "bucket_version": version, "min_bucket_version": least}})
        for version, least in ((1, 0), (2, 1), (2, 2))
    )
    assert ask(same, kept=kept)[:3] == ("e", "sticky", "treatment")
    again = ask(higher, kept=kept)
    assert again[:3] == ("e", "split", "control") and again.to_store == StickyArm("control", 2, 1.0)
    assert ask(blocked, kept=kept)[:3] == ("e", "blocked", None)
    assert ask(blocked).reason == "split"


def test_an_arm_that_is_gone_is_drawn_again() -> None:
    """A kept arm that the file no longer has does not hold."""
    asked = assigner({"e": {"sticky": True}})
    found = ask(asked, kept={"e": StickyArm("gone", 0)})
    assert found.reason == "split" and found.to_store is not None


def test_neither_stopped_nor_held_out_units_are_sticky() -> None:
    """Stickiness does not outlast the experiment, and a new holdout takes its units out of it."""
    kept = {"e": StickyArm("treatment", 0)}
    assert ask(assigner({"e": {"sticky": True, "status": "stopped"}}), kept=kept).reason == "stopped"
    assert ask(assigner({"e": {"sticky": True}}, holdout={"share": 1}), kept=kept).reason == "holdout"


def test_the_first_write_holds() -> None:
    """After its write an assignment is what the store holds: its own, or that of a request that was first."""
    asked = assigner({"e": {"sticky": True}})
    mine = ask(asked)
    assert mine.to_store is not None and mine.arm is not None
    assert asked.settled(mine, mine.to_store) == mine._replace(to_store=None)
    rival = StickyArm("control" if mine.arm == "treatment" else "treatment", 0, 0.125)
    assert asked.settled(mine, rival)[:4] == ("e", "sticky", rival.arm, 0.125)
    assert asked.settled(mine, rival._replace(probability=None)).probability == 0.5
    assert asked.settled(mine, rival._replace(bucket_version=7)) == mine


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
from tests.serving.assignment.test_assignment import NOW, assigner, everybody
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

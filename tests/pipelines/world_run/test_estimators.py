"""Judging by truth: regret, calibration, estimators and the report, each held against a few plain lines."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.world.history import draw_history
from pipelines.world.outcomes import follow
from pipelines.world.policies import best_slates, worth, worth_of
from pipelines.world.settings import HOUR, LIVE, NOW, SLATE_OFFERS, Integers, WorldSettings
from pipelines.world.visits import Visits, draw_visits
from pipelines.world.world import EXAMINED, World
from pipelines.world_run.calibration import calibration_of
from pipelines.world_run.driver import Driven
from pipelines.world_run.estimators import estimates_of
from pipelines.world_run.report import FAIR_SHARE, FAIR_SHOWN_MIN, WorldReport, judge

WORLD = World(WorldSettings(customers=150, offers=12, seed=9))


def live(count: int, world: World = WORLD) -> Visits:
    return draw_visits(world, LIVE, count, NOW, world.settings.live_days)


def driven_by(slates: Integers, visits: Visits, world: World = WORLD, factor: float = 1.0) -> Driven:
    """A run in which these slates were shown, with propensities that are the truth times a factor."""
    came = follow(world, visits, slates)
    considered = world.offers.valid(visits.at).sum(1)
    return Driven(visits, slates, came.probability * factor, considered, visits.at, came, {}, {}, None)


def uniform_slates(visits: Visits, world: World, seed: int) -> Integers:
    random, valid = np.random.default_rng(seed), world.offers.valid(visits.at)
    return np.argsort(np.where(valid, random.random(valid.shape), 2.0), axis=1)[:, :SLATE_OFFERS]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.data())
def test_oracle_is_the_best_of_all_slates(offers: int, data: st.DataObject) -> None:
    """No order of any offers that are valid is worth more than the oracle's slate, however few there are."""
    gains = np.array([data.draw(st.lists(st.floats(0, 10), min_size=offers, max_size=offers))])
    valid = np.array([data.draw(st.lists(st.booleans(), min_size=offers, max_size=offers))])
    found = best_slates(gains, valid)
    allowed = np.flatnonzero(valid[0])
    size = min(len(allowed), SLATE_OFFERS)
    best = max(
        sum(EXAMINED[rank] * gains[0, offer] for rank, offer in enumerate(slate))
        for slate in itertools.permutations(allowed, size)
    )
    assert worth(gains, found)[0] == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert (found[0] >= 0).sum() == size and set(found[0][found[0] >= 0]) <= set(allowed)


def test_oracle_has_no_regret_and_uniform_the_mean_of_all_slates() -> None:
    """The oracle's own slates have zero regret, any other a positive one; uniform's worth is the mean of what is drawn
    at random.
    """
    visits = live(300)
    drawn = uniform_slates(visits, WORLD, 1)
    found = worth_of(WORLD, visits, drawn, visits.at)
    oracle = judge(WORLD, driven_by(found.slates, visits), "oracle")
    assert (
        oracle.regret.regret == 0.0 and oracle.regret.captured == 1.0 and oracle.regret.served == oracle.regret.oracle
    )
    assert (found.oracle - found.served >= -1e-12).all() and (found.oracle > found.uniform).any()
    people = ~WORLD.customers.bot[visits.who]
    plain = []
    for row in np.flatnonzero(people):  # the definition, ten lines
        valid = np.flatnonzero(WORLD.offers.valid(visits.at[row : row + 1])[0])
        relevance = WORLD.relevance(visits.who[[row]], visits.at[[row]], visits.channel[[row]], valid[None, :])[0]
        gains = relevance * WORLD.offers.value[valid]
        shown = EXAMINED[: min(SLATE_OFFERS, len(valid))].sum()
        best = sum(EXAMINED[rank] * gain for rank, gain in enumerate(sorted(gains, reverse=True)[:SLATE_OFFERS]))
        plain.append(best - shown * gains.mean())
    assert oracle.regret.regret_uniform == pytest.approx(np.mean(plain), rel=1e-12)
    served = np.mean(
        [worth_of(WORLD, visits, uniform_slates(visits, WORLD, seed), visits.at).served for seed in range(300)], 0
    )
    assert served[people].mean() == pytest.approx(found.uniform[people].mean(), rel=0.01)


def test_calibration_is_none_for_the_truth_and_that_of_a_known_distortion() -> None:
    """Of the truth itself all distances are 0; of half of it they are the mean of the other half; a constant hides
    behind its mean.
    """
    true = np.random.default_rng(2).beta(1, 12, 5_000)
    exact, half = calibration_of("exact", true, true), calibration_of("half", true / 2, true)
    assert (
        exact is not None
        and exact.ece == exact.distance == 0.0
        and sum(one.rows for one in exact.bins) == exact.rows == 5_000
    )
    assert (
        half is not None
        and half.ece == pytest.approx(true.mean() / 2)
        and half.distance == pytest.approx(true.mean() / 2)
    )
    constant = calibration_of("constant", np.full(5_000, true.mean()), true)
    assert constant is not None and constant.ece < 0.01 < 0.03 < constant.distance
    assert calibration_of("nobody", true[:0], true[:0]) is None


def test_groups_of_the_report_are_judged_apart() -> None:
    """Each group has the calibration of its own rows; halved propensities are off by half of the truth everywhere but
    for bots.
    """
    visits = live(3_000)
    report = judge(WORLD, driven_by(uniform_slates(visits, WORLD, 4), visits, factor=0.5), "half")
    found = {one.group: one for one in report.calibration}
    assert set(found) >= {
        "all",
        "customers",
        "known",
        "cold starts",
        "without consent",
        "bots",
        "new offers",
        "customers, any rank",
    }
    for name, one in found.items():
        if name != "customers, any rank":
            assert one.predicted == pytest.approx(one.true / 2) and one.ece == pytest.approx(one.true / 2), name
    assert found["bots"].true == 0.0 and found["customers"].rows + found["bots"].rows == found["all"].rows == 12_000
    assert found["customers"].rows == sum(found[name].rows for name in ("known", "cold starts", "without consent"))
    assert report.bots.ece_with < report.bots.ece_without and report.bots.rate_with < report.bots.rate_without
    assert 0.04 < report.bots.visits_share < 0.12 and report.bots.clicks_share > report.bots.visits_share


def test_conversion_is_within_its_error() -> None:
    """Observed acceptances are their true expectation, give or take the stated error: over 60 worlds, as often as a
    normal draw is.
    """
    off = []
    for seed in range(60):
        world = World(WorldSettings(customers=60, offers=10, seed=seed))
        visits = live(500, world)
        off.append(
            judge(world, driven_by(uniform_slates(visits, world, seed), visits, world), "uniform").conversion[0].off
        )
    assert abs(np.mean(off)) < 4 / np.sqrt(60) and 0.6 < np.std(off) < 1.5


def test_estimators_are_unbiased_and_know_their_error() -> None:
    """Over 40 histories IPS is off by about one of its errors, and by none in the mean; SNIPS is off by few percent in
    the mean.
    """
    off: dict[str, list[tuple[float, float]]] = {}
    for seed in range(40):
        world = World(WorldSettings(customers=200, offers=10, seed=seed))
        for one in estimates_of(world, draw_history(world)):
            assert one.snips is not None and one.decisions == 2_000
            off.setdefault(one.policy, []).append((one.ips_off, one.snips / one.truth - 1))
    assert set(off) == {"uniform", "most valuable", "oracle"}
    for name, found in off.items():
        errors, parts = np.array(found).T
        assert abs(errors.mean()) < 4 / np.sqrt(40) and 0.5 < errors.std() < 2.0, name
        assert abs(parts.mean()) < 0.1, name


def test_new_offers_get_their_fair_share_when_counts_say_so() -> None:
    """The oracle gives every new offer its share as soon as it may be judged; who never shows it never does."""
    visits = live(4_000)
    wanted = worth_of(WORLD, visits, uniform_slates(visits, WORLD, 1), visits.at).slates
    people = ~WORLD.customers.bot[visits.who]
    new = np.flatnonzero(WORLD.offers.new)
    report = judge(WORLD, driven_by(wanted, visits), "oracle")
    judged = 0
    for offer, found in zip(new, report.new_offers, strict=True):
        begins = int(WORLD.offers.begins[offer])
        moments = visits.at[people & (wanted == offer).any(1)]
        assert found.shown == found.oracle == len(moments) and found.begins_hours == pytest.approx(
            (begins - NOW) / HOUR
        )
        if len(moments) >= FAIR_SHOWN_MIN:
            judged += 1
            first = visits.at[people & (visits.at >= begins)][0]
            assert found.fair_hours == pytest.approx((moments[FAIR_SHOWN_MIN - 1] - first) / HOUR)
    assert judged and FAIR_SHARE <= 1
    without = np.where(np.isin(wanted, new), -1, wanted)
    assert all(
        one.fair_hours is None and one.shown == 0 for one in judge(WORLD, driven_by(without, visits), "old").new_offers
    )


def test_report_survives_json() -> None:
    """A report is the same after a way through JSON, and made twice of the same run it is the same to the byte."""
    visits = live(200)
    report = judge(WORLD, driven_by(uniform_slates(visits, WORLD, 4), visits), "uniform")
    written = msgspec.json.encode(report)
    assert msgspec.json.decode(written, type=WorldReport) == report
    assert msgspec.json.encode(judge(WORLD, driven_by(uniform_slates(visits, WORLD, 4), visits), "uniform")) == written
    assert (
        report.busier == pytest.approx((200 / 21) / (150 * 10 / 120))
        and report.eligible_differs == 0
        and report.conserved is None
        and len(report.regret.course) == 50
    )

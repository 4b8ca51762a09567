"""Judges a run against the truth of its world: conversion, regret, calibration, new offers, bots, estimators,
events.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from msgspec import Struct

from pipelines.world.history import draw_history
from pipelines.world.policies import Worth, worth_of
from pipelines.world.port import Told
from pipelines.world.settings import HOUR, NOW, Truths, WorldSettings
from pipelines.world.world import EXAMINED, World
from pipelines.world_run.calibration import WorldCalibration, calibration_of
from pipelines.world_run.driver import Driven
from pipelines.world_run.estimators import Estimate, estimates_of

FAIR_SHARE = 0.5
"""A new offer has its fair share once it was shown so often, against how often the oracle showed it by then."""
FAIR_SHOWN_MIN = 10
"""Before the oracle has shown an offer so often, nothing can be said of its share."""
STEPS = 50
"""Points of the course of regret."""


class Conversion(Struct, frozen=True):
    """Acceptances of what was shown, against what the truth says to expect of the very same slates.

    Attributes:
        expected, error: the expected number and its standard error (draws are independent).
        off: how many standard errors the observed number is off.
    """

    group: str
    shown: int
    accepted: int
    rate: float
    expected: float
    error: float
    off: float


class Regret(Struct, frozen=True):
    """What was expected to be earned a visit of a customer (no bots), in euros, true expectations all of them.

    Attributes:
        regret, regret_uniform: of the policy that served, and of the uniform one: how much less than the oracle.
        captured: the part of what lies between uniform and oracle that was earned; None where that is nothing.
        course: regret of the visits so far, in `STEPS` steps: served, uniform.
    """

    visits: int
    served: float
    oracle: float
    uniform: float
    regret: float
    regret_uniform: float
    captured: float | None
    course: list[tuple[float, float]]


class NewOffer(Struct, frozen=True):
    """An offer that began during the run.

    Attributes:
        begins_hours: after the begin of the run.
        shown, oracle: how often it was shown, and how often the oracle would have shown it.
        fair_hours: from the first visit at which it was valid until it had its fair share; None when it never had, or
            the oracle hardly shows it.
    """

    offer_id: str
    begins_hours: float
    shown: int
    oracle: int
    fair_hours: float | None


class Bots(Struct, frozen=True):
    """How far bots move figures that take them for customers: with, and without them."""

    visits_share: float
    clicks_share: float
    rate_with: float
    rate_without: float
    ece_with: float
    ece_without: float


class WorldReport(Struct, frozen=True):
    """A run, judged. The same settings and visits give the same report in process, to the byte."""

    settings: WorldSettings
    decider: str
    decisions: int
    busier: float
    """Visits a day, against those of the history: windows fill up faster than training saw them fill."""
    offers_shown: int
    events: dict[str, int]
    told: Told | None
    conserved: bool | None
    """Whether events were accepted = stored + duplicates + dead, and all that were sent accepted; None where nobody
    counts.
    """
    degraded: dict[str, int]
    eligible_differs: int
    """Decisions that considered another number of offers than were valid: then limits or rules were at work, and regret
    is too high.
    """
    conversion: list[Conversion]
    regret: Regret
    calibration: list[WorldCalibration]
    """By group, at the rank where each offer was shown; `any rank`: against the mean over ranks, which is what a model
    can know.
    """
    new_offers: list[NewOffer]
    bots: Bots
    estimates: list[Estimate]


def judge(world: World, driven: Driven, decider: str) -> WorldReport:
    """Hold a run against the truth."""
    shown = driven.slates >= 0
    worth = worth_of(world, driven.visits, driven.slates, driven.clock)
    people = ~world.customers.bot[driven.visits.who]
    calibration = _calibration(world, driven, shown)
    return WorldReport(
        settings=world.settings,
        decider=decider,
        decisions=len(driven.visits),
        busier=len(driven.visits) / world.settings.live_days / history_visits_a_day(world.settings),
        offers_shown=int(shown.sum()),
        events=driven.events,
        told=driven.told,
        conserved=None if driven.told is None else driven.told.conserved,
        degraded=dict(sorted(driven.degraded.items())),
        eligible_differs=int((worth.eligible != driven.considered).sum()),
        conversion=[
            _conversion("all", driven, shown),
            _conversion("customers", driven, shown & people[:, None]),
            _conversion("bots", driven, shown & ~people[:, None]),
        ],
        regret=_regret(worth, people),
        calibration=calibration,
        new_offers=_new_offers(world, driven, worth, people),
        bots=_bots(driven, shown, people, calibration),
        estimates=estimates_of(world, draw_history(world)),
    )


def history_visits_a_day(settings: WorldSettings) -> float:
    """Return how many decisions of the history fell on a day, on the average."""
    return settings.customers * settings.history_decisions_each / settings.history_days


def _conversion(group: str, driven: Driven, rows: Truths) -> Conversion:
    true = driven.outcomes.probability[rows]
    shown, accepted = int(rows.sum()), int(driven.outcomes.accepted[rows].sum())
    expected, error = float(true.sum()), sqrt(float((true * (1 - true)).sum()))
    return Conversion(
        group,
        shown,
        accepted,
        accepted / max(shown, 1),
        expected,
        error,
        (accepted - expected) / error if error else 0.0,
    )


def _regret(worth: Worth, people: Truths) -> Regret:
    served, oracle, uniform = (part[people] for part in (worth.served, worth.oracle, worth.uniform))
    count = max(len(served), 1)
    between = float((oracle - uniform).sum())
    lost, lost_uniform = np.cumsum(oracle - served), np.cumsum(oracle - uniform)
    at = np.unique(np.linspace(0, len(served) - 1, STEPS).astype(int)).tolist() if len(served) else []
    return Regret(
        visits=len(served),
        served=float(served.sum()) / count,
        oracle=float(oracle.sum()) / count,
        uniform=float(uniform.sum()) / count,
        regret=float((oracle - served).sum()) / count,
        regret_uniform=between / count,
        captured=float((served - uniform).sum()) / between if between > 0 else None,
        course=[(float(lost[one]), float(lost_uniform[one])) for one in at],
    )


def _calibration(world: World, driven: Driven, shown: Truths) -> list[WorldCalibration]:
    people, who, visits = world.customers, driven.visits.who, driven.visits
    bot, stranger = people.bot[who], people.new[who] | visits.anonymous
    groups = {
        "customers": ~bot,
        "known": ~bot & ~stranger & people.consents[who],
        "cold starts": ~bot & stranger,
        "without consent": ~bot & ~stranger & ~people.consents[who],
        "bots": bot,
    }
    rows = {name: shown & chosen[:, None] for name, chosen in groups.items()}
    fresh = world.offers.new[np.maximum(driven.slates, 0)]
    rows |= {"new offers": rows["customers"] & fresh, "all": shown}
    true, ranks = driven.outcomes.probability, np.broadcast_to(EXAMINED, shown.shape)
    found = [calibration_of(name, driven.propensities[chosen], true[chosen]) for name, chosen in rows.items()]
    chosen = rows["customers"]
    found.append(
        calibration_of("customers, any rank", driven.propensities[chosen], (true / ranks * EXAMINED.mean())[chosen])
    )
    return [one for one in found if one is not None]


def _new_offers(world: World, driven: Driven, worth: Worth, people: Truths) -> list[NewOffer]:
    found = []
    for offer in np.flatnonzero(world.offers.new):
        begins = int(world.offers.begins[offer])
        later = people & (driven.clock >= begins)
        shown, wanted = (np.cumsum((slates[later] == offer).any(1)) for slates in (driven.slates, worth.slates))
        fair = np.flatnonzero((wanted >= FAIR_SHOWN_MIN) & (shown >= FAIR_SHARE * wanted))
        moments = driven.visits.at[later]
        hours = int(moments[fair[0]] - moments[0]) / HOUR if len(fair) else None
        counts = (int(shown[-1]), int(wanted[-1])) if len(shown) else (0, 0)
        found.append(NewOffer(world.offers.ids[offer], (begins - NOW) / HOUR, *counts, hours))
    return found


def _bots(driven: Driven, shown: Truths, people: Truths, calibration: list[WorldCalibration]) -> Bots:
    clicked, accepted = driven.outcomes.clicked, driven.outcomes.accepted
    ece = {one.group: one.ece for one in calibration}
    without = shown & people[:, None]
    return Bots(
        visits_share=float((~people).mean()),
        clicks_share=float(clicked[~people].sum()) / max(float(clicked.sum()), 1.0),
        rate_with=float(accepted[shown].mean()) if shown.any() else 0.0,
        rate_without=float(accepted[without].mean()) if without.any() else 0.0,
        ece_with=ece.get("all", 0.0),
        ece_without=ece.get("customers", 0.0),
    )

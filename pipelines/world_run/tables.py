"""A judged run as people read it: what to know first, a sentence each, then tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from features.common.types import IMPRESSION
from pipelines.output import console
from pipelines.world_run.report import FAIR_SHARE, WorldReport

NEW_OFFERS_SHOWN = 12
BUSIER_MAX = 2.0
"""Beyond it, a run is no longer like its history."""
SUSPECT_ERRORS = 4.0
"""Standard errors beyond which a figure that should be its expectation is hardly chance."""


def print_report(found: WorldReport) -> None:
    """On standard output."""
    for line in headlines(found):
        console.out.print(line, highlight=False, markup=False)
    for title, columns, rows in sections(found):
        console.table(f"\n{title}", columns, rows)


def headlines(found: WorldReport) -> Iterator[str]:
    """Return what to read first."""
    size, regret = found.settings, found.regret
    yield (
        f"A world of {size.customers:,} customers and {size.offers:,} offers, seed {size.seed}; {found.decisions:,}"
        f" decisions by {found.decider} over {size.live_days} days showed {found.offers_shown:,} offers, of which"
        f" {found.events.get(IMPRESSION, 0):,} were seen."
    )
    captured = "" if regret.captured is None else f": {regret.captured:.1%} of what lies between uniform and oracle"
    yield (
        f"A visit is worth {regret.served:.3f} EUR; {regret.uniform:.3f} under a uniform policy, {regret.oracle:.3f}"
        f" under the oracle{captured}."
    )
    if found.busier > BUSIER_MAX:
        yield (
            f"The run is {found.busier:.1f} times as busy as its history: what is counted over days grows beyond what"
            " training saw, which costs calibration. Take fewer decisions for a run like the past."
        )
    if found.eligible_differs:
        yield (
            f"{found.eligible_differs:,} decisions chose from other offers than were valid: limits, rules or an older"
            " catalogue were at work, and the oracle did not heed them."
        )
    for flag, count in found.degraded.items():
        yield f"{count:,} decisions were degraded: {flag}."
    whole = found.conversion[0]
    if abs(whole.off) > SUSPECT_ERRORS:
        yield (
            f"Acceptances are {whole.off:+.1f} standard errors off what the truth expects: something is wrong with the"
            " simulation."
        )
    if found.told is None:
        yield "Events are heard by a ledger in this process; there is no event log that would count them."
    else:
        told = found.told
        yield (
            f"Events: {told.sent:,} sent, {told.accepted:,} accepted = {told.stored:,} stored + {told.duplicates:,}"
            f" duplicates + {told.dead:,} dead: {'nothing is lost' if found.conserved else 'this does not add up'}."
        )
        for code, count in sorted(told.reasons.items()):
            yield f"{count:,} events are dead letters: {code}."


def sections(found: WorldReport) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Tables: title, columns, rows."""
    yield (
        "Conversion of what was shown, against its true expectation",
        ["group", "shown", "accepted", "rate", "expected", "standard error", "off by errors"],
        [[one.group, one.shown, one.accepted, one.rate, one.expected, one.error, one.off] for one in found.conversion],
    )
    regret = found.regret
    yield (
        "Worth of a customer's visit, true expectation (EUR)",
        ["policy", "worth", "regret"],
        [
            ["oracle", regret.oracle, 0.0],
            ["served", regret.served, regret.regret],
            ["uniform", regret.uniform, regret.regret_uniform],
        ],
    )
    yield (
        "Propensities against true probabilities, of what was shown",
        ["group", "offers shown", "predicted", "true", "calibration error", "mean distance"],
        [[one.group, one.rows, one.predicted, one.true, one.ece, one.distance] for one in found.calibration],
    )
    offers = sorted(found.new_offers, key=lambda one: -one.oracle)[:NEW_OFFERS_SHOWN]
    yield (
        f"Offers that began during the run, and when they had {FAIR_SHARE:.0%} of the oracle's share",
        ["offer", "begins (h)", "shown", "oracle", "fair after (h)"],
        [[one.offer_id, one.begins_hours, one.shown, one.oracle, one.fair_hours] for one in offers],
    )
    bots = found.bots
    yield (
        f"Bots: {bots.visits_share:.1%} of the visits, {bots.clicks_share:.1%} of the clicks",
        ["figure", "with bots", "without"],
        [
            ["acceptances of what was shown", bots.rate_with, bots.rate_without],
            ["calibration error", bots.ece_with, bots.ece_without],
        ],
    )
    yield (
        "Estimators of other policies from the random history, against truth (EUR a decision)",
        ["policy", "truth", "IPS", "standard error", "off by errors", "SNIPS"],
        [[one.policy, one.truth, one.ips, one.ips_error, one.ips_off, one.snips] for one in found.estimates],
    )
    yield "Events", ["type", "number"], [[name, count] for name, count in found.events.items()]

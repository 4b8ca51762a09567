"""Checks of offers beside what is told of them: outcomes of offers that nobody has, offers that the model never saw."""

from __future__ import annotations

import math

from features.lake.lake import quoted
from features.lake.offers import catalogue_file, read_catalogue
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts
from training.bundle import bundle

ROWS_MIN = 50
UNKNOWN_SHARE_MAX = 0.05
UNSEEN_SHARE_MAX = 0.5
MATURED_MIN, SUCCESSES_MIN = 500, 25
"""Offers shown whose window is closed, and outcomes expected or seen among them, without which calibration is chance.
"""
FACTOR_MAX, SURE_ERRORS = 1.5, 4.0
"""A rate is far off that is another one by this factor and by so many standard errors."""


def offers_unknown(facts: Facts) -> Seen:
    """Impressions and outcomes tell of offers that the catalogue has not."""
    if not catalogue_file(facts.workspace).exists():
        raise CannotSay("nothing was imported yet")
    known = [offer.offer_id for offer in read_catalogue(facts.workspace)]
    found, looked = [], 0
    for table in ("impressions", "outcomes"):
        rows = facts.con.execute(
            f"SELECT offer_id, count(*), list_contains(?, offer_id) FROM {quoted(table)} WHERE offer_id IS NOT NULL"
            " GROUP BY 1 ORDER BY 2 DESC, 1",
            [known],
        ).fetchall()
        total = sum(int(count) for _, count, _ in rows)
        strange = {str(offer): int(count) for offer, count, is_known in rows if not is_known}
        if total < ROWS_MIN:
            continue
        looked += total
        if sum(strange.values()) > UNKNOWN_SHARE_MAX * total:
            evidence: dict[str, float | str] = {
                "table": table,
                "rows": total,
                "of_unknown_offers": sum(strange.values()),
                "offers": len(strange),
            }
            what = f"{table} tell of offers that the catalogue has not: {listed(list(strange), 5)}"
            todo = (
                "Import the offers too, with those that are over (`valid_until`): rows of unknown offers teach nothing."
            )
            found.append(Finding("offers_unknown", "warning", what, evidence, todo))
    if not looked:
        raise CannotSay(f"fewer than {ROWS_MIN} impressions and outcomes")
    return Seen(f"{looked:,} impressions and outcomes of {len(known):,} offers", found)


def offers_unseen(facts: Facts) -> Seen:
    """Most offers that are valid now have attributes that the model has never seen."""
    place = bundle.current(facts.workspace.bundles)
    if place is None or facts.model.serving is None:
        raise CannotSay("nothing serves")
    found = bundle.read(place)
    seconds = facts.now
    valid = [
        offer
        for offer in read_catalogue(facts.workspace)
        if (offer.valid_from is None or offer.valid_from <= seconds)
        and (offer.valid_until is None or offer.valid_until > seconds)
    ]
    columns = [column for column in found.contract.columns if column.kind == "offer" and column.dtype == "category"]
    if not valid or not columns:
        raise CannotSay("no offer is valid now" if not valid else "the model has no category of offers")
    unseen = dict[str, int]()
    for column in columns:
        name, known = column.source.partition(".")[2] or column.name, set(found.categories[column.name])
        values = [offer.attributes.get(name) for offer in valid]
        count = sum(isinstance(value, str) and value not in known for value in values)
        if count > UNSEEN_SHARE_MAX * len(valid):
            unseen[column.name] = count
    if not unseen:
        return Seen(f"{len(columns)} categories of {len(valid):,} offers")
    evidence: dict[str, float | str] = {"offers": len(valid), **unseen}
    what = (
        f"most offers that are valid now have values of {listed(list(unseen))} that the model never saw: to it they are"
        " missing"
    )
    todo = "Run `opportune train` once these offers were shown; `opportune import` alone does not teach the model."
    return Seen(f"{len(columns)} categories", [Finding("offers_unseen", "warning", what, evidence, todo)])


def calibration_off(facts: Facts) -> Seen:
    """Offers are taken far more or less often than the model that serves said."""
    place = bundle.current(facts.workspace.bundles)
    if place is None or facts.model.serving is None:
        raise CannotSay("nothing serves")
    name = bundle.read(place).id
    [(shown,)] = facts.con.execute("SELECT count(*) FROM recorded WHERE bundle = ?", [name]).fetchall()
    if shown < MATURED_MIN:
        raise CannotSay(f"{shown:,} offers were shown by this model, expected at least {MATURED_MIN:,}")
    from features.columns.catalogue import Catalogue
    from training.dataset.attribution import attribute

    con = facts.con.cursor()  # its temporary tables are its own
    try:
        attribute(con, facts.workspace, Catalogue(read_catalogue(facts.workspace)), facts.now)
        [(rows, expected, spread, taken)] = con.execute(
            "SELECT count(*), coalesce(sum(p), 0), coalesce(sum(p * (1 - p)), 0), coalesce(sum(s.label::INTEGER), 0)"
            " FROM shown s JOIN catalogue c ON c.place = s.position JOIN (SELECT decision_id, offer_id,"
            " any_value(propensity) AS p FROM recorded WHERE bundle = ? AND NOT isnan(propensity) GROUP BY ALL) r ON"
            " r.decision_id = s.decision_id AND r.offer_id = c.offer_id",
            [name],
        ).fetchall()
    finally:
        con.close()
    if rows < MATURED_MIN or max(expected, taken) < SUCCESSES_MIN:
        raise CannotSay(
            f"{rows:,} offers shown by this model have a closed window, {taken:,} were taken, expected {MATURED_MIN:,}"
            f" and {SUCCESSES_MIN}"
        )
    seen = f"{rows:,} offers shown, whose window is closed"
    off = max((taken + 1) / (expected + 1), (expected + 1) / (taken + 1))
    if off <= FACTOR_MAX or abs(taken - expected) <= SURE_ERRORS * math.sqrt(spread):
        return Seen(seen)
    evidence: dict[str, float | str] = {
        "shown": rows,
        "taken": taken,
        "expected": expected,
        "times": (taken + 1) / (expected + 1),
    }
    what = f"offers are taken {(taken + 1) / (expected + 1):.2g} times as often as the model says"
    todo = (
        "Look whether outcomes arrive that were counted at training (`label` in model.yaml), then run `opportune"
        " train`."
    )
    return Seen(seen, [Finding("calibration_off", "warning", what, evidence, todo)])


CHECKS = (offers_unknown, offers_unseen, calibration_off)

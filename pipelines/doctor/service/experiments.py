"""Checks of running experiments: is the split sound, are units exposed at all, can anybody be in it, is it over; are
groups large enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import duckdb
from scipy.stats import norm

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, rfc3339
from features.config.experiments import CONTROL_GROUPS, Changes
from features.lake.lake import literal
from features.lake.loop_tables import EXPOSURES
from features.workspace.experiments import ReadExperiment
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, Severity, listed
from pipelines.doctor.facts.gather import Facts
from pipelines.experiments.analysis import ReportQuery, question_of, status_at
from pipelines.experiments.cohort import VIEW, NoExposures, show_units
from pipelines.experiments.data import read
from pipelines.experiments.split import split_report
from pipelines.ramps.evidence import LAKE
from pipelines.statistics.inference import ALPHA
from serving.hub.hub import digest_of

UNITS_MIN = 20
"""Of fewer units that should be in an experiment none need have been exposed."""
DECISIONS_MIN = 50
EXPOSED_SHARE_MIN = 0.2
"""Of decisions for units that have an arm, at placements that the experiment concerns."""
PAST_SECONDS_MAX = DAY_SECONDS
"""An experiment that ended so long ago and is still called running was forgotten."""
POWER = 0.8
LIFT_MAX = 1.0
"""A group that cannot show that conversion doubles shows nothing."""
CUSTOMERS_MIN = 100


def split_mismatch(facts: Facts) -> Seen:
    """Arms of running experiments have not the units that their split gives them, as `experiment report` tests it."""
    found, looked = [], 0
    for experiment in facts.running:
        if experiment.standing is not None:
            continue  # whose split changes step by step: `ramps_wait` tests it as the ramp does
        try:
            _show_exposures(facts, experiment)
            # Units that were exposed before the start are of an earlier run under the same key.
            question = question_of(facts.workspace, experiment, ReportQuery(since=experiment.start), facts.now)
            exposed = read(facts.con, question)
        except NoExposures:
            continue
        if all(day.is_mixed for day in exposed.drawn):
            continue  # on each of its days the split was changed: there is nothing to hold the units against
        shares = (
            experiment.split.shares
            if any(experiment.split.shares)
            else (1 / len(experiment.arms),) * len(experiment.arms)
        )
        split = split_report(exposed, question, shares)
        looked += sum(split.units)
        if split.alarm:
            units = " : ".join(f"{count:,}" for count in split.units)
            expected = " : ".join(f"{count:,.0f}" for count in split.expected)
            evidence: dict[str, float | str] = {
                "experiment": experiment.key,
                "arms": " : ".join(experiment.arms),
                "units": units,
                "expected": expected,
                "p": split.p,
            }
            causes = f"Likely: {split.causes[0]}. " if split.causes else ""
            todo = (
                f"{causes}`opportune experiment report {experiment.key}` says more; until it is mended trust no figure"
                " of it."
            )
            what = (
                f"the arms of {experiment.key} have {units} units, and the split gives {expected}: the samples do not"
                " match"
            )
            found.append(Finding("split_mismatch", "error", what, evidence, todo))
    if not looked:
        raise CannotSay("no unit of a running experiment was exposed yet")
    return Seen(
        f"{looked:,} units of {len(facts.running)} running experiments, those included that wait to be shipped", found
    )


def _show_exposures(facts: Facts, experiment: ReadExperiment) -> None:
    """Let the connection's exposures be those of the lake, in units of the experiment's kind, and those that wait to be
    shipped.
    """
    con, workspace = facts.con, facts.workspace
    con.execute(f"DROP VIEW IF EXISTS temp.main.{VIEW}")
    show_units(con, workspace, experiment.entry.unit)
    waiting = facts.unshipped.table(EXPOSURES.name, facts.now)
    if waiting is not None:
        con.register("waiting_exposures", waiting)
        rows = (
            f"SELECT * FROM {LAKE}.{VIEW} UNION ALL BY NAME SELECT * REPLACE (coalesce(unit, customer_id) AS unit) FROM"
            " waiting_exposures"
        )
        con.execute(f"CREATE OR REPLACE TEMP VIEW {VIEW} AS {rows}")


def exposures_missing(facts: Facts) -> Seen:
    """An experiment runs, decisions that it concerns are served, and nobody or hardly anybody is exposed."""
    found, looked = [], 0
    for experiment in facts.running:
        customers, first = _decided(facts, experiment)
        if customers * experiment.split.covered * experiment.namespace_share < UNITS_MIN:
            continue
        looked += customers
        _show_exposures(facts, experiment)
        query = (
            f"SELECT count(*) FROM {VIEW} WHERE experiment = {literal(experiment.key)} AND time >="
            f" make_timestamptz({first}::BIGINT)"
        )
        [(exposures,)] = facts.con.execute(query).fetchall()
        if not exposures:
            evidence: dict[str, float | str] = {"experiment": experiment.key, "customers": customers, "exposures": 0}
            what = f"{experiment.key} runs, decisions are served, and nobody was exposed to it"
            todo = (
                "Look whether requests name its unit and its targeting is ever true: `/v1/assignments` says why a unit"
                " has no arm."
            )
            severity: Severity = "error" if experiment.targeting is None else "warning"
            found.append(Finding("exposures_missing", severity, what, evidence, todo, rfc3339(first)))
    if facts.url is not None and facts.server.arms:
        for experiment in facts.running:
            assigned, exposed = facts.server.arms.get(experiment.key, (0.0, 0.0))
            if _concerns(experiment) is None and assigned >= DECISIONS_MIN and exposed < EXPOSED_SHARE_MIN * assigned:
                evidence = {"experiment": experiment.key, "decisions": assigned, "exposures": exposed}
                what = f"units have arms of {experiment.key} far more often than they are exposed to it"
                todo = (
                    "Look whether an arm changes anything where decisions are asked for; with `placements` alone others"
                    " do not expose."
                )
                found.append(Finding("exposures_missing", "warning", what, evidence, todo))
    if not looked and not found:
        raise CannotSay(f"fewer than {UNITS_MIN} units were decided for by the files as they are now")
    return Seen(f"{looked:,} customers who were decided for since the running experiments began", found)


def _decided(facts: Facts, experiment: ReadExperiment) -> tuple[int, int]:
    """Return for how many customers decisions that an experiment concerns were made by the files as they are now, and
    since when.
    """
    if experiment.standing is not None and experiment.standing.share <= 0:
        return 0, 0  # nobody has the arm, and nobody is exposed: see `ramps_wait`
    begun = None if experiment.standing is None else experiment.standing.begun
    where = (
        f"config = {literal(digest_of(facts.workspace))} AND time >="
        f" make_timestamptz({max(experiment.start or 0, begun or 0)}::BIGINT)"
    )
    places = _concerns(experiment)
    if places is not None:
        where += f" AND placement IN ({', '.join(map(literal, places))})"
    query = f"SELECT count(DISTINCT customer_id), epoch_us(min(time)) FROM recorded WHERE {where}"
    [(count, first)] = facts.con.execute(query).fetchall()
    return int(count), int(first or 0)


def _concerns(experiment: ReadExperiment) -> list[str] | None:
    """Return the placements whose decisions some arm changes; None for all of them."""
    changes: Iterable[Changes] = [arm.changes for arm in experiment.entry.arms.values()]
    if any(change.model or change.arbitration or change.rules or change.exploration for change in changes):
        return None
    return sorted({name for change in changes for name in change.placements}) or None


def experiment_of_nobody(facts: Facts) -> Seen:
    """No unit can be in a running experiment, or none was exposed in an arm that should have some."""
    found, names = [], list[str]()
    for experiment in facts.running:
        names.append(experiment.key)
        rises = experiment.standing is not None and experiment.standing.share <= 0
        if not rises and experiment.split.covered * experiment.namespace_share == 0:
            evidence: dict[str, float | str] = {"experiment": experiment.key, "coverage": experiment.split.covered}
            what, todo = (
                f"{experiment.key} runs, and no unit can be in it",
                "Raise its `coverage`, or widen its range of the namespace.",
            )
            found.append(Finding("experiment_of_nobody", "warning", what, evidence, todo))
            continue
        empty = [arm for arm, share in zip(experiment.arms, experiment.split.shares, strict=True) if share == 0]
        if empty and not rises and not (experiment.standing is not None and experiment.standing.state == "finished"):
            evidence = {"experiment": experiment.key, "arms": ", ".join(empty)}
            what = f"{experiment.key} runs with an arm that nobody can have: {listed(empty)}"
            todo = "Give the arm a weight, or take it out: without units there is nothing to compare."
            found.append(Finding("experiment_of_nobody", "warning", what, evidence, todo))
    return Seen(f"the splits of {len(names)} running experiments", found)


def experiments_over(facts: Facts) -> Seen:
    """Experiments are past their end, and the file still calls them running."""
    named = [one for one in facts.experiments.experiments if one.entry.status == "running"]
    if not named:
        raise CannotSay("no experiment has the status running")
    found = []
    for one in named:
        if (
            status_at(one, facts.now) != "ended"
            or one.end is None
            or facts.now - one.end < PAST_SECONDS_MAX * MICROSECONDS
        ):
            continue
        evidence: dict[str, float | str] = {
            "experiment": one.key,
            "days": (facts.now - one.end) / MICROSECONDS / DAY_SECONDS,
        }
        todo = (
            "Read its report, then set `status: stopped`, make the better arm the usual way, or give it a later `end`."
        )
        what = f"{one.key} is past its end, and its status is still running: everybody is decided as usual"
        found.append(Finding("experiments_over", "warning", what, evidence, todo, rfc3339(one.end)))
    return Seen(f"the ends of {len(named)} experiments", found)


def groups_too_small(facts: Facts) -> Seen:
    """A holdout or control group is too small to show anything, however long one waits."""
    file = facts.workspace.experiments
    shares = {"holdout": file.holdout.share} if file.holdout is not None and file.holdout.share > 0 else {}
    if file.control_groups is not None:
        shares |= {
            name: share for name, share in zip(CONTROL_GROUPS, file.control_groups.shares, strict=True) if share > 0
        }
    if not shares:
        raise CannotSay("there is neither a holdout nor a control group")
    customers, rate = _customers(facts.con, facts.workspace.model.label.outcome)
    if customers < CUSTOMERS_MIN or not rate:
        raise CannotSay(
            f"{customers:,} customers with a decision, {rate:.2%} of them with the outcome: too few to judge the size"
            " of groups"
        )
    found = []
    for name, share in shares.items():
        lift = _smallest_lift(share * customers, (1 - share) * customers, rate)
        if lift > LIFT_MAX:
            evidence: dict[str, float | str] = {
                "share": share,
                "units": share * customers,
                "customers": customers,
                "conversion": rate,
            }
            least = (norm.isf(ALPHA / 2) + norm.isf(1 - POWER)) ** 2 * (1 - rate) / rate / LIFT_MAX**2 / customers
            what = f"the group {name} is so small that it could not even show conversion to double"
            todo = f"Give it a share of at least {min(least, 0.5):.2g} in experiments.yaml, or take it out."
            found.append(Finding("groups_too_small", "warning", what, evidence, todo))
    return Seen(f"{len(shares)} groups of {customers:,} customers", found)


def _customers(con: duckdb.DuckDBPyConnection, outcome: str) -> tuple[int, float]:
    """Return how many customers have a decision, and which part of them has the outcome."""
    query = (
        "SELECT count(*), coalesce(avg((o.customer_id IS NOT NULL)::DOUBLE), 0) FROM (SELECT DISTINCT customer_id FROM"
        f" decisions) d LEFT JOIN (SELECT DISTINCT customer_id FROM outcomes WHERE type = {literal(outcome)}) o USING"
        " (customer_id)"
    )
    [(count, rate)] = con.execute(query).fetchall()
    return int(count), float(rate)


def _smallest_lift(group: float, others: float, rate: float) -> float:
    """Return the smallest true lift that one look would show in four of five cases: (z(1 - a/2) + z(power)) x the error
    of the difference.
    """
    error = sqrt(rate * (1 - rate) * (1 / max(group, 1e-9) + 1 / max(others, 1e-9)))
    return float((norm.isf(ALPHA / 2) + norm.isf(1 - POWER)) * error / rate)


CHECKS = (split_mismatch, exposures_missing, experiment_of_nobody, experiments_over, groups_too_small)

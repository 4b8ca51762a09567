"""What the parts of a decision are worth: a desk decides for the holdout and every control group, and the report says
what is true of them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from msgspec.structs import asdict, replace
from scipy.stats import chisquare
from typer.testing import CliRunner

from features.common.timestamps import MICROSECONDS, from_microseconds, now, rfc3339
from features.common.types import Event
from features.events.rows import event_item
from features.events.semantics import time_of
from features.lake.loop_tables import GROUPS, USUAL
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import ReportQuery, experiments_in
from pipelines.experiments.control_groups import WORTH, GroupsReport, NoGroups, as_experiment, groups_on, groups_report
from pipelines.experiments.data import read
from pipelines.experiments.output.control_group_tables import print_groups, sections
from pipelines.experiments.report import GoalReport, GuardrailReport, ReportSettings, Subject
from pipelines.experiments.verdicts import report_of
from pipelines.main import app
from pipelines.shipping.ship import ship
from serving.decision.assignment import Assigner, Units
from tests.pipelines.estimates import rate_lift
from tests.pipelines.experiment_lakes import DAY, START, Rows, exposure, lake_of, question
from tests.pipelines.in_process_server import Counter
from tests.trained import copy_of
from tests.workspaces import make_workspace

NAMES = (USUAL, *WORTH)
RATES = dict(zip(NAMES, (0.5, 0.25, 0.3, 0.4, 0.45, 0.5, 0.3), strict=True))
SHARES = (0.34, 0.15, *(0.102,) * 5)
FILE = {
    "holdout": {"share": 0.15, "salt": "report"},
    "control_groups": {"salt": "parts"} | dict.fromkeys(list(WORTH)[1:], 0.12),
}
UNITS, VISITORS = 1_300, 60
PLAIN = ReportSettings(cuped=False, correction="none")


def made_up(seed: int, units: int = 5_000) -> Rows:
    """Units of all groups, decided for once, who convert as their group says."""
    rng, rows = np.random.default_rng(seed), Rows(exposures=[], outcomes=[], impressions=[], consents=[])
    for number, at in enumerate(rng.choice(len(NAMES), units, p=SHARES)):
        time, who = START + number * (25 * DAY // units), f"c{number}"
        more = {"experiment": GROUPS, "degraded": ["features_unavailable"] if rng.random() < 0.05 else []}
        rows["exposures"].append(exposure(who, time, NAMES[at], SHARES[at], **more))
        if rng.random() < RATES[NAMES[at]]:
            rows["outcomes"].append(
                {"customer_id": who, "type": "conversion", "time": time + DAY, "value": float(rng.integers(5, 30))}
            )
        if rng.random() < 0.3:  # what was before must not matter
            rows["outcomes"].append({"customer_id": who, "type": "conversion", "time": time - DAY, "value": 100.0})
    return rows


def test_lifts_are_those_of_plain_rates() -> None:
    """Lift of each part is (t - c) / c with the error of two rates, the split is chi-square's, and nothing is narrowed
    by the past.
    """
    rows, asked = made_up(1), question(experiment=GROUPS, arms=NAMES, control=USUAL)
    found = groups_report(read(lake_of(rows), asked), asked, SHARES, replace(PLAIN, cuped=True))
    converted = {row["customer_id"] for row in rows["outcomes"] if row["time"] > START and row["value"] < 100}
    units = {name: [row["customer_id"] for row in rows["exposures"] if row["arm"] == name] for name in NAMES}
    counts = {name: (len(converted & set(of_group)), len(of_group)) for name, of_group in units.items()}
    assert {one.arm: (one.conversions, one.counted) for one in found.groups} == counts and [
        one.arm for one in found.groups
    ] == list(NAMES)
    expected = np.array(SHARES) / sum(SHARES) * sum(count for _, count in counts.values())
    assert (
        found.split.p == pytest.approx(chisquare([count for _, count in counts.values()], expected).pvalue)
        and not found.split.alarm
    )
    for part in found.parts:
        goal = next(one for one in part.goals if one.metric == "conversion")
        wanted = rate_lift(*counts[USUAL], *counts[part.group])
        assert goal.lift == pytest.approx(wanted.lift) and goal.kept == 1.0 and goal.arm == USUAL
        low, high = goal.fixed
        assert low is not None and high is not None
        assert (high - low) / 2 == pytest.approx(1.96 * wanted.error, rel=0.02)
        assert low < goal.lift < high and goal.p is not None  # type: ignore[operator]
    told = {
        part.group: next(goal.verdict for goal in part.goals if goal.metric == "conversion") for part in found.parts
    }
    assert told["holdout"] == told["random_eligible"] == told["random_propensity"] == "higher"
    assert told["eligibility_only"] == "no difference shown"


@pytest.mark.parametrize("correction", ["none", "holm"])
def test_a_part_is_the_report_of_two_arms(correction: Any) -> None:
    """Each part says what an experiment's report of that group against all others says; P is corrected over all parts
    together.
    """
    rows, settings = made_up(2, 2_500), replace(PLAIN, correction=correction)
    asked = question(experiment=GROUPS, arms=NAMES, control=USUAL)
    found = groups_report(read(lake_of(rows), asked), asked, SHARES, settings)
    looser = 0
    for at, part in enumerate(found.parts, 1):
        two = question(experiment=GROUPS, arms=(part.group, USUAL), control=part.group)
        alone = report_of(
            read(lake_of(rows), two), two, Subject(status="running", shares=(SHARES[at], SHARES[0])), settings
        )
        for ours, theirs in zip(part.goals, alone.goals, strict=True):
            assert flat(ours) == pytest.approx(flat(theirs), rel=1e-6), part.group
            if ours.p_corrected is not None and theirs.p_corrected is not None:
                looser += theirs.p_corrected < ours.p_corrected - 1e-9
                assert theirs.p_corrected <= ours.p_corrected + 1e-9
        for one, other in zip(part.guardrails, alone.guardrails, strict=True):
            assert flat(one) == pytest.approx(flat(other), rel=1e-6) and one.verdict == other.verdict
    assert (looser > 0) == (correction == "holm")


def flat(one: GoalReport | GuardrailReport) -> dict[str, float]:
    """The numbers of a goal or a guardrail that do not depend on the other parts; sums over rows differ in their last
    digits.
    """
    told = {
        f"{name}/{at}": value
        for name, values in asdict(one).items()
        for at, value in enumerate(np.atleast_1d(values).tolist())
    }
    return {
        name: value for name, value in told.items() if isinstance(value, float) and not name.startswith("p_corrected")
    }


class Lived(NamedTuple):
    """A workspace whose desk has decided, and what is true of it."""

    workspace: Workspace
    begun: int
    decisions: dict[str, list[int]]
    outcomes: dict[str, list[int]]


@pytest.fixture(scope="module")
def lived(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Five days of decisions, of which a part comes back on the last; visitors who log in; who converts is drawn by the
    group's rate.
    """
    folder, moment = copy_of(trained_workspace, tmp_path_factory.mktemp("groups") / "shop"), [now() - 40 * DAY]
    begun, rng = moment[0], random.Random(5)
    counter = Counter(folder, FILE, lambda: moment[0])
    decisions, outcomes, happened = defaultdict[str, list[int]](list), dict[str, list[int]](), list[Event]()

    async def decide(unit: str) -> None:
        moment[0] += 1_000
        decisions[unit].append(moment[0])
        who = {"anonymous_id": unit[1:]} if unit.startswith("~") else {"customer_id": unit}
        group = (await counter.decide(**who)).group or USUAL
        if unit not in outcomes:
            outcomes[unit] = [moment[0] + DAY] if unit.startswith("c") and rng.random() < RATES[group] else []
            for at in outcomes[unit]:
                happened.append(
                    Event(f"o-{unit}", "accepted", from_microseconds(at), unit, offer_id="offer-01", value=10.0)
                )

    async def live() -> None:
        for number in range(VISITORS):
            await decide(f"~v{number}")
        for number in range(UNITS):
            moment[0] = begun + DAY // 2 + number * (4 * DAY) // UNITS
            await decide(f"c{number}")
        moment[0] = begun + 5 * DAY
        for number in range(VISITORS):
            await counter.identify(f"v{number}", f"l{number}")
            await decide(f"l{number}")
        for number in range(0, UNITS, 3):
            await decide(f"c{number}")

    asyncio.run(live())
    counter.log.append([event_item(event, time_of(event)) for event in happened])
    counter.close()
    ship(counter.workspace)
    return Lived(counter.workspace, begun, decisions, outcomes)


def by_hand(lived: Lived, since: int) -> dict[str, tuple[int, int]]:
    """Of each group, units and conversions in a window after their first decision from a moment on."""
    assigner, found = Assigner.of(experiments_in(lived.workspace)), dict.fromkeys(NAMES, (0, 0))
    for unit, times in lived.decisions.items():
        later = [at for at in times if at >= since]
        if later:
            group = assigner.group(Units("", unit[1:]) if unit.startswith("~") else Units(unit)).name or USUAL
            did = any(later[0] <= at < later[0] + 7 * DAY for at in lived.outcomes[unit])
            found[group] = (found[group][0] + 1, found[group][1] + did)
    return found


@pytest.mark.parametrize("days", [None, 3])
def test_a_desk_that_decides_is_reported_as_it_was(lived: Lived, days: int | None) -> None:
    """Units, conversions and split are those of a loop, over all time and over a period; who logged in is of two units,
    each of its group.
    """
    since = None if days is None else lived.begun + days * DAY
    found = groups_on(lived.workspace, ReportQuery(window="7d", since=since), PLAIN, now())
    expected = by_hand(lived, since or 0)
    assert {one.arm: (one.units, one.conversions) for one in found.groups} == expected
    assert sum(count for count, _ in expected.values()) == len(
        [1 for times in lived.decisions.values() if times[-1] >= (since or 0)]
    )
    assert not found.split.alarm and found.split.several == 0
    for one in found.groups:
        assert found.split.expected[NAMES.index(one.arm)] == pytest.approx(one.share * sum(found.split.units), rel=1e-6)
    lifts = {part.group: next(goal for goal in part.goals if goal.metric == "conversion") for part in found.parts}
    for group, goal in lifts.items():
        (units, converted), (count, conversions) = expected[USUAL], expected[group]
        assert goal.lift == pytest.approx(rate_lift(converted, units, conversions, count).lift)
    if days is None:
        assert lifts["holdout"].verdict == "higher" and lifts["eligibility_only"].verdict == "no difference shown"


def test_the_verb_says_it_draws_it_and_keeps_it(lived: Lived, tmp_path: Path) -> None:
    """The command line gives the report as a document, pictures and a run; for people the split comes first, then what
    each part is worth.
    """
    words = ["experiment", "groups", "-w", str(lived.workspace.folder), "--window", "7d", "--correction", "none"]
    done = CliRunner().invoke(app, [*words, "--json", "--plots", str(tmp_path), "--until", rfc3339(now())])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    expected = by_hand(lived, 0)
    assert {one["arm"]: (one["units"], one["conversions"]) for one in told["groups"]} == expected
    assert {part["group"]: part["worth"] for part in told["parts"]} == WORTH
    assert {"units.png", "lift_conversion.png"} <= {
        file.name for file in tmp_path.iterdir()
    } and "recorded in MLflow as run" in done.stderr
    said = CliRunner().invoke(app, [*words, "--no-record", "--fixed"], env={"COLUMNS": "240"}).stdout
    assert said.startswith("decided as usual (always)") and "the split fits" in said.splitlines()[0]
    assert all(f"{worth} " in said for worth in WORTH.values()) and "(decides)" in said
    assert "Nothing was recorded of: " in said


def test_tables_show_every_part_and_an_alarm(capsys: pytest.CaptureFixture[str]) -> None:
    """Each goal of each part is a row; where units were lost on the way, that stands first."""
    rows = made_up(3, 1_500)
    rows["exposures"] = [row for row in rows["exposures"] if row["arm"] != "no_levers" or hash_of(row) % 4 == 0]
    asked = question(experiment=GROUPS, arms=NAMES, control=USUAL)
    found: GroupsReport = groups_report(read(lake_of(rows), asked), asked, SHARES, PLAIN)
    tables = {title.split(";")[0].split(":")[0]: body for title, _, body, _ in sections(found)}
    assert len(tables["Groups"]) == len(NAMES) and len(tables["What each part is worth"]) == sum(
        len(part.goals) for part in found.parts
    )
    print_groups(found)
    assert capsys.readouterr().out.startswith(" SAMPLE-RATIO MISMATCH ") and found.split.alarm
    assert {goal.arm for goal in as_experiment(found).goals} == set(WORTH)


def hash_of(row: dict[str, Any]) -> int:
    """Any draw that is the same in every process."""
    return int(row["customer_id"][1:]) // 2


def test_without_groups_there_is_no_report(tmp_path: Path) -> None:
    """No group in file and lake, groups that nobody was decided for, and words that are none, are told with the way
    out.
    """
    folder = make_workspace(tmp_path / "w", customers=4, decisions=1)
    with pytest.raises(NoGroups, match="`holdout` or `control_groups` in experiments.yaml, got neither"):
        groups_on(load(folder), ReportQuery(), PLAIN, now())
    (folder / "experiments.yaml").write_text(yaml.safe_dump(FILE))
    with pytest.raises(
        NoGroups, match=r"got none between --since and --until: they are recorded from the first decision"
    ):
        groups_on(load(folder), ReportQuery(since=now() - MICROSECONDS), PLAIN, now())
    for words in (["--window", "1y"], ["--since", "yesterday"], ["--correction", "magic"]):
        assert CliRunner().invoke(app, ["experiment", "groups", "-w", str(folder), *words]).exit_code == 2

"""Estimators of experiments give the golden figures of other people's packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.statistics.inference import (
    MetricColumns,
    compare,
    sequential_p,
)
from tests.pipelines.estimates import rate_lift, summary_of

GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "inference" / "golden.json").read_text())
MEAN, RATIO, CUPED = MetricColumns(0), MetricColumns(0, 1), MetricColumns(0, covariate=1)


@pytest.mark.parametrize("case", GOLDEN["tea_tasting"], ids=lambda case: case["name"])
def test_estimates_are_those_of_tea_tasting(case: dict[str, Any]) -> None:
    """Means, ratios and CUPED, their intervals and P agree with the package tea-tasting."""
    measure = MetricColumns(**case["measure"])
    found = compare(summary_of(case["treated"]), summary_of(case["control"]), measure)
    got = [found.control, found.treated, found.difference, *found.difference_fixed, found.lift, found.p]
    assert [float(one) for one in got] == pytest.approx(case["expected"], rel=1e-9)


@pytest.mark.parametrize("case", GOLDEN["gbstats"], ids=lambda case: case["name"])
def test_sequential_intervals_are_those_of_growthbook(case: dict[str, Any]) -> None:
    """Sequential and fixed intervals and P of difference and lift agree with GrowthBook's package gbstats."""
    found = compare(summary_of(case["treated"]), summary_of(case["control"]), MEAN)
    fixed, sequential = found.difference_fixed, found.difference_sequential
    got = [*fixed, found.p, *sequential, found.p_sequential, found.lift, *found.lift_sequential]
    assert [float(one) for one in got] == pytest.approx(case["expected"], rel=1e-9)
    again = sequential_p(found.difference, found.difference_error, found.units)
    assert float(again) == float(found.p_sequential)


@pytest.mark.parametrize("case", GOLDEN["pdstools"], ids=lambda case: case["name"])
def test_lift_of_control_groups_is_that_of_pdstools(case: dict[str, Any]) -> None:
    """Lift over a control group and its standard error agree with the package pdstools, and with what `compare` says of
    the same units.
    """
    found = rate_lift(*case["counts"])
    assert list(found) == pytest.approx(case["expected"], rel=1e-9)
    arms = [np.arange(units)[:, None] < successes for successes, units in (case["counts"][:2], case["counts"][2:])]
    same = compare(summary_of(arms[0]), summary_of(arms[1]), MEAN)
    assert [float(same.lift), float(same.lift_error)] == pytest.approx(case["expected"], rel=2e-3)

"""Whether running experiments have the units that their splits give them: looked at again and again, for metrics and
whoever else asks.

The test holds at all looks together (`pipelines.statistics.sample_ratio.mismatch_p_sequential`): the report's own holds
for one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import duckdb
import msgspec

from features.common.files import write_whole
from features.common.moments import Micros
from features.lake import lake
from features.workspace.experiments import ReadExperiment
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import ReportQuery, experiments_in, question_of, status_at
from pipelines.experiments.cohort import NoExposures, drawn_in, show_units
from pipelines.experiments.split import held_against
from pipelines.statistics.sample_ratio import MISMATCH_P, mismatch_p_sequential
from pipelines.statistics.summaries import Floats
from serving.api.split_metrics import FILE, SplitMetric, Splits

logger = logging.getLogger("opportune.splits")


def splits_of(workspace: Workspace, experiments: Sequence[ReadExperiment], now: Micros) -> list[SplitMetric]:
    """Return the split of each experiment that runs and was exposed to somebody, as the lake knows it now.

    Args:
        now: microseconds since 1970.
    """
    found = []
    con = lake.connect(workspace)
    try:
        for one in experiments:
            if status_at(one, now) != "running":
                continue
            show_units(con, workspace, one.entry.unit)
            shares = one.split.shares if any(one.split.shares) else (1 / len(one.arms),) * len(one.arms)
            try:
                drawn = drawn_in(con, question_of(workspace, one, ReportQuery(open_windows=True), now))
            except NoExposures:
                continue
            if not drawn:
                continue
            counts, expected = held_against(drawn, shares)
            units = tuple(int(count) for count in counts)
            found.append(
                SplitMetric(
                    one.key, one.arms, units, tuple(map(float, expected)), p := _p(counts, expected), p < MISMATCH_P
                )
            )
    finally:
        con.close()
    return found


def _p(counts: Floats, expected: Floats) -> float:
    """An arm that expects nobody and has somebody is a mismatch for sure."""
    is_open = expected > 0
    if counts[~is_open].any():
        return 0.0
    return float(mismatch_p_sequential(counts[is_open], expected[is_open])) if is_open.sum() > 1 else 1.0


def watch(workspace: Workspace, now: Micros) -> None:
    """Look, and write down for the servers what was found; for the background worker."""
    try:
        splits = splits_of(workspace, experiments_in(workspace).experiments, now)
    except duckdb.Error as error:  # a file of the lake that is being replaced: the next look is soon
        logger.warning("the splits of experiments could not be looked at: %s", error)
        return
    write_whole(workspace.data / FILE, msgspec.json.encode(Splits(now, tuple(splits))))

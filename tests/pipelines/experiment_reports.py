"""Reports of experiments on rows made for a test, and exposures that were lost."""

from __future__ import annotations

from typing import Any

from pipelines.experiments.cohort import Question
from pipelines.experiments.data import read
from pipelines.experiments.report import ExperimentReport, ReportSettings, Subject
from pipelines.experiments.verdicts import report_of
from tests.pipelines.experiment_lakes import Rows, lake_of, question

SUBJECT = Subject(status="running", shares=(0.5, 0.5))


def report(rows: Rows, asked: Question | None = None, subject: Subject = SUBJECT, **settings: Any) -> ExperimentReport:
    """Of rows in a made-up lake."""
    asked = asked or question()
    return report_of(read(lake_of(rows), asked), asked, subject, ReportSettings(**settings))


def hash_of(who: str) -> int:
    """Any split that is the same in every process."""
    return int(who[1:])


def lossy(rows: Rows, lost: Any) -> Rows:
    """Without the exposures that were lost on the way."""
    return rows | {"exposures": [row for row in rows["exposures"] if not lost(row)]}


def everywhere(row: dict[str, Any]) -> bool:
    """A seventh of one arm."""
    return row["arm"] == "louder" and hash_of(row["customer_id"]) % 7 == 0

"""Broken splits alarm with their causes, and what is no mismatch does not."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.experiments.data import BOT_EXPOSURES
from pipelines.experiments.output.tables import headlines
from tests.pipelines.experiment_lakes import ARMS, DAY, START, exposure, made
from tests.pipelines.experiment_reports import everywhere, hash_of, lossy, report


def only_in_the_shop(row: dict[str, Any]) -> bool:
    """Half of one arm in one channel."""
    return row["arm"] == "louder" and row["channel"] == "shop" and hash_of(row["customer_id"]) % 2 == 0


def on_some_days(row: dict[str, Any]) -> bool:
    """All of one arm on five days."""
    return row["arm"] == "louder" and START + 9 * DAY <= row["time"] < START + 14 * DAY


@pytest.mark.parametrize(
    ("lost", "cause"),
    [
        (only_in_the_shop, "only channel shop ("),
        (everywhere, "exposures of louder are missing: -"),
        (on_some_days, "only day 2026-10-10 ("),
    ],
)
def test_a_broken_split_alarms_with_its_cause(lost: Any, cause: str) -> None:
    """Exposures that are lost in one arm raise the alarm, and the cause says where."""
    assert not report(made(6)).split.alarm
    found = report(lossy(made(6), lost))
    assert found.split.alarm and found.split.p < 0.001
    assert any(cause in one for one in found.split.causes), found.split.causes
    assert "does not fit" in next(iter(headlines(found)))


def test_bots_and_lost_events_are_causes() -> None:
    """Units that are exposed hundreds of times, and arms of which nothing is heard, are told as causes."""
    rows = made(7, units=800)
    for number in range(120):
        rows["exposures"] += [
            exposure(f"c{number + 10_000}", START + number * 1000 + again, "louder")
            for again in range(BOT_EXPOSURES + 1)
        ]
    assert any("bots" in cause for cause in report(rows).split.causes)
    lost = lossy(made(7), everywhere)
    lost["impressions"] = [row for row in lost["impressions"] if hash_of(row["customer_id"]) % 3]
    silent = {
        row["customer_id"] for row in lost["exposures"] if row["arm"] == "louder" and hash_of(row["customer_id"]) % 2
    }
    for name in ("impressions", "outcomes"):
        lost[name] = [row for row in lost[name] if row["customer_id"] not in silent]
    assert any("lost events in one arm" in cause for cause in report(lost).split.causes)


def test_a_split_that_changed_is_no_mismatch() -> None:
    """Units are held against the split of their day; that it changed is told, and the day of the change is not
    tested.
    """
    before, after = made(8, units=3_000, shares=(0.9, 0.1), days=10), made(9, units=3_000, days=20)
    moved = [
        row | {"customer_id": f"c{hash_of(row['customer_id']) + 100_000}", "time": row["time"] + 9 * DAY}
        for row in after["exposures"]
    ]
    found = report(before | {"exposures": before["exposures"] + moved})
    assert found.split.changed and not found.split.alarm
    assert any("the split changed over time; 1 days" in warning for warning in found.split.warnings)
    blind = [row | {"probability": None} for row in (*before["exposures"], *moved)]
    assert report(before | {"exposures": blind}).split.alarm


def test_units_in_two_arms_are_left_out_and_told() -> None:
    """Who was seen in both arms is in no figure; the share is said, loudly beyond one in a hundred."""
    rows = made(10)
    switched = rows["exposures"][::50]
    other = {ARMS[0]: ARMS[1], ARMS[1]: ARMS[0]}
    rows["exposures"] = rows["exposures"] + [
        row | {"time": row["time"] + DAY, "arm": other[row["arm"]]} for row in switched
    ]
    found = report(rows)
    assert found.split.several == len(switched) == 120
    assert sum(arm.units for arm in found.arms) == 6_000 - 120
    assert any(
        "120 units (2.00%) were seen in two arms" in warning and "more than" in warning
        for warning in found.split.warnings
    )

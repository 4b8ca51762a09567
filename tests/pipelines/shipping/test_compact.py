"""Merging and retention: readers see every row once at any moment, wherever it is killed, and nothing goes too
early.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, to_microseconds
from features.common.timestamps import now as clock
from features.events.journal import Line
from features.events.log import counts, event_folder
from features.lake import lake
from features.lake.files import EXPIRED, is_imported
from features.lake.tables import tables_of
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.shipping.compact import FILES_MANY, GRACE_SECONDS, compact, day_folders
from pipelines.shipping.retention import retain
from pipelines.shipping.ship import ship
from tests.pipelines.loops import (
    START,
    KillAt,
    Killed,
    copy_of,
    events,
    expected,
    in_lake,
    line,
    log_events,
    workspace_in,
    write_lines,
)
from tests.serving.journal_lines import until

NOW = to_microseconds(START + timedelta(days=2))
LATER = NOW + (GRACE_SECONDS + 1) * MICROSECONDS
DAY = DAY_SECONDS * MICROSECONDS


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Line]]:
    """A workspace whose lake has many small files in each of two days."""
    workspace = workspace_in(tmp_path_factory.mktemp("shipped") / "w")
    lines = []
    for number in range(2 * FILES_MANY + 6):
        lines.append(line(number))
        write_lines(workspace, "a", lines[-1:], ".open")
        ship(workspace)
    return workspace, lines


def files(workspace: Workspace) -> int:
    return len(list(workspace.lake.rglob("*.parquet")))


def test_merged_files_hold_the_same_rows(shipped: Any, tmp_path: Path) -> None:
    """Many files become one a table and day; the replaced ones stay for the readers of a while ago, then go."""
    found, lines = copy_of(shipped[0], tmp_path / "w"), shipped[1]
    before = files(found)
    compacted = compact(found, NOW)
    assert compacted.made >= 2 and compacted.merged >= 2 * FILES_MANY and compacted.removed == 0
    assert in_lake(found) == expected(lines, []) and files(found) == before + compacted.made
    assert compact(found, NOW) == (0, 0, 0)
    assert compact(found, LATER).removed == compacted.merged
    assert in_lake(found) == expected(lines, []) and files(found) == before + compacted.made - compacted.merged


def test_merged_files_are_merged_again_when_others_have_grown(shipped: Any, tmp_path: Path) -> None:
    """Round after round of shipping and merging: every row once, and in the end few files."""
    found, lines = copy_of(shipped[0], tmp_path / "w"), list(shipped[1])
    now = NOW
    for number in range(4 * FILES_MANY):
        lines.append(line(number + 1000, at=lines[0].at))
        write_lines(found, "b", lines[-1:], ".open")
        ship(found)
        if number % 7 == 0:
            now += GRACE_SECONDS * MICROSECONDS
            compact(found, now)
    assert in_lake(found) == expected(lines, [])
    for moment in (now + 2 * GRACE_SECONDS * MICROSECONDS, now + 4 * GRACE_SECONDS * MICROSECONDS):
        compact(found, moment)
    assert in_lake(found) == expected(lines, [])
    assert max(len(list(folder.iterdir())) for folder in day_folders(found.lake)) < 3 * FILES_MANY


@pytest.mark.slow
def test_wherever_merging_is_killed_every_row_is_there_once(shipped: Any, tmp_path: Path) -> None:
    """Ended before any of its steps, at once and after the next run, also when a shipment was under way before."""
    workspace, lines = shipped
    step = KillAt(None)
    whole = copy_of(workspace, tmp_path / "whole")
    compact(whole, NOW, step)
    merging = len(step.taken)
    compact(whole, LATER, step)
    assert merging >= 6 and len(step.taken) > merging + 2 * FILES_MANY
    for number in [*range(merging), *range(merging, len(step.taken), 9)]:
        found = copy_of(workspace, tmp_path / f"killed-{number}")
        killing = KillAt(number)
        with pytest.raises(Killed):
            for moment in (NOW, LATER):
                compact(found, moment, killing)
        assert in_lake(found) == expected(lines, []), number
        write_lines(found, "z", [line(5000)], ".open")
        with pytest.raises(Killed):
            ship(found, step=KillAt(3))
        compact(found, LATER)
        ship(found)
        assert in_lake(found) == expected([*lines, line(5000)], []), number


def test_readers_see_every_row_once_while_files_are_merged(shipped: Any, tmp_path: Path) -> None:
    """A reader that lists and reads all the time never finds a row twice or missing."""
    found, lines = copy_of(shipped[0], tmp_path / "w"), shipped[1]
    wanted, seen, done = expected(lines, []), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(in_lake(found) == wanted)

    def step(what: str) -> None:
        if not what.startswith("remove"):  # of these there are many
            reads = len(seen)
            assert until(lambda: len(seen) > reads, 60)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for moment in (NOW, LATER, LATER + DAY):
            compact(found, moment, step)
    finally:
        done.set()
        reader.join()
    assert len(seen) >= 6 and all(seen)


def test_imported_files_are_left_alone(tmp_path: Path) -> None:
    """Shipments and merging change neither the files that imports brought nor what an import knows of them."""
    from pipelines.materialize import steps

    workspace = workspace_in(tmp_path / "w")
    steps.import_tables(workspace, clock())
    before, digest = _imported(workspace), steps.lake_digest(workspace)
    for number in range(FILES_MANY):
        write_lines(workspace, "a", [line(number, at=line(0).at)], ".open")
        ship(workspace)
    log_events(workspace, events(0, 14))
    ship(workspace)
    assert compact(workspace, NOW).made
    assert _imported(workspace) == before and steps.lake_digest(workspace) == digest
    reports = steps.import_tables(workspace, clock())
    assert sum(report.read for report in reports) == sum(report.duplicate for report in reports) > 0
    assert _imported(workspace) == before


def _imported(workspace: Workspace) -> dict[str, list[str]]:
    names = {
        name: [file.name for file in lake.imported_files(workspace, table)]
        for name, table in tables_of(workspace).items()
    }
    assert (
        all(is_imported(Path(file)) for group in names.values() for file in group) and sum(map(len, names.values())) > 5
    )
    return names


def test_what_is_kept_long_enough_goes(tmp_path: Path) -> None:
    """Days beyond their table's retention are hidden, then removed; shipped journal files and recognised events go when
    they are old.
    """
    workspace = workspace_in(tmp_path / "w", retention={"decisions": "2d", "journal": "3d", "streams": {"calls": "3d"}})
    lines = [line(0), line(100), line(300)]  # of 20, 21 and 22 November
    sealed, unshipped = write_lines(workspace, "a", lines), write_lines(workspace, "b", [line(301)])
    log_events(workspace, events(0, 14))
    end = to_microseconds(START + timedelta(hours=1))  # the first moment of the 21st
    assert retain(workspace, end + 4 * DAY).journal_files == 0  # nothing was shipped
    unshipped.rename(aside := workspace.folder / "aside")
    ship(workspace)
    aside.rename(unshipped)
    for file in (sealed, unshipped):
        os.utime(file, (0, 0))
    assert retain(workspace, end + 2 * DAY - MICROSECONDS)[:2] == (0, 1)  # the last moment of its two days
    assert not sealed.exists() and unshipped.exists()
    before = in_lake(workspace)
    retained = retain(workspace, end + 2 * DAY)
    assert retained.days == 1
    left = in_lake(workspace)
    assert {row[:2] for row in before - left} == {("decisions", lines[0].decision_id)}
    hidden = next(workspace.lake.rglob(EXPIRED)).parent
    assert list(hidden.glob("*.parquet"))
    retain(workspace, end + 2 * DAY + (GRACE_SECONDS + 1) * MICROSECONDS)
    assert not hidden.exists() and in_lake(workspace) == left
    assert retain(load(workspace.folder), end + 4 * DAY).days == 3  # two days of decisions, and the first of calls


def test_events_stay_in_the_log_until_they_are_shipped(tmp_path: Path) -> None:
    """Beyond the time for which their ids are recognised they go, and not before they are in the lake."""
    workspace = workspace_in(tmp_path / "w")
    log_events(workspace, events(0, 7))
    much_later = clock() + 15 * DAY
    assert retain(workspace, much_later).events == 0
    ship(workspace)
    assert retain(workspace, clock() + 13 * DAY).events == 0
    assert retain(workspace, much_later).events == 7
    assert counts(event_folder(workspace.data)).stored == 7
    ship(workspace)
    assert in_lake(workspace) == expected([], events(0, 7))

"""`opportune import`: what is stored, what is a duplicate, and what a crash leaves."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from features.common import clock
from features.common.timestamps import parse_moment, to_microseconds
from features.validation.load import load
from features.workspace import timeline
from pipelines.importing import import_files
from pipelines.importing.import_files import BadTable, import_all
from tests.tiny_workspaces import CUSTOMER, DECISION, FEATURES, MOVE, NOW, ROWS, TABLES, bank, one, only, stored, write
from tests.workspaces import make_workspace

ROOT = Path(__file__).resolve().parents[3]


def test_the_same_again_is_a_duplicate(tmp_path: Path) -> None:
    """A second import stores nothing, whether it recognizes the files, the rows alone, or a newer import between."""
    folder = tmp_path / "w"
    sources = {
        table: write(folder / f"{table}.csv", [row, row | {"customer_id": "c2"} if "customer_id" in row else row])
        for table, row in ROWS.items()
    }
    workspace = bank(folder, sources)
    first = import_all(workspace, NOW)
    before = {table: stored(workspace, table) for table in TABLES}
    again = import_all(workspace, NOW)
    shutil.rmtree(workspace.data / "imports")  # no memory of what was imported: only the rows tell
    third = import_all(workspace, NOW)
    for reports in (again, third):
        assert all(report.stored == 0 and report.conserved for report in reports)
        assert [report.read for report in reports] == [report.read for report in first]
    assert before == {table: stored(workspace, table) for table in TABLES}


def test_overlapping_files_count_each_event_once(tmp_path: Path) -> None:
    """Days 1 to 3, then 2 to 4, one after the other or as two files of a folder: four days; two equal events of a file
    stay two.
    """
    days = [MOVE | {"time": f"2026-06-0{day}"} for day in range(1, 5)]
    folder = tmp_path / "turns"
    write(folder / "a.csv", [*days[:3], days[0]])
    workspace = bank(folder, {"streams.moves": "a.csv"})
    assert only(import_all(workspace, NOW), "streams.moves").stored == 4
    write(folder / "a.csv", [*days[1:], days[0], days[0], days[0]])
    report = only(import_all(workspace, NOW), "streams.moves")
    assert (report.stored, report.duplicate) == (
        2,
        4,
    )  # one day is new, and the first day's event now occurs a third time
    write(tmp_path / "w" / "moves" / "1.csv", [*days[:3], days[0]])
    write(tmp_path / "w" / "moves" / "2.csv", [*days[1:], days[0], days[0], days[0]])
    together = bank(tmp_path / "w", {"streams.moves": "moves/*.csv"})
    report = only(import_all(together, NOW), "streams.moves")
    assert (report.read, report.stored, report.duplicate) == (10, 6, 4)
    assert stored(together, "streams.moves") == stored(workspace, "streams.moves")


def test_a_changed_attribute_is_a_new_version(tmp_path: Path) -> None:
    """The same key with another content replaces the older; going back to the first is a change again; the last row of
    a file wins.
    """
    folder = tmp_path / "w"
    workspace = bank(folder, {"customers": write(folder / "c.csv", [CUSTOMER | {"city": "Wien"}])})
    cities = []
    for city in ("Wien", "Graz", "Wien", "Wien"):
        write(folder / "c.csv", [CUSTOMER | {"city": "Linz"}, CUSTOMER | {"city": city}])
        report = only(import_all(workspace, NOW), "customers")
        cities.append((stored(workspace, "customers")[0][2], report.stored, report.duplicate))
    assert cities == [("Wien", 1, 1), ("Graz", 1, 1), ("Wien", 1, 1), ("Wien", 0, 2)]


def test_a_decision_that_says_something_else_is_refused(tmp_path: Path) -> None:
    """A decision's offer was shown in one context: another row of it is a duplicate or a contradiction, in a file and
    across.
    """
    folder = tmp_path / "w"
    other = "another row with the same `decision_id` and `offer_id` says something else"
    rows = [
        DECISION | {"channel": "app"},
        DECISION | {"channel": "web"},
        DECISION | {"channel": "app"},
        DECISION | {"offer_id": "o2"},
    ]
    workspace = bank(folder, {"decisions": write(folder / "d.csv", rows)})
    report = only(import_all(workspace, NOW), "decisions")
    assert (report.stored, report.duplicate, report.refused) == (2, 1, {other: 1})
    write(
        folder / "d.csv",
        [
            DECISION | {"channel": "shop"},
            DECISION | {"channel": "app"},
            DECISION | {"offer_id": "o3", "channel": "app"},
        ],
    )
    report = only(import_all(workspace, NOW), "decisions")
    assert (report.stored, report.duplicate, report.refused) == (1, 1, {other: 1})
    assert [row[6] for row in stored(workspace, "decisions")] == ["app", None, "app"]


def test_rows_of_the_future_are_stored_when_their_time_has_come(tmp_path: Path) -> None:
    """A refused row is looked at again by the next import of the same file."""
    workspace, report = one(tmp_path, "streams.moves", [MOVE | {"time": "2026-06-16"}])
    assert report.refused == {"`time` is in the future": 1}
    later = only(import_all(workspace, NOW + 86_400_000_000), "streams.moves")
    assert (later.stored, later.refused) == (1, {})


@pytest.mark.parametrize("table", ["streams.moves", "decisions"])
def test_a_column_declared_later_does_not_double_the_rows(tmp_path: Path, table: str) -> None:
    """Rows that the lake has without a new column are not stored beside themselves: the message says what to remove."""
    folder = tmp_path / "w"
    rows = [ROWS[table] | {"extra": "x", "time": f"2026-06-0{day}", "decision_id": f"d{day}"} for day in range(1, 4)]
    sources = {table: write(folder / "rows.csv", rows)}
    report = only(import_all(bank(folder, sources), NOW), table)
    assert "extra" in report.ignored
    more: dict[str, Any] = {"streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "extra"]}}}
    if table == "decisions":
        more = {"context": FEATURES["context"] | {"extra": {"dtype": "category"}}}
    richer = bank(folder, sources, features=more)
    with pytest.raises(BadTable, match="got 3 that it has without extra, which were declared later. Remove .*lake"):
        import_all(richer, NOW)
    write(folder / "rows.csv", [ROWS[table] | {"extra": "y", "time": "2026-06-05", "decision_id": "d5"}])
    assert only(import_all(richer, NOW), table).stored == 1  # what is new anyway may have it
    shutil.rmtree(richer.lake / import_files.tables_of(richer)[table].folder)
    write(folder / "rows.csv", rows)
    assert only(import_all(richer, NOW), table).stored == 3


def test_a_type_declared_anew_reads_what_fits(tmp_path: Path) -> None:
    """A category that becomes a number: what is stored is read as numbers, and the rest is missing."""
    folder = tmp_path / "w"
    sources = {
        "customers": write(
            folder / "c.csv", [CUSTOMER | {"city": "12"}, CUSTOMER | {"customer_id": "c2", "city": "Graz"}]
        )
    }
    import_all(bank(folder, sources), NOW)
    number = {"customer": {"attributes": {"city": {"dtype": "number"}}}}
    assert [row[2] for row in stored(bank(folder, sources, features=number), "customers")] == [12.0, None]


def test_demo_data_is_moved_by_whole_weeks_once(tmp_path: Path) -> None:
    """The source's now comes to lie within the last week; weekdays stay; a later import lands on the same offset."""
    folder = tmp_path / "w"
    name = write(folder / "m.csv", [MOVE | {"time": "2017-03-03T10:00:00Z"}])
    born = {"customers": write(folder / "c.csv", [CUSTOMER | {"valid_from": "2017-01-01", "born": "1980-02-03"}])}
    workspace = bank(folder, born | {"streams.moves": name}, demo="2018-01-01")
    import_all(workspace, NOW)
    moved = timeline.recorded(workspace)
    assert moved is not None
    week = timedelta(weeks=1)
    shift = timedelta(microseconds=moved.offset)
    assert shift % week == timedelta(0)
    assert (
        timedelta(0)
        <= timedelta(microseconds=NOW) - (timedelta(microseconds=parse_moment("2018-01-01")) + shift)
        < week
    )
    time = stored(workspace, "streams.moves")[0][1]
    source = datetime(2017, 3, 3, 10, tzinfo=UTC)
    assert (time - shift, time.weekday()) == (source, source.weekday())
    assert stored(workspace, "customers")[0][6] == datetime(1980, 2, 3, tzinfo=UTC) + shift  # so that nobody ages
    later = NOW + 40 * 86_400_000_000
    write(folder / "m.csv", [MOVE | {"time": "2017-03-03T10:00:00Z"}, MOVE | {"time": "2017-12-31"}])
    report = only(import_all(workspace, later), "streams.moves")
    assert (report.stored, report.duplicate) == (1, 1)
    assert timeline.recorded(workspace) == moved
    assert timeline.shown(moved, to_microseconds(time)).startswith("2017-03-03T10:00:00Z (moved to 20")
    assert json.loads((workspace.data / "imports.json").read_text())["offset_weeks"] == moved.weeks


def test_real_data_is_not_moved(tmp_path: Path) -> None:
    """Without `demo` times are what they are."""
    workspace, _ = one(tmp_path, "streams.moves", [MOVE])
    assert timeline.recorded(workspace) == timeline.Timeline(0)
    assert timeline.shown(timeline.Timeline(0), NOW) == "2026-06-15T12:00:00Z"


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    """Read = stored + duplicate + refused, over random rows of which many are bad, double or contradict each other."""
    chance = random.Random(7)
    choices = {
        "decision_id": ["d1", "d2", "", "d 3"],
        "offer_id": ["o1", "o2", ""],
        "time": ["2026-06-01", "x", ""],
        "channel": ["app", "web", ""],
    }
    rows = [DECISION | {name: chance.choice(values) for name, values in choices.items()} for _ in range(400)]
    workspace, report = one(tmp_path, "decisions", rows)
    assert report.read == 400
    assert min(report.stored, report.duplicate, len(report.refused)) > 2
    assert len(stored(workspace, "decisions")) == report.stored
    moves = [
        MOVE | {"time": chance.choice(["2026-06-01", "2026-06-02", "z"]), "amount": chance.choice(["1", "2", "inf"])}
        for _ in range(400)
    ]
    workspace, report = one(tmp_path / "moves", "streams.moves", moves)
    good = Counter((row["time"], row["amount"]) for row in moves if row["time"] != "z" and row["amount"] != "inf")
    assert (report.read, report.stored, len(stored(workspace, "streams.moves"))) == (400, good.total(), good.total())


KILLED = """
import sys
from pathlib import Path
from features.validation.load import load
from pipelines.importing.import_files import import_all
print("ready", flush=True)
sys.stdin.readline()
import_all(load(Path(sys.argv[1])), int(sys.argv[2]))
"""


def test_a_killed_import_is_mended_by_the_next(tmp_path: Path) -> None:
    """Killed at random moments and then repeated, an import leaves the very rows that a clean one does."""
    now = clock.now_us()
    folder = make_workspace(tmp_path / "w", customers=20, decisions=2, days=12)
    workspace = load(folder)
    began = time.monotonic()
    import_all(workspace, now)
    took = time.monotonic() - began
    tables = [table.name for table in import_files.tables_of(workspace).values()]
    clean = {table: stored(workspace, table) for table in tables}
    chance, killed = random.Random(3), 0
    for _ in range(5):
        shutil.rmtree(workspace.data)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(now)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(chance.uniform(0.1, 1.1) * took)
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        import_all(workspace, now)
        assert {table: stored(workspace, table) for table in tables} == clean
        assert not list((workspace.data / "aside").iterdir())
    assert killed > 0

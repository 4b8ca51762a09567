"""The shipper: what journals and event log hold is in the lake, each row once, wherever it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.timestamps import MICROSECONDS, to_microseconds
from features.common.timestamps import now as clock
from features.common.types import Event
from features.events.journal import Line
from features.events.log import event_folder, read_all
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.shipping.backlog import waiting
from pipelines.shipping.journal_files import listed
from pipelines.shipping.ship import ShippingLimits, ship
from pipelines.shipping.state import loop_of, shipped_file, state_of
from tests.architecture.house import ROOT
from tests.pipelines.loops import (
    EVENTS,
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
from tests.waiting import LIMIT_S

SMALL = ShippingLimits(20, 20)
TORN = b"\xf7oj\n\0\0"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Line], list[Event]]:
    """A workspace with a sealed journal file, an open one with a torn end, and events of every kind over three days."""
    workspace = workspace_in(tmp_path_factory.mktemp("filled") / "w")
    lines, happened = [line(number) for number in range(20)], events(0, EVENTS * 2)
    write_lines(workspace, "a", lines[:14])
    write_lines(workspace, "b", lines[14:], ".open", TORN)
    log_events(workspace, happened)
    return workspace, lines, happened


def counted(workspace: Workspace) -> int:
    """How many steps a whole run takes."""
    step = KillAt(None)
    ship(workspace, step=step, limits=SMALL)
    return len(step.taken)


def test_each_row_is_shipped_once_wherever_it_is_killed(filled: Any, tmp_path: Path) -> None:
    """Ended before any of its steps, a second run leaves every row once; what came meanwhile is there too."""
    workspace, lines, happened = filled
    steps = counted(copy_of(workspace, tmp_path / "whole"))
    assert steps > 20
    for number in range(steps):
        found = copy_of(workspace, tmp_path / f"killed-{number}")
        with pytest.raises(Killed):
            ship(found, step=KillAt(number), limits=SMALL)
        assert not in_lake(found) - expected(lines, happened)  # some of it, nothing twice
        more = [line(100), line(101)]
        write_lines(found, "c", more)
        loop = ship(found, limits=SMALL)
        assert in_lake(found) == expected([*lines, *more], happened), number
        assert loop.rows_waiting == 0 and loop.shipped == state_of(found).rows
        assert sum(loop.shipped.values()) == sum(expected([*lines, *more], happened).values())


def test_a_second_kill_while_it_is_done_again_changes_nothing(filled: Any, tmp_path: Path) -> None:
    """Killed at one step, and again at each step of doing it again, every row is there once in the end."""
    workspace, lines, happened = filled
    first = copy_of(workspace, tmp_path / "first")
    with pytest.raises(Killed):
        ship(first, step=KillAt(12), limits=SMALL)
    for number in range(counted(copy_of(first, tmp_path / "whole"))):
        found = copy_of(first, tmp_path / f"again-{number}")
        with pytest.raises(Killed):
            ship(found, step=KillAt(number), limits=SMALL)
        ship(found)
        assert in_lake(found) == expected(lines, happened), number


def test_each_row_is_shipped_once_through_real_kills(tmp_path: Path) -> None:
    """A process that is killed with SIGKILL at step after step gets further each time, and no row is lost or
    doubled.
    """
    workspace = workspace_in(tmp_path / "w")
    lines, happened = [line(number) for number in range(6)], events(0, 7)
    write_lines(workspace, "a", lines)
    log_events(workspace, happened)
    killed = 0
    for number in (0, 2, 5, 9, 12, 10, 4, 13, 1, 99):
        program = [
            sys.executable,
            str(ROOT / "tests" / "pipelines" / "ship_killed.py"),
            str(workspace.folder),
            str(number),
            "ship",
            "0",
        ]
        done = subprocess.run(
            program,
            check=False,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        assert not in_lake(workspace) - expected(lines, happened)
    assert killed >= 4
    assert in_lake(workspace) == expected(lines, happened)


def test_a_shipment_that_is_done_again_writes_the_same_files(filled: Any, tmp_path: Path) -> None:
    """The same names with the same bytes, but for the moment of the import, which the intent holds too."""
    found = copy_of(filled[0], tmp_path / "w")
    with pytest.raises(Killed):
        ship(found, step=KillAt(len(_until_commit(filled[0], tmp_path))))
    before = {file: file.read_bytes() for file in found.lake.rglob("*.parquet")}
    assert before
    ship(found)
    assert {file: file.read_bytes() for file in found.lake.rglob("*.parquet")} == before


def _until_commit(workspace: Workspace, tmp_path: Path) -> list[str]:
    step = KillAt(None)
    ship(copy_of(workspace, tmp_path / "steps"), step=step)
    return step.taken[: step.taken.index("commit")]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["lines", "more", "seal", "damage", "events", "ship", "kill"]), max_size=12), st.data())
def test_any_order_of_writing_renaming_and_shipping(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str], data: st.DataObject
) -> None:
    """Files grow, are sealed or set aside between shipments: a byte offset by stem finds every decision once."""
    workspace = workspace_in(tmp_path_factory.mktemp("any") / "w")
    lines: list[Line] = []
    happened: list[Event] = []
    stems, current = 0, ""
    for act in acts:
        if act in ("lines", "more") and (act == "lines" or not current):
            stems, current = stems + 1, f"s{stems:02d}"
        if act in ("lines", "more"):
            fresh = [
                line(len(lines) + at, shown=data.draw(st.integers(0, 3))) for at in range(data.draw(st.integers(1, 4)))
            ]
            write_lines(workspace, current, fresh, ".open")
            lines += fresh
        elif act in ("seal", "damage") and current:
            file = write_lines(workspace, current, [], ".open", TORN)
            file.rename(file.with_suffix(".lines" if act == "seal" else ".damaged"))
            current = ""
        elif act == "events":
            fresh_events = events(len(happened), 3)
            log_events(workspace, fresh_events)
            happened += fresh_events
        elif act == "ship":
            ship(workspace, limits=ShippingLimits(3, 2))
        elif act == "kill":
            try:
                ship(workspace, step=KillAt(data.draw(st.integers(0, 12))), limits=ShippingLimits(3, 2))
            except Killed:
                pass
    ship(workspace)
    assert in_lake(workspace) == expected(lines, happened)
    assert waiting(workspace, state_of(workspace)).rows == 0


def test_what_waits_and_for_how_long(filled: Any, tmp_path: Path) -> None:
    """Before a run all of it waits, since the oldest decision; after it nothing, and `loop.json` tells of it."""
    workspace, lines, happened = filled
    found = copy_of(workspace, tmp_path / "w")
    before = waiting(found, state_of(found))
    assert before == (lines[0].at, len(lines) + len(happened))
    told: list[tuple[int, int]] = []
    loop = ship(found, lambda done, everything: told.append((done, everything)), limits=SMALL)
    assert loop == loop_of(found) and loop.lag_seconds > 0
    assert (loop.decisions, loop.events, loop.rows_waiting) == (len(lines), len(happened), 0)
    assert told[-1] == (before.rows, before.rows) and len(told) > 1
    again = ship(found)
    assert (again.decisions, again.events, again.rows, again.lag_seconds) == (0, 0, 0, 0.0)
    assert waiting(found, state_of(found)) == (None, 0)


def test_journal_files_that_vanish_before_they_are_shipped_are_counted(tmp_path: Path) -> None:
    """A file that was deleted for space counts with the bytes that nobody shipped; one that was shipped counts
    nothing.
    """
    workspace = workspace_in(tmp_path / "w")
    whole, part = write_lines(workspace, "a", [line(1)]), write_lines(workspace, "b", [line(2)], ".open")
    ship(workspace)
    shipped = part.stat().st_size
    with pytest.raises(Killed):  # seen, and not shipped: the disk of the lake may be full
        write_lines(workspace, "b", [line(3)], ".open")
        ship(workspace, step=KillAt(0))
    state = state_of(workspace)
    state.sizes[part.stem] = part.stat().st_size  # as a run that ended later would have noted
    shipped_file(workspace).write_bytes(msgspec.json.encode(state))
    lost = part.stat().st_size - shipped
    whole.unlink()
    part.unlink()
    assert ship(workspace).lost_bytes == lost > 0
    assert not state_of(workspace).journals and not listed(workspace.data / "journal")


def test_damage_within_a_file_is_passed_over_and_counted(tmp_path: Path) -> None:
    """Every whole frame is shipped, those behind the damage too; the bytes between are counted once."""
    workspace = workspace_in(tmp_path / "w")
    lines = [line(number) for number in range(6)]
    write_lines(workspace, "a", lines[:3], ".damaged", b"\0" * 777)
    write_lines(workspace, "a", lines[3:], ".damaged", b"\1" * 55)
    assert ship(workspace, limits=ShippingLimits(4, 4)).unreadable_bytes == 777 + 55
    assert in_lake(workspace) == expected(lines, [])
    assert ship(workspace).unreadable_bytes == 777 + 55


def test_a_lake_that_was_removed_is_shipped_again(filled: Any, tmp_path: Path) -> None:
    """The state goes with the lake, so that all that journals and log still have comes back, once."""
    found = copy_of(filled[0], tmp_path / "w")
    ship(found)
    for file in sorted(found.lake.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    ship(load(found.folder))
    assert in_lake(found) == expected(*filled[1:])


def test_features_are_computed_from_all_that_was_received_before_their_moment(tmp_path: Path) -> None:
    """The moment of a computation is the event log's barrier; what waits is shipped first, and counts in the
    windows.
    """
    workspace = workspace_in(tmp_path / "w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, clock())
        steps.compute_features(workspace, clock())
        log_events(workspace, [event for event in events(0, 14) if event.type == "calls"])
        assert steps.is_computed(workspace)
        before = clock()
        assert until(lambda: clock() // MICROSECONDS > before // MICROSECONDS)  # a moment is a whole second
        steps.compute_features(workspace, 0)  # the clock of the caller does not matter
    moment = steps.state_of(workspace).computed_at
    assert before <= moment <= clock() and steps.is_computed(workspace)
    received = [event.received for event in read_all(event_folder(workspace.data), 0)]
    assert received and max(received) < moment
    assert sum(in_lake(workspace).values()) == len(received)
    rows = pq.read_table(workspace.offline / "calls").to_pylist()
    now = {row["customer_id"]: row["calls_all"] for row in rows if to_microseconds(row["event_timestamp"]) == moment}
    assert (now["c0"], now["~a0"]) == (1.0, 1.0)  # a call of a customer, and one of an anonymous unit

"""Forgetting where nothing goes wrong: every place, everybody else, what is told later, and the proof."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import threading
import warnings
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from features.common import clock
from features.common.pseudonyms import SECRET, pseudonym
from features.common.timestamps import now, to_microseconds
from features.common.types import Event
from features.events.journal import Line, read_lines, write_frame
from features.events.journal_frames import HEAD_BYTES, damage, frames
from features.events.journal_redaction import blanked
from features.events.log import EventLog, counts, event_folder
from features.events.rows import event_item
from features.feature_store.erase import NULLED
from features.lake import lake
from features.online import erase as online_erase
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.erase import register
from pipelines.erasure.erase import BadId, forget, unit_named
from pipelines.erasure.journal import Journals, NotTurned
from pipelines.erasure.scan import scan
from pipelines.erasure.task import folder_of
from pipelines.importing.erased_rows import FORGOTTEN
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from pipelines.shipping.state import state_of
from serving.journal.files import OPEN, SEALED, JournalLimits
from serving.journal.journal import Journal
from tests.pipelines.erasure_cases import NOW, OTHER, PLACES, UNITS, VICTIM, VISITOR, build, content
from tests.pipelines.loops import copy_of, line
from tests.serving.journal_lines import until


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the victim stands everywhere; to be read only."""
    return build(tmp_path_factory.mktemp("forgetful") / "base")


@pytest.fixture
def workspace(base: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it."""
    return copy_of(base, tmp_path / "copy")


def test_everywhere(workspace: Workspace) -> None:
    """Something is found in each place, nothing is left in any, no file holds the id, and nobody else has lost a
    row.
    """
    before, hits = content(workspace), scan(workspace.data, UNITS)
    assert {Path(name).parts[0] for name in hits.where} >= {"events", "journal", "lake", "ledger", "online", "aside"}, (
        "the scan sees nothing"
    )
    done = forget(workspace, VICTIM)
    assert set(done.places) == set(PLACES)
    assert {name: counted.left for name, counted in done.places.items()} == dict.fromkeys(PLACES, 0)
    assert all(counted.found == counted.removed > 0 for counted in done.places.values())
    assert (done.done, done.units, done.proof.plaintext_hits, done.proof.where) == (True, 2, 0, [])
    assert done.proof.files >= hits.files
    assert content(workspace) == before
    said = msgspec.json.encode(done).decode()
    assert VICTIM not in said and VISITOR not in said
    assert not list(folder_of(workspace).glob("*.json"))


def test_again(workspace: Workspace) -> None:
    """Who was forgotten, or never known, is forgotten once more, with nothing to find."""
    forget(workspace, VICTIM)
    before = content(workspace)
    for unit in (VICTIM, "never-met"):
        done = forget(workspace, unit)
        assert done.done
        assert {counted.found for counted in done.places.values()} == {0}
    assert content(workspace) == before


def test_anonymous_alone(workspace: Workspace) -> None:
    """Of an anonymous id only what is its own is forgotten: the customer stays."""
    done = forget(workspace, f"~{VISITOR}")
    assert (done.done, done.units) == (True, 1)
    assert done.places["online"].found == 0
    assert scan(workspace.data, [VICTIM]).plaintext_hits > 0
    assert scan(workspace.data, [f"~{VISITOR}"]).plaintext_hits == 0


def test_late_events_are_dropped_and_counted(workspace: Workspace) -> None:
    """An event of before is a dead letter without body, one of later is a new customer's."""
    forget(workspace, VICTIM)
    before = counts(event_folder(workspace.data))
    late = Event(event_id="late", type="impression", occurred_at=NOW, customer_id=VICTIM)
    early = Event(event_id="new", type="impression", occurred_at=clock.now() + timedelta(minutes=1), customer_id=VICTIM)
    with closing(EventLog(event_folder(workspace.data))) as log:
        outcomes = [
            result.outcome
            for result in log.append([event_item(one, to_microseconds(one.occurred_at)) for one in (late, early)])
        ]
    assert outcomes == ["dead", "stored"]
    assert counts(event_folder(workspace.data)).dropped == before.dropped + 1


def test_the_business_files_do_not_bring_them_back(workspace: Workspace) -> None:
    """An import refuses rows of before the forgetting with a reason, and takes those of later."""
    forget(workspace, VICTIM)
    file = workspace.folder / "data" / "payments.csv"
    with file.open() as given:
        rows = list(csv.DictReader(given))
    theirs = [row for row in rows if row["customer_id"] == VICTIM]
    assert theirs, "the files have nothing of the victim"
    later = clock.now().isoformat()
    with file.open("w") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, theirs[0] | {"time": later}])
    payments = next(report for report in steps.import_tables(workspace, now()) if report.table == "streams.payments")
    assert payments.refused == {FORGOTTEN: len(theirs)}
    assert payments.conserved
    stored = [
        row
        for part in (workspace.lake / "streams" / "payments").glob("**/*.parquet")
        for row in pq.ParquetFile(part).read().to_pylist()
    ]
    assert len([row for row in stored if row["customer_id"] == VICTIM]) == 1


def test_command_line(workspace: Workspace) -> None:
    """The verb reads the id from standard input, answers with JSON that does not hold it, and refuses what is no id."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    run = CliRunner().invoke(app, ["forget", "-", "-w", str(workspace.folder), "--json"], input=f"{VICTIM}\n")
    assert run.exit_code == 0, run.output
    answer = json.loads(run.stdout)
    assert answer["done"] and answer["proof"]["plaintext_hits"] == 0
    assert VICTIM not in run.stdout
    for wrong in (["a b"], [], ["x", "--resume"]):
        assert CliRunner().invoke(app, ["forget", *wrong, "-w", str(workspace.folder)]).exit_code == 2
    assert "Nothing is left" in CliRunner().invoke(app, ["forget", "--resume", "-w", str(workspace.folder)]).stdout


def test_units() -> None:
    """An id is a customer's, or with its mark an anonymous one."""
    assert unit_named("c-1") == "c-1"
    assert unit_named("~c-1") == unit_named("c-1", anonymous=True) == unit_named("~c-1", anonymous=True) == "~c-1"
    for wrong in ("", "~", "~~a", "a b", "a" * 65, "a\n", "ä"):
        with pytest.raises(BadId):
            unit_named(wrong)


def test_pseudonyms(tmp_path: Path) -> None:
    """A pseudonym is the same each time and in each thread, another in another place, and its secret is its owner's
    alone.
    """
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(pseudonym(tmp_path / "one", VICTIM))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1 and len(made[0]) == 12
    assert pseudonym(tmp_path / "other", VICTIM) != made[0]
    assert os.stat(tmp_path / "one" / SECRET).st_mode & 0o777 == 0o600
    assert [file.name for file in (tmp_path / "one").iterdir()] == [SECRET]


@given(
    st.lists(st.sampled_from(["c-1", "c-11", "xc-1", "~v", "~v2", ""]), max_size=8),
    st.sets(st.sampled_from(["c-1", "~v", "~v2"]), min_size=1),
)
@settings(deadline=None)
def test_blanked(who: list[str], units: set[str]) -> None:
    """Of a file the lines of some units go, all others stay at their bytes, and it is as long and as whole as it
    was.
    """
    data, buffer = b"", bytearray()
    for number, unit in enumerate(who):
        write_frame(line(number, customer_id=unit), buffer)
        data += buffer
    without = blanked(data, units)
    gaps: list[tuple[int, int]] = []
    kept = list(frames(without.content, gaps))
    assert (len(without.content), gaps, damage(without.content)) == (len(data), [], "")
    assert without.lines == len([unit for unit in who if unit in units])
    at = 0
    for unit, (_, _, body) in zip(who, kept, strict=True):
        end = at + HEAD_BYTES + len(body)
        assert (without.content[at:end] == data[at:end]) is (unit not in units)
        at = end
    assert blanked(without.content, units).lines == 0


def test_a_live_journal_turns(tmp_path: Path, base: Workspace) -> None:
    """A worker that goes on writing seals what it has, so that its lines of before can be blanked, and loses none of
    the others.
    """
    workspace = dataclasses.replace(base, folder=tmp_path)
    folder = workspace.data / "journal"
    journal, places = Journal.open(folder, JournalLimits(keep_seconds=0.005, free_bytes_min=0)), Journals(workspace)
    stopped = threading.Event()
    written: list[Line] = []

    def write() -> None:
        for number in range(100_000):
            if stopped.wait(0.0005):
                return
            one = line(number, customer_id=VICTIM if number < 40 else OTHER)
            assert journal.append(one)
            written.append(one)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert until(lambda: len(written) > 60)
        removed = places.remove(UNITS, lambda _: None)
        then = len(written)
        assert until(lambda: len(written) > then + 20)
    finally:
        stopped.set()
        writer.join()
        journal.close()
    assert removed.found == 40
    assert places.left(UNITS) == 0
    found = [one.decision_id for file in sorted(folder.glob(f"*{SEALED}")) for one in read_lines(file)]
    assert found == [one.decision_id for one in written if one.customer_id == OTHER]
    assert not list(folder.glob(f"*{OPEN}"))


def test_a_stuck_worker_is_told_of(tmp_path: Path, base: Workspace) -> None:
    """A process that has a journal open and does not turn is waited for no longer than is said."""
    workspace = dataclasses.replace(base, folder=tmp_path)
    journal = Journal.open(workspace.data / "journal", JournalLimits(keep_seconds=60.0, free_bytes_min=0))
    assert journal.append(line(1, customer_id=VICTIM))
    places = Journals(workspace, turn_seconds_max=0.1)
    try:
        with pytest.raises(NotTurned, match="1 that did not"):
            places.remove(UNITS, lambda _: None)
    finally:
        journal.close()


@pytest.mark.parametrize(
    ("feast", "how", "is_done"),
    [
        ({"type": "sqlite", "path": ".opportune/online.db"}, "deleted", True),
        ({"type": "features.feature_store.lmdb_online_store.LmdbOnlineStore", "path": "../other"}, NULLED, False),
    ],
    ids=["sqlite", "any other"],
)
def test_stores_of_feast(workspace: Workspace, feast: dict[str, str], how: str, is_done: bool) -> None:
    """From a SQLite file the rows are deleted; any other store is given nulls, and the answer says so: the key stays
    there.
    """
    said = yaml.safe_load((workspace.folder / "workspace.yaml").read_text())
    (workspace.folder / "workspace.yaml").write_text(
        yaml.safe_dump(said | {"stores": {"online": {"feast": feast, "timeout_ms": 5_000}}})
    )
    other = load(workspace.folder)
    shutil.rmtree(other.online)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert steps.materialize(other) > 0
        assert [online_erase.exists(other, unit) for unit in (VICTIM, OTHER)] == [True, True]
        done = forget(other, VICTIM)
        assert [online_erase.exists(other, unit) for unit in (VICTIM, OTHER)] == [False, True]
    assert (done.places["online"].found, done.places["online"].left, done.places["online"].how) == (1, 0, how)
    assert done.done is is_done, done.proof


def test_the_shipper_goes_on(workspace: Workspace) -> None:
    """After a forgetting the shipper brings the lines of the others that waited, each once, and takes blanks for
    nothing.
    """
    forget(workspace, VICTIM)
    ship(workspace)
    state = state_of(workspace)
    assert (state.left_out, state.lost_bytes) == ({}, 0)
    con = lake.connect(workspace)
    shipped = con.execute("SELECT decision_id, customer_id FROM recorded GROUP BY ALL").fetchall()
    con.close()
    written = {
        (one.decision_id, one.customer_id)
        for file in (workspace.data / "journal").glob("2*")
        for one in read_lines(file)
    }
    assert set(shipped) == written
    assert len(shipped) == len(written) > 4
    assert not {who for _, who in shipped} & set(UNITS)

"""The doctor on what the program keeps for itself, and on the machine: damage is a finding, never a traceback, and each
is told by its own check.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.common.clock import now as clock_now
from features.common.files import MASK_VARIABLE
from features.common.timestamps import now as clock
from features.events.log import EventLog, event_folder
from features.lmdb_store.environment import DATA
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor import doctor
from pipelines.doctor.doctor import examine
from pipelines.doctor.facts.check import CannotSay, Finding
from pipelines.doctor.facts.facts import ModelFacts, RegistryFacts, ServerFacts
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.service import model as model_checks
from pipelines.doctor.service import resources, worker
from pipelines.doctor.service import state as state_checks
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from serving.journal.journal import Journal
from tests.pipelines.loops import events, log_events
from tests.tiny_workspaces import bank, write
from tests.trained import copy_of

ROOT = Path(__file__).parents[4]


def told(check: Any, workspace: Workspace, **known: Any) -> Sequence[Finding]:
    facts = Facts(workspace, clock(), **known)
    try:
        found: Sequence[Finding] = check(facts).findings
        return found
    finally:
        facts.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with customers, a limit, a filled online store and ledger, events that were shipped, and a server's
    journal.
    """
    folder = tmp_path_factory.mktemp("kept") / "w"
    rows = [{"customer_id": f"c{at}", "valid_from": "2026-01-01", "city": "Wien", "age": at} for at in range(60)]
    yesterday = f"{clock_now() - timedelta(days=1):%Y-%m-%d}"
    seen = [{"customer_id": f"c{at}", "offer_id": "by-hand", "type": "yes", "time": yesterday} for at in range(60)]
    bank(folder, {"customers": write(folder / "customers.csv", rows), "outcomes": write(folder / "outcomes.csv", seen)})
    limits = {"some": {"max": 1, "window": "30d", "per": "offer", "count": "impressions"}}
    pauses = {"yes": {"outcome": "yes", "times": 1, "within": "30d", "pause": "30d", "per": "offer"}}
    (folder / "policies.yaml").write_text(yaml.safe_dump({"limits": limits, "pauses": pauses}))
    workspace, now = load(folder), clock()
    log_events(workspace, events(0, 40))
    Journal.open(workspace.data / "journal").close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, now)
        steps.compute_features(workspace, now)
        steps.materialize(workspace)
        steps.bring_contacts(workspace, now)
    ship(workspace)
    return folder


@pytest.fixture
def workspace(kept: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(kept, tmp_path / "w")
    return load(tmp_path / "w")


def test_what_is_whole_is_fine(workspace: Workspace) -> None:
    """Of a workspace that is as it was left, no check of its state finds anything, and each says what it looked at."""
    for check in (*state_checks.CHECKS[:5], *worker.CHECKS[3:]):
        seen = check(Facts(workspace, clock()))
        assert seen.what and not seen.findings, seen


@pytest.mark.parametrize(
    "name",
    ["steps.json", "stores.json", "loop.json", "catalogue.json", "timeline.json", "imports.json", "lake/shipped.json"],
)
@pytest.mark.parametrize("content", [b"", b"{torn", b"[]7"])
def test_a_damaged_state_file(workspace: Workspace, name: str, content: bytes) -> None:
    """A state file that is empty or torn is an error with its name and what to do (A15)."""
    (workspace.data / name).write_bytes(content)
    (finding,) = told(state_checks.state_files, workspace)
    assert finding.severity == "error" and name in finding.what and finding.todo


@pytest.mark.parametrize("name", ["steps.json", "lake/shipped.json", "catalogue.json"])
def test_the_others_look_beside_a_damaged_state_file(workspace: Workspace, name: str) -> None:
    """With a damaged state file the whole report is made, fails, and says who cannot look for it."""
    (workspace.data / name).write_bytes(b"{torn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examine(workspace, clock())
    assert report.failed and any(finding.check == "state_files" and name in finding.what for finding in report.findings)
    assert "lake_files" in report.fine and "event_log_damaged" in report.fine


def _random(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[2 * 4096 : len(content)] = os.urandom(len(content) - 2 * 4096)
    file.write_bytes(content)


def _bit(file: Path) -> None:
    """Flip one bit of each page's last record."""
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 + 4_050] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [_random, _bit])
def test_pages_of_the_ledger_are_damaged(workspace: Workspace, damage: Callable[[Path], None]) -> None:
    """Random pages and single bits of the ledger are errors, and nothing else reads it then (A5)."""
    damage(workspace.data / "ledger" / DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examine(workspace, clock())
    (finding,) = [finding for finding in report.findings if finding.check == "ledger_damaged"]
    assert finding.severity == "error" and "rebuild --ledger" in finding.todo
    assert "ledger_damaged" in report.not_checked["limits_always_bind"]


def test_files_of_the_lake_are_damaged(workspace: Workspace) -> None:
    """A torn Parquet file is named, and the checks of the lake say that they cannot look, instead of a traceback."""
    file = next(workspace.lake.rglob("outcomes/**/*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examine(workspace, clock())
    (finding,) = [finding for finding in report.findings if finding.check == "lake_files"]
    assert file.name in finding.what and report.failed
    assert "lake_files" in report.not_checked["no_impressions"] and "ledger_damaged" in report.fine


def test_the_event_log_is_damaged(workspace: Workspace) -> None:
    """Random pages of the event log are an error; one that was set aside is a warning."""
    folder = event_folder(workspace.data)
    log = EventLog(folder)
    log.close()
    with sqlite3.connect(folder / "events.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    file = folder / "events.db"
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    (finding,) = told(state_checks.event_log_damaged, workspace)
    assert finding.severity == "error"
    file.rename(folder / "events.db.damaged-20261130T000000")
    (aside,) = told(state_checks.damaged_set_aside, workspace)
    assert aside.severity == "warning" and "events.db.damaged" in aside.what


def test_a_worker_that_does_not_run_or_fails(workspace: Workspace) -> None:
    """A server without a worker, a complaint that comes again and again, tracebacks, and logs that grow, are told
    apart.
    """
    with pytest.raises(CannotSay):
        told(worker.worker_runs, workspace)
    journal = Journal.open(workspace.data / "journal")
    try:
        assert not told(worker.worker_runs, workspace)
        os.utime(workspace.data / "loop.json", (1.8e9 - 86_400, clock() / 1e6 - 900))
        (finding,) = told(worker.worker_runs, workspace)
        assert finding.severity == "error" and 890 < float(finding.evidence["silent_seconds"]) < 1_100
        assert worker.processes_of(workspace) == 1
    finally:
        journal.close()
    logs = workspace.data / "logs"
    logs.mkdir()
    begun = clock_now() - timedelta(minutes=20)

    def stamp(at: int) -> str:
        return f"{begun + timedelta(seconds=60 * at):%Y-%m-%d %H:%M:%S},123"

    lines = [f"{stamp(at)} WARNING opportune.worker ship: expected {at} of them" for at in range(7)]
    (logs / "worker.log").write_text("\n".join(lines[:3]) + "\n")
    assert not told(worker.worker_fails, workspace)
    trace = "Traceback (most recent call last):\n  File x\nValueError: torn\n"
    (logs / "worker.log").write_text("\n".join(lines) + "\n" + trace * 2)
    again, crashed = told(worker.worker_fails, workspace)
    assert again.evidence == {"times_in_an_hour": 7} and crashed.evidence["last_line"] == "ValueError: torn"
    assert not told(worker.logs_grow, workspace)
    with (logs / "server.log").open("wb") as file:
        file.truncate(worker.LOG_BYTES_MAX)
    assert told(worker.logs_grow, workspace)[0].evidence["largest"] == "server.log"


@pytest.mark.slow
def test_a_workspace_that_was_copied(trained_workspace: Path, tmp_path: Path) -> None:
    """A plain copy whose registry names the original is told; one with addresses of its own is not (I3)."""
    shutil.copytree(trained_workspace, tmp_path / "plain")
    plain = load(tmp_path / "plain")
    registry = RegistryFacts("", {"champion": "1"}, {"1": clock()})  # asking MLflow may mend addresses
    (finding,) = told(state_checks.copied_or_moved, plain, registry=registry)
    assert finding.severity == "error" and str(tmp_path) not in str(finding.evidence["first"])
    assert not told(state_checks.copied_or_moved, load(copy_of(trained_workspace, tmp_path / "own")))
    for content in (b"", b"no database", (plain.data / "mlflow.db").read_bytes()[:5_000]):
        (plain.data / "mlflow.db").write_bytes(content or b"x")
        (away,) = told(model_checks.registry_answers, plain)
        assert away.severity == "error" and "mlflow.db" in str(away.evidence["why"])


def test_models_that_are_worth_nothing(workspace: Workspace) -> None:
    """One tree, or an AUC of a coin, is an error; thirty trees with 0.7 are none (M2)."""

    def of(trees: int, auc: float) -> list[Finding]:
        known = ModelFacts("1", "", clock(), 10, 0, {"auc": auc}, trees)
        return list(told(model_checks.model_weak, workspace, model=known))

    assert [one.evidence["trees"] for one in of(1, 0.5)] == [1, 1] and of(1, 0.7)[0].severity == "error"
    assert "coin" in of(30, 0.5)[0].what and not of(30, 0.7)


def test_registries_and_workers_that_differ(workspace: Workspace) -> None:
    """No champion, a version that the registry has not, and workers that serve two bundles, are told."""
    model = ModelFacts("3", "", clock(), 10, 0, {"auc": 0.7}, 30)
    registry = RegistryFacts("", {"champion": None}, {})
    assert "no champion" in told(model_checks.registry_answers, workspace, registry=registry)[0].what
    assert told(model_checks.served_version_registered, workspace, model=model, registry=registry)[0].evidence == {
        "serves": "3"
    }
    server = ServerFacts("http://127.0.0.1:1", True, 200, "", True, 0.0, 200, ("sha256:aa", "sha256:bb"))
    assert "different bundles" in told(model_checks.workers_differ, workspace, server=server)[0].what


def test_folders_that_others_own_or_may_write(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that everybody can write is an error, one that others read a warning unless the mask allows it, and
    what the machine gives is looked at.
    """
    assert not told(resources.data_folder, workspace)
    workspace.data.chmod(0o777)
    (finding,) = told(resources.data_folder, workspace)
    assert finding.severity == "error" and finding.evidence["mode"] == "0o777"
    workspace.data.chmod(0o750)
    (finding,) = told(resources.data_folder, workspace)
    assert finding.severity == "warning" and "chmod 700" in finding.todo
    monkeypatch.setenv(MASK_VARIABLE, "027")
    assert not told(resources.data_folder, workspace)
    workspace.data.chmod(0o700)
    looked = [check(Facts(workspace, clock())).what for check in resources.CHECKS if check is not resources.cores]
    assert all(looked) and len(looked) == 6


def test_few_open_files_and_a_folder_in_memory(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that may open 100 files is told so by a real limit; a folder on tmpfs by the mounts of a made-up
    machine.
    """
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); from"
        " pipelines.doctor.service.resources import open_files; print(open_files(None).findings[0].evidence['limit'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "100", done.stderr
    (tmp_path / "proc" / "self").mkdir(parents=True)
    mounts = tmp_path / "proc" / "self" / "mountinfo"
    monkeypatch.setattr(resources, "PROC", tmp_path / "proc")
    for kind, severity in (("tmpfs", "warning"), ("nfs4", "error")):
        mounts.write_text(f"1 1 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {workspace.folder} rw shared:1 - {kind} x rw\n")
        (finding,) = told(resources.file_system, workspace)
        assert finding.severity == severity and finding.evidence["file_system"] == kind
    mounts.write_text("1 1 0:1 / / rw - ext4 /dev/a rw\n")
    assert not told(resources.file_system, workspace)


def test_reports_are_told_in_few_lines(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be said for one reason is said in one line, and the JSON holds every check once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examine(workspace, clock())
    doctor.show_report(report)
    shown = capsys.readouterr().out.splitlines()
    assert (
        sum(line.startswith("cannot say: ") for line in shown)
        == len(set(report.not_checked.values()))
        < len(report.not_checked)
    )
    whole = msgspec.json.decode(msgspec.json.encode(report))
    named = {*whole["fine"], *whole["not_checked"], *(finding["check"] for finding in whole["findings"])} - {
        doctor.CANNOT_LOOK
    }
    assert named == {doctor.name_of(check) for check in doctor.CHECKS}

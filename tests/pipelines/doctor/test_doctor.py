"""The doctor: silent where all is well, and each of its checks finds what it is for, in workspaces that have it."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import yaml
from typer.testing import CliRunner

from features.common.timestamps import MICROSECONDS, from_microseconds, rfc3339
from features.common.timestamps import now as clock
from features.events.log import event_folder
from features.events.writer import EventWriter
from features.lmdb_store import environment
from features.lmdb_store.environment import DATA
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli import maintenance
from pipelines.doctor import doctor
from pipelines.doctor.doctor import UnknownCheck
from pipelines.doctor.facts import facts as doctor_facts
from pipelines.doctor.facts.gather import Facts
from pipelines.shipping.ship import ship
from serving.http.auth import TEXT_VARIABLE, entry_yaml, new_key
from serving.journal.journal import Journal
from tests.pipelines.checks import DAY, found, happened, healthy, looked
from tests.pipelines.workspace_life import Life, limited
from tests.serving.live import another_bundle
from tests.tiny_workspaces import bank
from tests.trained import copy_of
from training.bundle import bundle

pytestmark = pytest.mark.slow

DECISIONS = 260
OF_THE_MACHINE = {"file_system", "open_files", "memory", "free_files", "disk_space"}
"""What another machine may rightly be told, whatever the workspace."""


@pytest.fixture(scope="module")
def well(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a good day."""
    folder = tmp_path_factory.mktemp("well") / "shop"
    copy_of(shop, folder)
    limits = {"some": {"max": 1, "window": "6h", "per": "offer", "count": "decisions"}}  # holds for those who came last
    life = Life(limited(folder, {"limits": limits}, daily=10_000, stock=10_000), 3, days=0.9)
    healthy(life, DECISIONS)
    life.close()
    ship(load(folder))
    return folder


def test_a_healthy_workspace_gives_no_findings(well: Path) -> None:
    """After a day of decisions, impressions and outcomes nothing is found, and most checks have looked."""
    report = looked(load(well))
    assert [finding for finding in report.findings if finding.check not in OF_THE_MACHINE] == []
    # `streams_stopped` needs events of several days, which the hour decides.
    assert set(report.not_checked) - {"streams_stopped"} == {
        "worker_runs", "worker_fails", "logs_grow", "time_zones", "consent", "keys_expire", "cores",
        "split_mismatch", "exposures_missing", "experiment_of_nobody", "experiments_over", "groups_too_small",
        "arms_without_model", "arms_follow_registry", "arms_of_unknown_offers", "ramps_wait", "ramps_record",
        "calibration_off",
        "server_ready", "door_is_locked", "clocks", "workers_differ", "port_taken",
    }  # fmt: skip
    assert len(report.fine) == len(doctor.CHECKS) - len(report.not_checked) > 50
    assert all(report.fine.values()), "each says what it looked at"
    assert not report.failed


def test_a_workspace_of_nothing_is_told_what_is_missing(tmp_path: Path) -> None:
    """Before anything was done the doctor says what to do first, and what it could not look at."""
    report = looked(bank(tmp_path / "w", {}))
    assert {finding.check for finding in report.findings} == {"store_empty", "bundle_refused"}
    assert "materialize" in found(report, "store_empty").todo and "up" in found(report, "bundle_refused").todo
    assert len(report.not_checked) > 15


def test_only_the_checks_that_are_named_look(well: Path) -> None:
    """With ids of checks the others neither look nor are told of; an id of none is refused, with near ones."""
    report = looked(load(well), "shipper", "store_empty")
    assert report.fine.keys() == {"shipper", "store_empty"} and not report.not_checked and not report.findings
    with pytest.raises(UnknownCheck, match="expected the id of a check, such as `?dead_letters`?, got 'dead_leters'"):
        looked(load(well), "dead_leters")


def test_a_server_without_events_is_told_from_none(tmp_path: Path) -> None:
    """Whether no server ran, or one runs, or ran, to which no event came: what could not be looked at says which it
    is.
    """
    workspace = bank(tmp_path / "w", {})

    def why() -> tuple[str, str]:
        report = looked(workspace)
        assert report.not_checked["duplicates"] == report.not_checked["dead_letters"]
        return report.not_checked["dead_letters"], report.not_checked["shipper"]

    nothing = "no decision and no event was recorded here yet"
    assert why() == ("no server ran here yet", nothing)
    journal, log = Journal.open(workspace.data / "journal"), EventWriter(event_folder(workspace.data))
    assert why() == ("a server runs, and no event has come to it yet", nothing)
    log.close()
    journal.close()
    assert why() == ("a server ran here, and no event ever came to it", nothing)


def _flip(workspace: Workspace) -> None:
    data = workspace.online / environment.current(workspace.online) / DATA
    content = bytearray(data.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 + 2_000] ^= 0x40
    data.write_bytes(content)


def _emptied(workspace: Workspace) -> None:
    generation = environment.new_generation(workspace.online)
    environment.attach(workspace.online, create=True, generation=generation).release()
    environment.publish(workspace.online, generation)


@pytest.mark.parametrize(
    ("damage", "what"), [(_flip, "damaged"), (_emptied, "empty"), (lambda w: shutil.rmtree(w.online), "damaged")]
)
def test_a_store_without_rows(shop: Path, tmp_path: Path, damage: Callable[[Workspace], None], what: str) -> None:
    """A store that is damaged, emptied or gone is an error."""
    workspace = load(copy_of(shop, tmp_path / "shop"))
    damage(workspace)
    assert what in found(looked(workspace, "store_empty"), "store_empty").what


def test_rows_that_outlived_their_limit(well: Path) -> None:
    """Forty days later the customers' attributes, which live for thirty, are too old."""
    finding = found(looked(load(well), "rows_too_old", later=40 * DAY), "rows_too_old")
    assert "customer" in finding.what and finding.severity == "error"


# Limits and budgets
# -------------------------------------------------------------------------------------------------------------


def test_limits_that_always_or_never_bind_and_budgets_that_are_used_up(shop: Path, tmp_path: Path) -> None:
    """One show a month binds for everybody, a hundred an hour for nobody, and a budget of thirty a day is used up."""
    folder = copy_of(shop, tmp_path / "shop")
    limits = {
        "one": {"max": 1, "window": "30d", "per": "any", "count": "decisions"},
        "wide": {"max": 100, "window": "1h", "per": "any"},
    }
    (folder / "policies.yaml").write_text(yaml.safe_dump({"limits": limits}))
    life = Life(load(folder), 5, days=0.1)
    for number in range(300):
        life.now += 1_000 * MICROSECONDS // 100
        decision = life.decide(f"436{600_000 + number}")
        for offer in decision.offers:
            happened(life, decision.decision_id, decision.customer_id, offer.offer_id, "impression", life.now)
    with (life.workspace.data / "ledger" / DATA).open("r+b") as file:
        file.truncate(60 << 30)  # a hole: it takes no room
    life.close()
    ship(life.workspace)
    checks = ("limits_always_bind", "limits_never_bind", "budgets_used_up", "ledger_full")
    report = looked(life.workspace, *checks)
    assert "limit one" in found(report, "limits_always_bind").what
    assert "limit wide" in found(report, "limits_never_bind").what
    assert "daily" in found(report, "budgets_used_up").what and "rare" in found(report, "budgets_used_up").what
    assert found(report, "ledger_full").severity == "error"


# Models
# ----------------------------------------------------------------------------------------------------------------------


def test_another_version_serves_than_the_champion_and_it_is_old(shop: Path, tmp_path: Path) -> None:
    """A bundle of a version that is no champion, made before most decisions, is told of."""
    workspace = load(copy_of(shop, tmp_path / "shop"))
    place = another_bundle(workspace.folder, "2")
    manifest = msgspec.json.decode((place / bundle.MANIFEST).read_bytes(), type=bundle.Manifest)
    old = msgspec.structs.replace(manifest, created_at=rfc3339(clock() - 150 * DAY), files={})
    contents: dict[str, bytes | Path] = {name: place / name for name in bundle.FILES}
    bundle.switch(workspace.bundles, bundle.write(workspace.bundles, contents, old))
    report = looked(workspace, "champion_serves", "model_older_than_data")
    assert found(report, "champion_serves").evidence == {"serves": "2", "champion": "1"}
    assert float(found(report, "model_older_than_data").evidence["share"]) > 0.5


def test_a_bundle_that_is_refused(shop: Path, tmp_path: Path) -> None:
    """A bundle with a flipped byte cannot serve, and neither can one for other columns."""
    workspace = load(copy_of(shop, tmp_path / "shop"))
    model = yaml.safe_load((workspace.folder / "model.yaml").read_text())
    (workspace.folder / "model.yaml").write_text(yaml.safe_dump(model | {"leave_out": ["tariff"]}))
    assert "other columns" in str(
        found(looked(load(workspace.folder), "bundle_refused"), "bundle_refused").evidence["why"]
    )
    place = bundle.current(workspace.bundles)
    assert place is not None
    forest = bytearray((place / "forest.npz").read_bytes())
    forest[100] ^= 1
    (place / "forest.npz").chmod(0o644)
    (place / "forest.npz").write_bytes(forest)
    assert found(looked(workspace, "bundle_refused"), "bundle_refused").severity == "error"


# The machine and the door
# -------------------------------------------------------------------------------------------------------


def test_keys_without_an_end(well: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that never expire, keys that did, and keys that cannot be read are told of."""
    entries = [new_key("shop", ("decide",))[1], new_key("old", ("decide",), from_microseconds(clock() - DAY))[1]]
    monkeypatch.setenv(TEXT_VARIABLE, "".join(map(entry_yaml, entries)))
    texts = [finding.what for finding in looked(load(well), "keys_expire").findings]
    assert texts == ["keys are valid for ever", "keys have expired"]
    monkeypatch.setenv(TEXT_VARIABLE, "- nonsense")
    assert found(looked(load(well), "keys_expire"), "keys_expire").severity == "error"


class _Door(http.server.BaseHTTPRequestHandler):
    """A server that is ready, takes everybody, and whose clock is an hour ahead."""

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("date", formatdate(time.time() + 3_600, usegmt=True))
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def test_a_server_is_asked(well: Path) -> None:
    """A server that does not answer is an error, as is one whose clock is off."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        report = looked(load(well), "clocks", "server_ready", "door_is_locked", url=url)
        assert 3_500 < float(found(report, "clocks").evidence["ahead_seconds"]) < 3_700
        assert "server_ready" in report.fine and "loopback" in report.not_checked["door_is_locked"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert found(looked(load(well), "server_ready", url=url), "server_ready").evidence["status"] == 0


def test_what_only_another_machine_could_show(well: Path) -> None:
    """A full disk, a lake that outgrows it, and an open door to the network, are judged by their figures alone."""
    facts = Facts(load(well), clock())
    assert facts.machine.lake_bytes_a_day > 0
    full = msgspec.structs.replace(
        facts.machine,
        free_bytes=100 << 20,
        total_bytes=1 << 40,
        free_files=3,
        lake_bytes_a_day=float(50 << 20),
        kept_days=None,
    )
    door = doctor_facts.ServerFacts("http://10.0.0.7:3000", False, 200, "", True, 0.0)
    shown = doctor.report(Facts(load(well), clock(), "http://10.0.0.7:3000", machine=full, server=door))
    assert {finding.check for finding in shown.findings if finding.severity == "error"} == {
        "disk_space",
        "door_is_locked",
        "free_files",
    }
    assert float(found(shown, "retention_fits").evidence["full_in_days"]) == 2


# The verbs
# ----------------------------------------------------------------------------------------------------------------------


def test_the_verbs_print_and_end_as_they_say(well: Path, tmp_path: Path) -> None:
    """`doctor` ends with 0 where only warnings are, with 1 where an error is; `rebuild --check` likewise; both print
    JSON.
    """
    app = typer.Typer()
    maintenance.register(app)
    runner, folder = CliRunner(), str(well)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fine = runner.invoke(app, ["doctor", "-w", folder, "--json"])
        assert fine.exit_code == 0, fine.stdout
        assert msgspec.json.decode(fine.stdout)["fine"]["ledger_damaged"]
        assert "0 errors" in runner.invoke(app, ["doctor", "-w", folder]).stdout
        workspace = load(copy_of(well, tmp_path / "shop"))
        whole = runner.invoke(app, ["rebuild", "-w", str(workspace.folder), "--check"])
        assert whole.exit_code == 0 and whole.stdout.count("all whole") == 2
        _flip(workspace)
        assert runner.invoke(app, ["doctor", "-w", str(workspace.folder)]).exit_code == 1
        assert runner.invoke(app, ["rebuild", "-w", str(workspace.folder), "--check"]).exit_code == 1
        made = runner.invoke(app, ["rebuild", "-w", str(workspace.folder), "--online", "--json"])
        assert made.exit_code == 0 and msgspec.json.decode(made.stdout)[0]["store"] == "online"
        assert runner.invoke(app, ["rebuild", "-w", str(workspace.folder), "--check"]).exit_code == 0
    assert os.listdir(workspace.data / "damaged")

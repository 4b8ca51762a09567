"""From nothing to a model that serves, with events, a refresh and a doctor that finds nothing, at whatever moment and
in whatever zone.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from features.common import clock
from features.common.timestamps import MICROSECONDS, from_microseconds, now, parse_moment
from features.common.types import DecisionRequest, Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import time_of
from features.validation.load import load
from pipelines.cli import starter
from pipelines.deploy import publish as publishing
from pipelines.doctor.doctor import examine
from pipelines.materialize import refresh_changed, steps
from pipelines.shipping.ship import ship
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from tests.environment import MACHINE_ZONE, without_settings
from tests.serving.decisions import decide
from tests.serving.live import ROOT
from tests.waiting import LIMIT_S, until
from training.fitting.train import train

ASKED = 30


@pytest.mark.clock
@pytest.mark.slow
@pytest.mark.skipif(not clock.OFFSET_US, reason="`make test-clock` runs it, at three hard moments")
def test_everything_from_the_first_import_to_the_doctor(tmp_path: Path) -> None:
    """A new workspace in the machine's zone is imported, trained and served, hears of what happens, and the doctor has
    nothing to say.
    """
    folder, zone = tmp_path / "shop", os.environ.get(MACHINE_ZONE, "UTC")
    starter.write_starter(folder)
    file = folder / "workspace.yaml"
    file.write_text(file.read_text().replace("time_zone: UTC", f"time_zone: {zone}"))
    workspace = load(folder)
    assert workspace.settings.time_zone == zone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reports = steps.import_tables(workspace, now())
        assert all(not report.refused for report in reports), reports
        steps.compute_features(workspace, now())
        steps.materialize(workspace)
        trained = train(workspace, now())
        assert trained.promoted, trained.report["gates"]
        publishing.publish(workspace, trained.version)
        begun = now()
        _ask(folder)
        ship(workspace)
        until(
            lambda: refresh_changed.refresh_changed(workspace) > 0, "a refresh"
        )  # it goes by whole seconds, and this one is not over
        report = examine(workspace, now())
    found = [finding for finding in report.findings if finding.check != "clock_is_moved"]
    assert not found, found
    assert {"online_equals_lake", "rows_too_old", "shipper", "clocks_of_clients"} <= set(report.fine)
    assert bool(clock.OFFSET_US) == any(finding.check == "clock_is_moved" for finding in report.findings)

    # The same by a process of the machine, which is in its own zone until it says otherwise.
    command = [sys.executable, "-m", "pipelines.main", "doctor", "-w", str(folder), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=without_settings(), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    assert begun <= parse_moment(json.loads(done.stdout)["at"]) <= now()


def _ask(folder: Path) -> None:
    """Decisions for some customers, who see what is shown and take some of it, or did so yesterday, as their devices
    tell now.
    """
    desk = Reloader(load(folder, sources=False))
    desk.load()
    loaded = desk.loaded
    assert loaded is not None, desk.refusal
    journal, log = Journal.open(desk.workspace.data / "journal"), EventLog(event_folder(desk.workspace.data))
    try:
        for number in range(ASKED):
            customer = f"c{number:04d}"
            request = DecisionRequest(customer, "home", context={"channel": "web"})
            row = asyncio.run(desk.stores.customers.row(customer))
            decision = decide(request, loaded, row, now(), record=journal.append)
            assert decision.offers and not decision.degraded
            for offer in decision.offers:
                about = {"customer_id": customer, "decision_id": decision.decision_id, "offer_id": offer.offer_id}
                for kind in ("impression", "accepted") if number % 3 == 0 else ("impression",):
                    event = Event(f"{kind}-{number}-{offer.offer_id}", kind, from_microseconds(now()), **about)  # type: ignore[arg-type]
                    (result,) = log.append([event_item(event, time_of(event))])
                    assert result.outcome == "stored", result
            late = Event(
                f"late-{number}",
                "impression",
                from_microseconds(now() - 3_600 * MICROSECONDS),
                customer,
                offer_id=offer.offer_id,
            )
            log.append([event_item(late, time_of(late))])
    finally:
        journal.close()
        log.close()
        desk.close()

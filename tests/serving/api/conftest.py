"""Decisions, experiments and flags behind one front door."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from features.validation.load import load
from serving.api.decisions import Decisions
from serving.api.experiments import ExperimentRoutes
from serving.api.flags import Flags
from serving.api.preview import Enquiry
from serving.http.app import FrontDoor
from serving.http.auth import KeyEntry, Keys
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.trial_server import trial_workspace
from tests.serving.trials import Served


@pytest.fixture(scope="module")
def served(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Decisions, experiments and flags behind the front door, with keys, over real sockets; the desk in this
    process.
    """
    workspace = load(trial_workspace(trained_workspace, tmp_path_factory.mktemp("routes") / "shop"), sources=False)
    desk, metrics, journal = Reloader(workspace), Metrics(), Journal.open(workspace.data / "journal")
    decisions = Decisions(desk, workspace, metrics, journal)
    desk.on_build = lambda made: journal.keep(made.offer_table)
    enquiry = Enquiry(desk)
    routes = (*decisions.routes(edge.inner), *ExperimentRoutes(enquiry).routes(), *Flags(enquiry, decisions).routes())
    entries = [
        KeyEntry(f"{role}-key", hashlib.sha256(key.encode()).hexdigest(), role) for role, key in ROLE_KEYS.items()
    ]  # type: ignore[arg-type]
    lane = FrontDoor(routes, Keys(tuple(entries)), metrics=metrics, inner=edge.inner)
    desk.load()
    assert desk.loaded is not None, desk.refusal
    with edge.served(lane) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield Served(desk, journal, client, port)
    desk.close()
    journal.close()
